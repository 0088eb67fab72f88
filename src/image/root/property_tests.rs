//! tar → image → unpacked tree equals the tree that the tar was made of, by GNU tar and unsquashfs as witnesses; and so it does where the
//! machines' own reader unpacks it, whose bytes come in any order.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, UtimensatFlags, makedev, mknod, utimensat};
use nix::sys::time::TimeSpec;
use proptest::prelude::*;
use tempfile::TempDir;

use super::tests::pack;

/// Something to make; where its path is taken, or leads nowhere, nothing is made.
#[derive(Debug, Clone)]
struct Made {
    path: Vec<Vec<u8>>,
    kind: Form,
    mode: u32,
    owner: (u32, u32),
    mtime: u32,
}

#[derive(Debug, Clone)]
enum Form {
    Directory,
    File(Vec<u8>),
    /// Its length in blocks of 64 KiB; the last of them is written.
    Sparse(u8),
    Symlink(String),
    /// To the nth of what was made before.
    HardLink(usize),
    Device(bool, u8),
    Fifo,
    /// A file with attributes.
    Attributes(Vec<u8>),
}

/// What of a file must survive.
#[derive(Debug, PartialEq)]
struct Facts {
    /// Kind and permissions.
    mode: u32,
    owner: (u32, u32),
    mtime: i64,
    /// All names of the same file.
    names: Vec<Vec<u8>>,
    device: u64,
    content: Vec<u8>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[a-d]".prop_map(String::into_bytes),
        1 => Just(vec![b'n'; 130]),
        1 => Just(b".wh.a".to_vec()),
        1 => Just(b"two words\nand a line".to_vec()),
        1 => Just(vec![b'x', 0xff, 0xc3]),
    ]
}

fn made() -> impl Strategy<Value = Made> {
    let form = prop_oneof![
        4 => Just(Form::Directory),
        3 => prop::collection::vec(any::<u8>(), 0..3000).prop_map(Form::File),
        1 => (1u8..5).prop_map(Form::Sparse),
        2 => "(\\.\\./|/)?[a-d]{1,3}|[a-z]{101,140}".prop_map(Form::Symlink),
        2 => (0usize..20).prop_map(Form::HardLink),
        1 => (any::<bool>(), any::<u8>()).prop_map(|(block, minor)| Form::Device(block, minor)),
        1 => Just(Form::Fifo),
        1 => prop::collection::vec(any::<u8>(), 1..300).prop_map(Form::Attributes),
    ];
    let owner =
        prop_oneof![Just((0, 0)), (any::<u32>(), any::<u32>()).prop_map(|(uid, gid)| (uid >> 1, gid >> 1))];
    (prop::collection::vec(name(), 1..4), form, 0u32..0o10000, owner, any::<u32>())
        .prop_map(|(path, kind, mode, owner, mtime)| Made { path, kind, mode, owner, mtime })
}

fn make(root: &Path, all: &[Made]) {
    fs::create_dir(root.join("sbin")).unwrap();
    fs::write(root.join("sbin/init"), "#!").unwrap();
    let path_of = |made: &Made| root.join(OsStr::from_bytes(&made.path.join(&b'/')));
    for made in all {
        let path = path_of(made);
        if path.symlink_metadata().is_ok()
            || !path.parent().unwrap().symlink_metadata().is_ok_and(|at| at.is_dir())
        {
            continue;
        }
        match &made.kind {
            Form::Directory => fs::create_dir(&path).unwrap(),
            Form::File(content) => fs::write(&path, content).unwrap(),
            Form::Sparse(blocks) => {
                let file = File::create(&path).unwrap();
                file.write_at(b"end", u64::from(*blocks) << 16).unwrap();
            }
            Form::Symlink(target) => symlink(target, &path).unwrap(),
            Form::HardLink(which) => drop(all.get(*which).map(|other| fs::hard_link(path_of(other), &path))),
            Form::Device(block, minor) => {
                let kind = if *block { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
                let _ = mknod(&path, kind, Mode::empty(), makedev(300, (*minor).into()));
            }
            Form::Fifo => nix::unistd::mkfifo(&path, Mode::empty()).unwrap(),
            Form::Attributes(value) => {
                fs::write(&path, "x").unwrap();
                // Where the file system has them.
                drop(xattr::set(&path, "user.test", value));
                drop(xattr::set(&path, "trusted.test", value));
            }
        }
        // Ownership before permissions and capabilities: it takes them away.
        let (uid, gid) = made.owner;
        drop(std::os::unix::fs::lchown(&path, Some(uid), Some(gid)));
        if !path.is_symlink() {
            drop(fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(made.mode)));
        }
        if matches!(made.kind, Form::Attributes(_)) {
            // cap_net_raw+ep, as the kernel stores it: struct vfs_cap_data, revision 2.
            let net_raw = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            drop(xattr::set(&path, "security.capability", &net_raw));
        }
    }
    // Times last, the deepest first: making something changes the directory's.
    for made in all.iter().rev() {
        let time = TimeSpec::new(made.mtime.into(), 0);
        let _ =
            utimensat(nix::fcntl::AT_FDCWD, &path_of(made), &time, &time, UtimensatFlags::NoFollowSymlink);
    }
}

fn facts(root: &Path) -> BTreeMap<Vec<u8>, Facts> {
    let (mut found, mut inodes) = (BTreeMap::new(), BTreeMap::<u64, Vec<Vec<u8>>>::new());
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            let (meta, name) = (path.symlink_metadata().unwrap(), path.strip_prefix(root).unwrap());
            let content = match meta.file_type() {
                kind if kind.is_file() => fs::read(&path).unwrap(),
                kind if kind.is_symlink() => fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec(),
                _ => Vec::new(),
            };
            let attributes = xattr::list(&path).into_iter().flatten();
            let attributes = attributes
                .filter_map(|name| Some((name.as_bytes().to_vec(), xattr::get(&path, &name).ok()??)));
            let facts = Facts {
                mode: meta.mode(),
                owner: (meta.uid(), meta.gid()),
                mtime: meta.mtime(),
                names: Vec::new(),
                device: meta.rdev(),
                content,
                attributes: attributes.collect(),
            };
            let name = name.as_os_str().as_bytes().to_vec();
            // mksquashfs makes as many pipes and devices as there are names.
            let shared =
                if meta.is_file() || meta.is_symlink() { meta.ino() } else { u64::MAX - found.len() as u64 };
            inodes.entry(shared).or_default().push(name.clone());
            found.insert(name, (shared, facts));
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    inodes.values_mut().for_each(|names| names.sort());
    let with_names =
        |(name, (inode, facts)): (_, (u64, Facts))| (name, Facts { names: inodes[&inode].clone(), ..facts });
    found.into_iter().map(with_names).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn an_unpacked_image_is_the_tree_that_the_tar_was_made_of(
        all in prop::collection::vec(made(), 0..40),
        format in prop::sample::select(vec!["--format=gnu", "--format=pax", "--format=posix"]),
        sparse in any::<bool>(),
        order in any::<u64>(),
    ) {
        // Owners and devices need root, as the lab does.
        if !netlab::ready_or_skip().unwrap() {
            return Ok(());
        }
        let dir = TempDir::new().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("tree")).unwrap();
        make(&at("tree"), &all);
        let mut tar = Command::new("tar");
        // Only pax headers hold attributes.
        tar.args((format != "--format=gnu").then_some("--xattrs-include=*"));
        tar.arg(format).args(sparse.then_some("-S")).arg("-C").arg(at("tree")).arg("-cf").arg(at("tar")).arg(".");
        prop_assert!(tar.status().unwrap().success());
        pack(&at("tar"), &at("image")).unwrap();
        let mut unpack = Command::new("unsquashfs");
        let unpacked = unpack.args(["-quiet", "-no-progress", "-dest"]).arg(at("out")).arg(at("image")).output().unwrap();
        prop_assert!(unpacked.status.success(), "{:?}", unpacked);

        let (mut expected, mut found) = (facts(&at("tree")), facts(&at("out")));
        fs::create_dir(at("own")).unwrap();
        crate::squashfs::tests::unpack_shuffled(&at("image"), &at("own"), order).unwrap();
        prop_assert_eq!(&facts(&at("own")), &found);
        for (name, _) in super::rules::NEEDED {
            found.remove(name.as_bytes());
        }
        if format == "--format=gnu" {
            expected.values_mut().for_each(|facts| facts.attributes.clear());
        }
        for (name, facts) in &expected {
            prop_assert_eq!(Some(facts), found.get(name), "{:?}", String::from_utf8_lossy(name));
        }
        prop_assert_eq!(expected.len(), found.len());
    }
}
