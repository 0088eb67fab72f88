use proptest::prelude::*;

use super::*;

fn parse(text: &str) -> Result<Recipe, Vec<Problem>> {
    Recipe::parse(text, Path::new("/nowhere"))
}

const WHOLE: &str = r##"
name = "node"
version = "1"
suite = "bookworm"
mirror = ["http://deb.debian.org/debian", "deb http://security.debian.org/debian-security bookworm-security main"]
components = ["main", "non-free-firmware"]
variant = "important"
date = 1970-01-02
packages = ["systemd-sysv", "openssh-server", "g++-12"]
kernel = "linux-image-cloud-amd64"
commands = ["useradd -m admin", "systemctl enable ssh"]

[[files]]
path = "/etc/motd"
content = "hello\n"

[[files]]
path = "/usr/local/bin/run"
content = "#!/bin/sh\n"
mode = "4755"
owner = "games:1000"
"##;

#[test]
fn a_whole_recipe_is_understood() {
    let recipe = parse(WHOLE).unwrap();
    assert_eq!((recipe.name.as_deref(), recipe.version.as_deref()), (Some("node"), Some("1")));
    assert_eq!((recipe.suite.as_str(), recipe.variant.as_str()), ("bookworm", "important"));
    assert_eq!((recipe.mirrors.len(), recipe.components.len(), recipe.packages.len()), (2, 2, 3));
    assert_eq!(recipe.kernel.as_deref(), Some("linux-image-cloud-amd64"));
    assert_eq!(recipe.date, Some(86400));
    let [first, second] = recipe.files.as_slice() else { panic!("{recipe:?}") };
    assert_eq!((first.mode, first.owner.as_deref()), (0o644, None));
    assert_eq!((second.mode, second.owner.as_deref()), (0o4755, Some("games:1000")));
}

#[test]
fn a_suite_is_enough() {
    let recipe = parse("suite = 'trixie'").unwrap();
    assert_eq!(recipe.variant, "minbase");
    assert!(recipe.mirrors.is_empty() && recipe.kernel.is_none());
}

/// The first problem of `text`: line and words.
fn problem(text: &str) -> (usize, String) {
    let problem = parse(text).unwrap_err().swap_remove(0);
    (problem.line, problem.why)
}

#[test]
fn what_is_wrong_is_named_with_its_line() {
    for (text, line, words) in [
        ("suite = 'x'\npakages = []", 2, "unknown field `pakages`"),
        ("packages = []", 1, "missing field `suite`"),
        ("suite = 'x'\ndate = 2026-01-31T12:00:00", 2, "`2026-01-31T12:00:00` is neither a date"),
        ("suite = 'x'\n[[files]]\npath = '/x'\nuser = 'y'", 4, "unknown field `user`"),
        ("suite = 5", 1, "invalid type"),
        ("suite = '--help'", 1, "is not a suite"),
        ("suite = 'x'\npackages = ['a',\n'-o', 'b']", 3, "is not the name of a package"),
        ("suite = 'x'\nkernel = ''", 2, "is not the name of a package"),
        ("suite = 'x'\nmirror = 'debian.org'", 2, "neither an address"),
        ("suite = 'x'\nmirror = \"deb http://x y\\nmain\"", 2, "neither an address"),
        ("suite = 'x'\nvariant = 'tiny'", 2, "minbase"),
        ("suite = 'x'\ncommands = [' ']", 2, "is not a command"),
        ("suite = 'x'\nkeyring = 'none.gpg'", 2, "/nowhere/none.gpg"),
        ("suite = 'x'\n[[files]]\npath = 'etc/x'\ncontent = ''", 3, "absolute"),
        ("suite = 'x'\n[[files]]\npath = '/etc/../x'\ncontent = ''", 3, "absolute"),
        ("suite = 'x'\n[[files]]\npath = '/etc/x/'\ncontent = ''", 3, "absolute"),
        ("suite = 'x'\n[[files]]\npath = '/x'", 3, "one of the two"),
        ("suite = 'x'\n[[files]]\npath = '/x'\ncontent = ''\nsource = 'y'", 3, "not both"),
        ("suite = 'x'\n[[files]]\npath = '/x'\nsource = 'y'", 4, "/nowhere/y"),
        ("suite = 'x'\n[[files]]\npath = '/x'\ncontent = ''\nmode = '0999'", 5, "no mode"),
        ("suite = 'x'\n[[files]]\npath = '/x'\ncontent = ''\nmode = '10000'", 5, "no mode"),
        ("suite = 'x'\n[[files]]\npath = '/x'\ncontent = ''\nowner = 'a b'", 5, "an owner"),
        ("suite = ", 1, ""),
    ] {
        let (at, why) = problem(text);
        assert_eq!(at, line, "{text}: {why}");
        assert!(why.contains(words), "{text}: {why}");
    }
    let twice = "suite = 'x'\n[[files]]\npath = '/x'\ncontent = ''\n[[files]]\npath = '/x'\ncontent = ''";
    assert_eq!(problem(twice), (6, "`/x` is there twice".into()));
}

#[test]
fn all_problems_are_told_at_once() {
    let problems = parse("suite = '-'\nvariant = 'x'\npackages = ['?']").unwrap_err();
    assert_eq!(problems.iter().map(|problem| problem.line).collect::<Vec<_>>().len(), 3, "{problems:?}");
}

proptest! {
    #[test]
    fn damage_never_panics(at in 0usize..700, value in "\\PC{0,4}") {
        let mut text: Vec<char> = WHOLE.chars().collect();
        let at = at.min(text.len());
        text.splice(at..at, value.chars());
        let _ = parse(&text.iter().collect::<String>());
    }
}
