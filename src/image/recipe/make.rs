//! Runs `mmdebstrap` for a recipe.
//!
//! What it does to the root beyond installing packages are hooks (mmdebstrap(1)), each of which works inside the root by
//! `chroot`, so that no link of the root leads out of it: first the kernel's packages are fetched, then files are placed,
//! then the recipe's commands run, one hook each. A kernel is not installed but unpacked beside the root: installing it would
//! bring an initramfs of its own and what makes one.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::sources;
use super::{Content, MakeError, PlacedFile, Recipe, RecipeError};
use crate::image::progress::{Progress, Step};
use crate::image::tar::{END, Kind, NewMember, padding};
use crate::image::tool::{DPKG_DEB, MMDEBSTRAP, ToolError};

/// apt's own directory.
const APT: &str = "/etc/apt";

/// Variables that reach `mmdebstrap`: ways to archives.
const PASSED: [&str; 3] = ["http_proxy", "https_proxy", "no_proxy"];

/// What `mmdebstrap` and the programs that it runs take for the time of the build (reproducible-builds.org).
const EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Lines of a failed run that an error repeats.
const LAST_LINES: usize = 12;

/// Where the kernel's packages are put in the root, until they are taken out of it.
const KERNEL: &str = "bootfabric-kernel";
/// The same for the archive of placed files.
const FILES: &str = "bootfabric-files.tar";

/// Fetches the package `$2` and those of kernels and modules that it depends on; names such as linux-image-amd64 stand for the
/// newest.
const FETCH_KERNEL: &str = r#"set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
mkdir "$1/bootfabric-kernel"
todo=$2 all=
while [ -n "$todo" ]; do
    next=
    for package in $todo; do
        case " $all " in *" $package "*) continue ;; esac
        all="$all $package"
        next="$next $(apt-cache depends "$package" | sed -n 's/^ *Depends: \(linux-\(image\|modules\)-[^ ]*\)$/\1/p')"
    done
    todo=$(echo $next)
done
cd "$1/bootfabric-kernel"
apt-get -q -o APT::Sandbox::User=root download $all"#;

/// Fetches and checks what the archive says of itself, and prints when it was published: a line `published SECONDS` for each
/// suite, among the messages (mmdebstrap gives hooks no other output).
const ASK_ARCHIVE: &str = r#"set -eu
export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG"
apt-get -q update --error-on=any -o APT::Sandbox::User=root -o Acquire::Languages=none \
    -o Acquire::IndexTargets::deb::Packages::DefaultEnabled=false >&2
for file in "$1"/var/lib/apt/lists/*Release; do
    sed -n 's/^Date: //p' "$file" | head -n 1 | date -u -f - '+published %s'
done"#;

/// Removes what `mmdebstrap` copied from this machine for the time of the installation, unless it became something else.
const FORGET_MACHINE: &str = r#"for file in etc/hostname etc/resolv.conf; do
    if [ -f "$1/$file" ] && [ ! -L "$1/$file" ] && cmp -s "/$file" "$1/$file"; then rm "$1/$file"; fi
done"#;

/// What came of a recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The root, a tar.
    pub root: PathBuf,
    /// The unpacked kernel, laid out like `/`, if the recipe names one.
    pub kernel: Option<PathBuf>,
}

/// Makes what `recipe` describes, with all files in the directory `scratch`. Blocks for as long as it takes: a minute or
/// two. As root, packages are installed in a chroot, otherwise in a user namespace.
///
/// # Errors
/// [`RecipeError`]; what is in `scratch` then is of no use.
pub fn make(recipe: &Recipe, scratch: &Path, progress: &dyn Progress) -> Result<Made, RecipeError> {
    let tool = |error: ToolError| RecipeError::Mmdebstrap(MakeError::from(error));
    let made = Made {
        root: scratch.join("root.tar"),
        kernel: recipe.kernel.is_some().then(|| scratch.join("kernel")),
    };
    let mirrors = mirrors(recipe, scratch)?;
    let epoch = match std::env::var(EPOCH).ok().or(recipe.date.map(|date| date.to_string())) {
        Some(epoch) => Some(epoch),
        None => published(recipe, &mirrors, progress).map_err(tool)?,
    };
    let mut command = installation(recipe, &made.root, hooks(recipe, scratch)?, mirrors).map_err(tool)?;
    command.envs(epoch.map(|epoch| (EPOCH, epoch)));
    run(command, progress).map_err(tool)?;
    if let Some(kernel) = &made.kernel {
        unpack_kernel(&scratch.join(KERNEL), kernel)?;
    }
    Ok(made)
}

/// The run that makes the tar `root`.
fn installation(
    recipe: &Recipe,
    root: &Path,
    hooks: Vec<String>,
    mirrors: Vec<String>,
) -> Result<Command, ToolError> {
    let mut command = mmdebstrap(recipe)?;
    command.arg(format!("--variant={}", recipe.variant)).arg("--format=tar");
    command.args(recipe.packages.iter().map(|package| format!("--include={package}")));
    command.args(hooks.into_iter().map(|hook| format!("--customize-hook={hook}")));
    command.arg("--").arg(&recipe.suite).arg(root).args(mirrors);
    Ok(command)
}

/// The command with what every run of it has.
fn mmdebstrap(recipe: &Recipe) -> Result<Command, ToolError> {
    let mut command = MMDEBSTRAP.command()?;
    command.envs(PASSED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    let mode = if nix::unistd::geteuid().is_root() { "root" } else { "unshare" };
    command.arg(format!("--mode={mode}")).arg("--architectures=amd64");
    if !recipe.components.is_empty() {
        command.arg(format!("--components={}", recipe.components.join(",")));
    }
    if let Some(keyring) = &recipe.keyring {
        command.arg(option("--keyring=", keyring));
    }
    Ok(command)
}

/// When the archive was last published, in seconds since 1970: the date of two builds from the same packages must be one, and no
/// package is newer. `None` if the archive does not say.
fn published(
    recipe: &Recipe,
    mirrors: &[String],
    progress: &dyn Progress,
) -> Result<Option<String>, ToolError> {
    let mut command = mmdebstrap(recipe)?;
    command.args(["--variant=custom", "--format=null", "--skip=update"]);
    command.arg(format!("--setup-hook=sh -c {} ask-archive \"$1\"", quoted(ASK_ARCHIVE)));
    command.arg("--").args([&recipe.suite, "/dev/null"]).args(mirrors);
    progress.begin(Step::PackageLists, None);
    Ok(run(command, progress)?.map(|date| date.to_string()))
}

fn option(name: &str, value: &Path) -> std::ffi::OsString {
    let mut option = std::ffi::OsString::from(name);
    option.push(value);
    option
}

/// Where packages come from, as `mmdebstrap` takes it; nothing: its own choice for the suite.
fn mirrors(recipe: &Recipe, scratch: &Path) -> Result<Vec<String>, RecipeError> {
    if !recipe.mirrors.is_empty() {
        return Ok(recipe.mirrors.clone());
    }
    let Some(sources) = sources::of_machine(Path::new(APT), &recipe.suite, &recipe.components) else {
        return Ok(Vec::new());
    };
    let path = scratch.join("machine.sources");
    fs::write(&path, sources).map_err(|source| RecipeError::Temporary { path: path.clone(), source })?;
    Ok(vec![path.display().to_string()])
}

fn hooks(recipe: &Recipe, scratch: &Path) -> Result<Vec<String>, RecipeError> {
    let mut hooks = Vec::new();
    if let Some(kernel) = &recipe.kernel {
        hooks.push(format!("sh -c {} fetch-kernel \"$1\" {}", quoted(FETCH_KERNEL), quoted(kernel)));
        hooks.push(format!("copy-out /{KERNEL} {}", quoted(&scratch.display().to_string())));
        hooks.push(format!("rm -r \"$1/{KERNEL}\""));
    }
    if !recipe.files.is_empty() {
        let archive = scratch.join(FILES);
        write_files(&recipe.files, &archive)?;
        hooks.push(format!("upload {} /{FILES}", quoted(&archive.display().to_string())));
        hooks.push(in_root(&placing(&recipe.files)));
    }
    hooks.extend(recipe.commands.iter().map(|command| in_root(command)));
    if !recipe.files.iter().any(|file| matches!(file.path.as_str(), "/etc/hostname" | "/etc/resolv.conf")) {
        hooks.push(FORGET_MACHINE.to_owned());
    }
    Ok(hooks)
}

/// The hook that runs `script` in the root.
fn in_root(script: &str) -> String {
    format!("chroot \"$1\" /bin/sh -euc {}", quoted(script))
}

/// The script that unpacks the archive of placed files. Modes come last, as a new owner takes the bits for other users' rights
/// away.
fn placing(files: &[PlacedFile]) -> String {
    let mut script = format!("tar -xf /{FILES} -C /\nrm /{FILES}\n");
    for file in files {
        let path = quoted(&file.path);
        if let Some(owner) = &file.owner {
            script.push_str(&format!("chown -- {owner} {path}\n"));
        }
        script.push_str(&format!("chmod -- {:o} {path}\n", file.mode));
    }
    script
}

/// `text` as one word of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn write_files(files: &[PlacedFile], archive: &Path) -> Result<(), RecipeError> {
    let temporary = |source| RecipeError::Temporary { path: archive.to_owned(), source };
    let mut out = io::BufWriter::new(File::create(archive).map_err(temporary)?);
    for file in files {
        let bytes = match &file.content {
            Content::Text(text) => text.as_bytes().to_vec(),
            Content::File(path) => {
                fs::read(path).map_err(|source| RecipeError::Read { path: path.clone(), source })?
            }
        };
        let size = bytes.len() as u64;
        let path = file.path.trim_start_matches('/').as_bytes();
        let header =
            NewMember { size, mtime: now(), ..NewMember::plain(path, Kind::File, file.mode) }.header();
        let write = |part: &[u8]| out.write_all(part);
        [header.as_slice(), &bytes, padding(size)].into_iter().try_for_each(write).map_err(temporary)?;
    }
    out.write_all(&END).and_then(|()| out.flush()).map_err(temporary)
}

/// Seconds since 1970; `mmdebstrap` takes what is later than `SOURCE_DATE_EPOCH` back to that.
fn now() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_secs()).unwrap_or(0)
}

fn unpack_kernel(packages: &Path, target: &Path) -> Result<(), RecipeError> {
    let temporary = |source| RecipeError::Temporary { path: packages.to_owned(), source };
    for package in fs::read_dir(packages).map_err(temporary)? {
        DPKG_DEB
            .run([Path::new("-x"), &package.map_err(temporary)?.path(), target])
            .map_err(RecipeError::Kernel)?;
    }
    Ok(())
}

/// Runs `command` to its end and tells `progress` the steps that it tells itself. Returns the newest time that
/// [`ASK_ARCHIVE`] told.
fn run(mut command: Command, progress: &dyn Progress) -> Result<Option<u64>, ToolError> {
    command.stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|source| MMDEBSTRAP.io(source))?;
    let (mut last, mut step, mut in_hook) = (std::collections::VecDeque::new(), None, false);
    let mut published = None;
    if let Some(stderr) = child.stderr.take() {
        for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            published = published.max(line.strip_prefix("published ").and_then(|date| date.parse().ok()));
            let next = step_of(&line);
            if next.is_some() && next != step {
                step = next;
                progress.begin(step.unwrap_or(Step::PackageLists), None);
            }
            // A hook that failed is repeated as a whole; those that run here are none of the recipe's words.
            let is_message = line.starts_with("I: ") || line.starts_with("E: ");
            in_hook = line.starts_with("E: command failed: sh -c") || (in_hook && !is_message);
            if in_hook || line.starts_with("I: ") {
                continue;
            }
            last.push_back(line);
            if last.len() > LAST_LINES {
                last.pop_front();
            }
        }
    }
    progress.end();
    let status = child.wait().map_err(|source| MMDEBSTRAP.io(source))?;
    if status.success() {
        return Ok(published);
    }
    let words = last.make_contiguous().join("\n").trim().to_owned();
    Err(ToolError::Failed { name: MMDEBSTRAP.name(), status, words })
}

/// The step that `line` of `mmdebstrap` announces.
fn step_of(line: &str) -> Option<Step> {
    let line = line.strip_prefix("I: ")?;
    let steps = [
        ("running apt-get update", Step::PackageLists),
        ("downloading packages", Step::Packages),
        ("extracting archives", Step::Install),
        ("installing", Step::Install),
        ("running --customize-hook", Step::Customize),
        ("running special hook", Step::Customize),
        ("creating tarball", Step::PackUp),
    ];
    steps.iter().find(|(words, _)| line.starts_with(words)).map(|(_, step)| *step)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_pass_a_shell_as_they_are() {
        for text in ["", "a b", "it's $HOME `x` \"y\" \\", "two\nlines", "''"] {
            let mut shell = Command::new("sh");
            let output = shell.arg("-c").arg(format!("printf %s {}", quoted(text))).output().unwrap();
            assert_eq!(String::from_utf8(output.stdout).unwrap(), text);
        }
    }

    #[test]
    fn a_recipe_for_ubuntu_says_so_to_mmdebstrap() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("ubuntu.gpg"), "keys").unwrap();
        let text = "suite = 'noble'\nkeyring = 'ubuntu.gpg'\ncomponents = ['main', 'universe']\npackages = ['htop', 'vim']";
        let recipe = Recipe::parse(text, dir.path()).unwrap();
        // Where the machine has no sources for it: mmdebstrap knows Ubuntu's mirrors.
        let command = installation(&recipe, Path::new("/out.tar"), Vec::new(), Vec::new()).unwrap();
        let given: Vec<_> = command.get_args().map(|arg| arg.to_string_lossy().into_owned()).collect();
        let keyring = format!("--keyring={}/ubuntu.gpg", dir.path().display());
        let known = ["--architectures=amd64", "--components=main,universe", &keyring, "--variant=minbase"];
        assert_eq!(given[1..5], known);
        let rest = ["--format=tar", "--include=htop", "--include=vim", "--", "noble", "/out.tar"];
        assert_eq!(given[5..], rest);
    }

    #[test]
    fn files_come_before_commands_and_modes_after_owners() {
        let text = "suite = 'x'\ncommands = ['one', \"it's two\"]\n[[files]]\npath = \"/a'b\"\ncontent = 'c'\nmode = '4755'\nowner = 'games'";
        let recipe = Recipe::parse(text, Path::new("/")).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let hooks = hooks(&recipe, dir.path()).unwrap();
        assert_eq!(hooks.len(), 5, "{hooks:?}");
        assert!(hooks[0].starts_with("upload "), "{hooks:?}");
        assert!(hooks[1].find("chown").unwrap() < hooks[1].find("chmod -- 4755").unwrap(), "{hooks:?}");
        assert_eq!(hooks[2], "chroot \"$1\" /bin/sh -euc 'one'");
        assert_eq!(hooks[3], r#"chroot "$1" /bin/sh -euc 'it'\''s two'"#);
        let listed = Command::new("tar").arg("-tf").arg(dir.path().join(FILES)).output().unwrap();
        assert_eq!(String::from_utf8(listed.stdout).unwrap().trim(), "a'b");
    }
}
