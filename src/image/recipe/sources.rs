//! Where this machine takes the packages of a suite from: its apt sources (sources.list(5)), both forms of them.
//!
//! Owns what is taken over: entries of the suite itself, its updates and its security updates, with the main part of the
//! archive; other people's additions to the same machine are none of an image's business.

use std::fs;
use std::path::{Path, PathBuf};

/// An entry of apt's sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Entry {
    addresses: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// A path, or lines of a key.
    signed_by: Option<String>,
}

/// The entries of the sources below `etc` (`/etc/apt`) that are about `suite`, as one file of the newer form; `None` if there
/// are none. `components`, unless empty, takes the place of what they say.
pub(super) fn of_machine(etc: &Path, suite: &str, components: &[String]) -> Option<String> {
    let mut files = vec![etc.join("sources.list")];
    let listed = fs::read_dir(etc.join("sources.list.d")).into_iter().flatten().flatten();
    let mut parts: Vec<PathBuf> = listed.map(|entry| entry.path()).collect();
    parts.sort_unstable();
    files.append(&mut parts);
    let mut entries = Vec::new();
    for file in files {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("list") => entries.extend(text.lines().filter_map(of_line)),
            Some("sources") => entries.extend(stanzas(&text)),
            _ => {}
        }
    }
    let wanted = [
        suite.to_owned(),
        format!("{suite}-updates"),
        format!("{suite}-security"),
        format!("{suite}/updates"),
    ];
    let mut text = String::new();
    for mut entry in entries {
        entry.suites.retain(|one| wanted.contains(one));
        if entry.suites.is_empty()
            || entry.addresses.is_empty()
            || !entry.components.iter().any(|part| part == "main")
        {
            continue;
        }
        if !components.is_empty() {
            entry.components = components.to_vec();
        }
        text.push_str(&entry.stanza());
    }
    // Updates of a suite alone make no system.
    text.lines()
        .any(|line| line.strip_prefix("Suites: ").is_some_and(|all| all.split(' ').any(|one| one == suite)))
        .then_some(text)
}

impl Entry {
    fn stanza(&self) -> String {
        let join = |words: &[String]| words.join(" ");
        let mut text = format!(
            "Types: deb\nURIs: {}\nSuites: {}\nComponents: {}\n",
            join(&self.addresses),
            join(&self.suites),
            join(&self.components)
        );
        if let Some(keys) = &self.signed_by {
            text.push_str(&format!("Signed-By: {keys}\n"));
        }
        text.push('\n');
        text
    }
}

/// `deb [OPTION=VALUE …] ADDRESS SUITE COMPONENT…`
fn of_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next()?.trim();
    let mut rest = line.strip_prefix("deb")?;
    if !rest.starts_with(char::is_whitespace) {
        return None;
    }
    rest = rest.trim_start();
    let mut signed_by = None;
    if let Some((options, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(str::to_owned);
        rest = after;
    }
    let mut words = rest.split_whitespace().map(str::to_owned);
    Some(Entry {
        addresses: vec![words.next()?],
        suites: vec![words.next()?],
        components: words.collect(),
        signed_by,
    })
}

/// The entries of a deb822 file (`.sources`) that are used and for packages ready to be installed.
fn stanzas(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in stanza {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let field = |name: &str| fields.iter().find(|(one, _)| one == name).map(|(_, value)| value.as_str());
        let words = |name: &str| -> Vec<String> {
            field(name).unwrap_or_default().split_whitespace().map(str::to_owned).collect()
        };
        if field("enabled").is_some_and(|word| word.eq_ignore_ascii_case("no"))
            || !words("types").iter().any(|kind| kind == "deb")
        {
            continue;
        }
        let signed_by = field("signed-by").map(str::to_owned);
        entries.push(Entry {
            addresses: words("uris"),
            suites: words("suites"),
            components: words("components"),
            signed_by,
        });
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)], suite: &str, components: &[&str]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        for (name, text) in files {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let components: Vec<_> = components.iter().map(|one| (*one).to_owned()).collect();
        of_machine(dir.path(), suite, &components)
    }

    #[test]
    fn both_forms_are_read_and_strangers_stay_out() {
        let old = "deb http://a/debian bookworm main # all\ndeb-src http://a/debian bookworm main\ndeb [arch=amd64 signed-by=/k.gpg] http://b/debian bookworm-security main contrib\ndeb http://docker bookworm stable\n";
        let new = "Types: deb deb-src\nURIs: http://c/debian\n  http://d/debian\nSuites: bookworm-updates bookworm-backports\n# no\nComponents: main\nSigned-By:\n KEY\n .\n\nEnabled: no\nTypes: deb\nURIs: http://e\nSuites: bookworm\nComponents: main\n";
        let files =
            [("sources.list", old), ("sources.list.d/x.sources", new), ("sources.list.d/x.save", old)];
        let text = machine(&files, "bookworm", &[]).unwrap();
        let entries = stanzas(&text);
        assert_eq!(entries.len(), 3, "{text}");
        assert_eq!(entries[0].addresses, ["http://a/debian"]);
        assert_eq!((entries[1].signed_by.as_deref(), entries[1].components.len()), (Some("/k.gpg"), 2));
        assert_eq!(entries[2].addresses, ["http://c/debian", "http://d/debian"]);
        assert_eq!(entries[2].suites, ["bookworm-updates"]);
        assert_eq!(entries[2].signed_by.as_deref(), Some("\n KEY\n ."));
        let replaced = stanzas(&machine(&files, "bookworm", &["main", "non-free-firmware"]).unwrap());
        assert!(replaced.iter().all(|entry| entry.components == ["main", "non-free-firmware"]));
    }

    #[test]
    fn a_machine_of_another_suite_has_none() {
        assert_eq!(machine(&[("sources.list", "deb http://a/debian bookworm main\n")], "trixie", &[]), None);
        assert_eq!(
            machine(&[("sources.list", "deb http://a/debian trixie-updates main\n")], "trixie", &[]),
            None
        );
        assert_eq!(machine(&[], "trixie", &[]), None);
    }
}
