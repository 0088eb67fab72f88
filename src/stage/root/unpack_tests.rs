use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;

use nix::unistd::{Gid, Uid, mkfifo};

use super::*;

/// All that a copy must keep of a tree, by name. Inode numbers are told as the first name that has them.
fn describe(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut first: HashMap<u64, PathBuf> = HashMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(name) = waiting.pop() {
        let path = top.join(&name);
        let meta = fs::symlink_metadata(&path).unwrap();
        let content = if meta.is_file() {
            fs::read(&path).unwrap()
        } else if meta.file_type().is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else {
            vec![]
        };
        if meta.is_dir() {
            let mut names: Vec<_> =
                fs::read_dir(&path).unwrap().map(|entry| name.join(entry.unwrap().file_name())).collect();
            names.sort();
            waiting.extend(names);
        }
        let mut attributes: Vec<_> = xattr::list(&path).unwrap().collect();
        attributes.sort();
        let attributes: Vec<_> =
            attributes.into_iter().map(|name| (name.clone(), xattr::get(&path, name).unwrap())).collect();
        let same = first.entry(meta.ino()).or_insert_with(|| name.clone()).clone();
        let same = if meta.is_dir() { PathBuf::new() } else { same };
        let text = format!(
            "{:o} {}:{} {} {}.{:09} {same:?} {attributes:?} {}",
            meta.mode(),
            meta.uid(),
            meta.gid(),
            meta.rdev(),
            meta.mtime(),
            meta.mtime_nsec(),
            blake3::hash(&content)
        );
        found.insert(name, text);
    }
    found
}

fn copied(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    Tree::walk(from).unwrap().unpack(to.path(), |_| thread::yield_now()).unwrap();
    to
}

#[test]
fn everything_that_makes_a_tree_is_kept() {
    let from = tempfile::tempdir().unwrap();
    let at = |name: &str| from.path().join(name);
    fs::create_dir_all(at("usr/bin")).unwrap();
    fs::write(at("usr/bin/tool"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(at("usr/bin/tool"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(at("usr/bin/tool"), at("usr/another")).unwrap();
    fs::hard_link(at("usr/bin/tool"), at("third")).unwrap();
    symlink("nowhere/to be found", at("usr/link")).unwrap();
    mkfifo(&at("pipe"), Mode::from_bits_truncate(0o640)).unwrap();
    // Where user attributes are allowed at all.
    let _ = xattr::set(at("usr/another"), "user.note", b"kept");
    fs::set_permissions(at("usr"), fs::Permissions::from_mode(0o1751)).unwrap();
    if nix::unistd::geteuid().is_root() {
        nix::unistd::chown(&at("usr/bin/tool"), Some(Uid::from_raw(7)), Some(Gid::from_raw(8))).unwrap();
        fs::set_permissions(at("usr/bin/tool"), fs::Permissions::from_mode(0o6755)).unwrap();
        // cap_net_raw=ep, as setcap writes it (linux/capability.h, revision 2).
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let _ = xattr::set(at("third"), "security.capability", &capability);
        mknod(&at("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), nix::sys::stat::makedev(1, 3))
            .unwrap();
    }
    let tree = Tree::walk(from.path()).unwrap();
    assert_eq!(tree.links.len(), 2);
    assert_eq!(tree.bytes(), 4096);
    assert_eq!(describe(copied(from.path()).path()), describe(from.path()));
}

#[test]
fn holes_stay_holes_and_bytes_bytes() {
    let from = tempfile::tempdir().unwrap();
    let path = from.path().join("sparse");
    let file = File::create(&path).unwrap();
    file.write_all_at(b"a", 9000).unwrap();
    file.write_all_at(b"b", 3 << 20).unwrap();
    file.set_len(10 << 20).unwrap();
    let to = copied(from.path());
    let copy = to.path().join("sparse");
    assert!(fs::read(&copy).unwrap() == fs::read(&path).unwrap());
    assert!(fs::metadata(&copy).unwrap().blocks() <= 64, "{} blocks", fs::metadata(&copy).unwrap().blocks());
}

#[test]
fn a_failure_names_what_could_not_be_copied() {
    let from = tempfile::tempdir().unwrap();
    fs::write(from.path().join("file"), "a").unwrap();
    let tree = Tree::walk(from.path()).unwrap();
    let to = tempfile::tempdir().unwrap();
    fs::write(to.path().join("file"), "in the way").unwrap();
    let error = tree.unpack(to.path(), |_| thread::yield_now()).unwrap_err();
    assert!(error.to_string().ends_with("/file"), "{error}");
}
