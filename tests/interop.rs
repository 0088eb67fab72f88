//! The interop matrix, docs/interop.md: each line of tests/interop.txt with the tests that bear its id.
//!
//! `BOOTFABRIC_WRITE_DOCS=1 cargo test --test interop` writes it; without that the test fails where it is out of date.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

/// A line of the table.
struct Line<'a> {
    id: &'a str,
    kind: &'a str,
    statement: &'a str,
    /// Why there is no test.
    reason: Option<&'a str>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a str) -> Self {
        let (id, rest) = line.split_once(' ').expect(line);
        let (kind, rest) = rest.split_once(' ').expect(line);
        assert!(matches!(kind, "F" | "V" | "H") && is_id(&id.to_lowercase()), "{line}");
        let (statement, reason) = match rest.split_once(" ! ") {
            Some((statement, reason)) => (statement, Some(reason)),
            None => (rest, None),
        };
        Self { id, kind, statement, reason }
    }

    fn status(&self, tests: &[String]) -> String {
        let named: Vec<_> = tests.iter().map(|test| format!("`{test}`")).collect();
        let named = named.join(", ");
        let open = match (self.kind, self.reason, tests.is_empty()) {
            ("H", _, _) => "untested on hardware",
            (_, Some(reason), _) => reason,
            (_, None, true) => "**no test yet**",
            (_, None, false) => "",
        };
        [named.as_str(), open].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

fn is_id(word: &str) -> bool {
    let (letter, number) = word.split_at(word.len().min(1));
    letter.bytes().all(|c| c.is_ascii_lowercase())
        && !number.is_empty()
        && number.bytes().all(|c| c.is_ascii_digit())
}

/// The ids at the beginning of a test's name; `d07` is D7.
fn ids(name: &str) -> impl Iterator<Item = String> {
    let id = |word: &str| {
        let (letter, number) = word.split_at(1);
        format!("{}{}", letter.to_uppercase(), number.trim_start_matches('0'))
    };
    name.split('_').take_while(|word| is_id(word)).map(id)
}

/// Every test of the workspace by the ids in its name: the file and the name.
fn tests(root: &Path) -> BTreeMap<String, Vec<String>> {
    let mut found = BTreeMap::<String, Vec<String>>::new();
    let mut directories = ["fabric", "netlab", "pxe", "src", "tests"].map(|name| root.join(name)).to_vec();
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let file = path.strip_prefix(root).unwrap().display();
                for name in names(&text) {
                    for id in ids(name) {
                        found.entry(id).or_default().push(format!("{file}: {name}"));
                    }
                }
            }
        }
    }
    found.values_mut().for_each(|tests| tests.sort());
    found
}

/// Names of the test functions in a source file.
fn names(text: &str) -> impl Iterator<Item = &str> {
    let mut test = false;
    text.lines().map(str::trim).filter_map(move |line| {
        if line.starts_with("#[") {
            test |= line.contains("test]") || line.contains("test(");
            return None;
        }
        let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
        std::mem::take(&mut test).then(|| declared.split('(').next().unwrap_or_default())
    })
}

/// The page.
fn page(table: &str, tests: &BTreeMap<String, Vec<String>>) -> String {
    let mut page = String::from(
        "# Interoperability\n\nWhat real firmware, loaders and networks do, and which test shows that the boot services bear \
         it. Made by `tests/interop.rs` from `tests/interop.txt` and the names of the tests.\n\nKinds: **F** a packet or a \
         name is enough to check it; **V** a firmware in a virtual machine; **H** only hardware shows it, so it is built and \
         not proven.\n",
    );
    let mut known = Vec::new();
    for line in table.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")) {
        if let Some(title) = line.strip_prefix("## ") {
            let _ = writeln!(page, "\n## {title}\n\n| id | kind | what | shown by |\n|---|---|---|---|");
            continue;
        }
        let line = Line::parse(line);
        let of_line = tests.get(line.id).map_or(&[][..], Vec::as_slice);
        let status = line.status(of_line);
        let _ = writeln!(page, "| {} | {} | {} | {status} |", line.id, line.kind, line.statement);
        known.push(line.id);
    }
    for id in tests.keys() {
        assert!(known.contains(&id.as_str()), "{:?} name no line of the table: {id}", tests[id]);
    }
    page
}

#[test]
fn the_matrix_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let table = std::fs::read_to_string(root.join("tests/interop.txt")).unwrap();
    let page = page(&table, &tests(root));
    let path = root.join("docs/interop.md");
    if std::env::var_os("BOOTFABRIC_WRITE_DOCS").is_some() {
        std::fs::write(path, page).unwrap();
        return;
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/interop.md is out of date: BOOTFABRIC_WRITE_DOCS=1 cargo test --test interop writes it"
    );
}

#[test]
fn tests_belong_to_lines_by_their_names() {
    assert_eq!(ids("x3_x6_a_machine").collect::<Vec<_>>(), ["X3", "X6"]);
    assert_eq!(ids("d07_d10_a_machine").collect::<Vec<_>>(), ["D7", "D10"]);
    assert_eq!(ids("a_machine_t1").count() + ids("two_nodes").count() + ids("e_9").count(), 0);
    let text =
        "#[test]\nfn t1_a() {}\nfn t2_helper() {}\n#[tokio::test]\n#[ignore = \"x\"]\nasync fn t3_b() {}\n";
    assert_eq!(names(text).collect::<Vec<_>>(), ["t1_a", "t3_b"]);
    let status = |line, tests: &[String]| Line::parse(line).status(tests);
    assert_eq!(status("T1 F what it is", &["f: t1_a".into()]), "`f: t1_a`");
    assert_eq!(status("X1 H what it is", &[]), "untested on hardware");
    assert_eq!(status("X8 V what it is ! no such build", &[]), "no such build");
    assert_eq!(status("T2 F what it is", &[]), "**no test yet**");
}
