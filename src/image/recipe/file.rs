//! What is written in a recipe, and what it means once checked; everything that is wrong is found in one go.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use serde::Deserialize;
use toml::Spanned;
use toml::value::Datetime;

use super::date;
use super::{Content, PlacedFile, Problem, Recipe, RecipeError};

/// Largest recipe that is read, in bytes.
const MAX_RECIPE: u64 = 1 << 20;

/// How much of the suite is taken beside the packages that are named, as `mmdebstrap` calls it.
const VARIANTS: [&str; 6] = ["essential", "apt", "minbase", "buildd", "important", "standard"];
/// Essential packages and apt.
const USUAL_VARIANT: &str = "minbase";

/// Permission bits of a file for which none are named.
const USUAL_MODE: u32 = 0o644;

/// The file as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    name: Option<String>,
    version: Option<String>,
    suite: Spanned<String>,
    mirror: Option<Spanned<OneOrMany>>,
    #[serde(default)]
    components: Vec<Spanned<String>>,
    keyring: Option<Spanned<String>>,
    variant: Option<Spanned<String>>,
    date: Option<Spanned<Datetime>>,
    #[serde(default)]
    packages: Vec<Spanned<String>>,
    kernel: Option<Spanned<String>>,
    #[serde(default)]
    files: Vec<WrittenFile>,
    #[serde(default)]
    commands: Vec<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenFile {
    path: Spanned<String>,
    content: Option<String>,
    source: Option<Spanned<String>>,
    mode: Option<Spanned<String>>,
    owner: Option<Spanned<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Recipe {
    /// Reads the recipe `path`. Files that it names are where its directory says.
    ///
    /// # Errors
    /// [`RecipeError::Read`], and [`RecipeError::Wrong`] with all that is wrong and where.
    pub fn open(path: &Path) -> Result<Self, RecipeError> {
        let error = |source| RecipeError::Read { path: path.to_owned(), source };
        if fs::metadata(path).map_err(error)?.len() > MAX_RECIPE {
            let problems = vec![Problem { line: 1, why: "this is too large to be a recipe".into() }];
            return Err(RecipeError::Wrong { path: path.to_owned(), problems });
        }
        let text = fs::read(path).map_err(error)?;
        let text = String::from_utf8_lossy(&text);
        Self::parse(&text, path.parent().unwrap_or(Path::new("")))
            .map_err(|problems| RecipeError::Wrong { path: path.to_owned(), problems })
    }

    /// What `text` means in a recipe of the directory `base`.
    pub(super) fn parse(text: &str, base: &Path) -> Result<Self, Vec<Problem>> {
        let mut checker = Checker { text, base, problems: Vec::new() };
        let recipe = match toml::from_str(text) {
            Ok(written) => checker.recipe(written),
            Err(error) => {
                checker.problem(error.span().unwrap_or_default(), error.message().replace('\n', ", "));
                return Err(checker.problems);
            }
        };
        if checker.problems.is_empty() { Ok(recipe) } else { Err(checker.problems) }
    }
}

struct Checker<'a> {
    text: &'a str,
    base: &'a Path,
    problems: Vec<Problem>,
}

impl Checker<'_> {
    fn problem(&mut self, at: Range<usize>, why: String) {
        let before = self.text.as_bytes().get(..at.start).unwrap_or_default();
        self.problems.push(Problem { line: 1 + before.iter().filter(|byte| **byte == b'\n').count(), why });
    }

    fn recipe(&mut self, written: Written) -> Recipe {
        let Written {
            name,
            version,
            suite,
            mirror,
            components,
            keyring,
            variant,
            date,
            packages,
            kernel,
            files,
            commands,
        } = written;
        let mirrors = mirror.map_or_else(Vec::new, |mirror| self.mirrors(mirror));
        let word = |text: &str| is_word(text, "+-./");
        let package = |text: &str| is_word(text, "+-.:=~/");
        let variant = variant.map(|variant| {
            if !VARIANTS.contains(&variant.get_ref().as_str()) {
                let why = format!("`{}` is no variant: {}", variant.get_ref(), VARIANTS.join(", "));
                self.problem(variant.span(), why);
            }
            variant.into_inner()
        });
        Recipe {
            name,
            version,
            suite: self.word(suite, "a suite such as bookworm", word),
            mirrors,
            components: self.words(components, "a part of an archive such as main", word),
            keyring: keyring.and_then(|keyring| self.existing(&keyring)),
            variant: variant.unwrap_or_else(|| USUAL_VARIANT.to_owned()),
            date: date.and_then(|date| self.date(&date)),
            packages: self.words(packages, "the name of a package", package),
            kernel: kernel.map(|kernel| self.word(kernel, "the name of a package", package)),
            files: self.files(files),
            commands: self
                .words(commands, "a command", |text| !text.trim().is_empty() && !text.contains('\0')),
        }
    }

    fn word(&mut self, word: Spanned<String>, what: &str, fits: impl Fn(&str) -> bool) -> String {
        if !fits(word.get_ref()) {
            self.problem(word.span(), format!("`{}` is not {what}", word.get_ref()));
        }
        word.into_inner()
    }

    fn words(&mut self, words: Vec<Spanned<String>>, what: &str, fits: impl Fn(&str) -> bool) -> Vec<String> {
        words.into_iter().map(|word| self.word(word, what, &fits)).collect()
    }

    fn mirrors(&mut self, mirror: Spanned<OneOrMany>) -> Vec<String> {
        let at = mirror.span();
        let mirrors = match mirror.into_inner() {
            OneOrMany::One(one) => vec![one],
            OneOrMany::Many(many) => many,
        };
        for mirror in &mirrors {
            let is_address = mirror.contains("://") && !mirror.contains(char::is_whitespace);
            let is_line = mirror.starts_with("deb ") && mirror.contains("://");
            if !(is_address || is_line) || mirror.starts_with('-') || mirror.contains(char::is_control) {
                let why = "is neither an address (http://deb.debian.org/debian) nor a line `deb ADDRESS SUITE COMPONENTS`";
                self.problem(at.clone(), format!("`{mirror}` {why}"));
            }
        }
        mirrors
    }

    fn date(&mut self, date: &Spanned<Datetime>) -> Option<i64> {
        let seconds = date::seconds(date.get_ref());
        if seconds.is_none() {
            let why =
                "is neither a date such as 2026-01-31 nor a time such as 2026-01-31T12:00:00Z, since 1970";
            self.problem(date.span(), format!("`{}` {why}", date.get_ref()));
        }
        seconds
    }

    /// The path of a file of this machine that must be there.
    fn existing(&mut self, path: &Spanned<String>) -> Option<std::path::PathBuf> {
        let found = self.base.join(path.get_ref());
        let why = match fs::metadata(&found) {
            Ok(metadata) if metadata.is_file() => return Some(found),
            Ok(_) => "is no file".to_owned(),
            Err(error) => format!("cannot be read: {error}"),
        };
        self.problem(path.span(), format!("`{}` {why}", found.display()));
        None
    }

    fn files(&mut self, files: Vec<WrittenFile>) -> Vec<PlacedFile> {
        let mut seen = BTreeSet::new();
        files.into_iter().filter_map(|file| self.file(file, &mut seen)).collect()
    }

    fn file(&mut self, file: WrittenFile, seen: &mut BTreeSet<String>) -> Option<PlacedFile> {
        let (at, path) = (file.path.span(), file.path.into_inner());
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(char::is_control);
        if !path.strip_prefix('/').is_some_and(|rest| rest.split('/').all(plain)) {
            self.problem(
                at,
                format!("`{path}` is no path in the root: an absolute one, without `.` and `..`"),
            );
            return None;
        }
        if !seen.insert(path.clone()) {
            self.problem(at.clone(), format!("`{path}` is there twice"));
        }
        let content = match (file.content, file.source) {
            (Some(text), None) => Some(Content::Text(text)),
            (None, Some(source)) => self.existing(&source).map(Content::File),
            (one, _) => {
                let why = if one.is_some() { "not both" } else { "one of the two" };
                self.problem(at, format!("`{path}` needs `content` or `source`, {why}"));
                None
            }
        };
        let mode = file.mode.map(|mode| {
            let bits = u32::from_str_radix(mode.get_ref(), 8).ok().filter(|bits| *bits <= 0o7777);
            if bits.is_none() {
                self.problem(mode.span(), format!("`{}` is no mode such as \"0644\"", mode.get_ref()));
            }
            bits.unwrap_or_default()
        });
        let owner = file.owner.map(|owner| {
            self.word(owner, "an owner such as \"root\" or \"www-data:www-data\"", |text| {
                let (user, group) = text.split_once(':').unwrap_or((text, "root"));
                is_word(user, "_-.") && is_word(group, "_-.")
            })
        });
        Some(PlacedFile { path, content: content?, mode: mode.unwrap_or(USUAL_MODE), owner })
    }
}

/// Whether `text` begins with a letter, digit or underline and goes on with those and `more`.
fn is_word(text: &str, more: &str) -> bool {
    let usual = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
    text.starts_with(usual) && text.chars().all(|letter| usual(letter) || more.contains(letter))
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
