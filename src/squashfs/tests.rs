use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};

use proptest::prelude::*;

use super::unpack::{UnpackError, unpack};
use super::*;

/// Bytes that come at once.
const STEP: u64 = 4096;

/// A file of which parts come one by one, in an order that looks like chance.
struct Shuffled {
    file: File,
    state: Mutex<State>,
}

struct State {
    held: Vec<bool>,
    /// Parts that are still to come, in reverse.
    coming: Vec<usize>,
}

impl Shuffled {
    /// All of `path` but the last `lost` parts to come.
    fn new(path: &Path, mut order: u64, lost: usize) -> Self {
        let file = File::open(path).unwrap();
        let count = usize::try_from(file.metadata().unwrap().len().div_ceil(STEP)).unwrap();
        let mut coming: Vec<usize> = (0..count).collect();
        for left in (1..count).rev() {
            order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            coming.swap(left, usize::try_from(order >> 33).unwrap() % (left + 1));
        }
        coming.drain(..lost);
        Self { file, state: Mutex::new(State { held: vec![false; count], coming }) }
    }

    /// What has to be there first.
    fn fetch(&self, range: Range<u64>) {
        while !self.holds(range.clone()) {
            self.wait().unwrap();
        }
    }

    fn tables(&self) -> Result<(Superblock, Vec<u8>), SquashfsError> {
        self.fetch(Superblock::RANGE);
        let superblock = Superblock::read(self)?;
        let range = superblock.tables();
        if range.end > self.file.metadata()?.len() {
            return Err(SquashfsError::Damaged("its size"));
        }
        self.fetch(range.clone());
        let mut bytes = vec![0; usize::try_from(range.end - range.start).unwrap()];
        self.read(&mut bytes, range.start)?;
        Ok((superblock, bytes))
    }
}

impl Source for Shuffled {
    fn holds(&self, range: Range<u64>) -> bool {
        let state = self.state.lock().unwrap();
        let parts =
            usize::try_from(range.start / STEP).unwrap()..usize::try_from(range.end.div_ceil(STEP)).unwrap();
        state.held[parts].iter().all(|held| *held)
    }

    fn read(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        assert!(self.holds(offset..offset + buffer.len() as u64), "read before it came");
        self.file.read_exact_at(buffer, offset)
    }

    fn wait(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        let next = state.coming.pop().ok_or_else(|| io::Error::other("nothing comes any more"))?;
        state.held[next] = true;
        Ok(())
    }
}

/// Unpacks the squashfs at `image` into the empty directory `to` while its bytes come in an order that follows from `order`.
pub(crate) fn unpack_shuffled(image: &Path, to: &Path, order: u64) -> Result<(), UnpackError> {
    unpack_but(image, to, order, 0)
}

fn unpack_but(image: &Path, to: &Path, order: u64, lost: usize) -> Result<(), UnpackError> {
    let source = Shuffled::new(image, order, lost);
    let (superblock, tables) = source.tables()?;
    let tree = Tree::read(&superblock, &tables)?;
    let done = AtomicU64::new(0);
    unpack(&tree, &source, to, &done)?;
    assert_eq!(done.into_inner(), tree.content());
    Ok(())
}

/// Makes a squashfs of `tree`.
fn mksquashfs(tree: &Path, image: &Path, options: &[&str]) {
    let mut make = Command::new("mksquashfs");
    make.arg(tree).arg(image).args(["-noappend", "-no-progress", "-quiet"]).args(options);
    assert!(make.output().unwrap().status.success());
}

/// A tree with what the options of `mksquashfs` are about: small files, files that are alike, large ones, holes, many names.
fn made() -> tempfile::TempDir {
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &str| tree.path().join(name);
    fs::create_dir_all(at("many/deep/er")).unwrap();
    for number in 0..600 {
        fs::write(at(&format!("many/a-file-with-the-number-{number}")), format!("{number}")).unwrap();
    }
    let mut large = vec![0; 700_001];
    blake3::Hasher::new().update(b"large").finalize_xof().fill(&mut large[100_000..500_000]);
    fs::write(at("large"), &large).unwrap();
    fs::write(at("many/deep/twin"), &large).unwrap();
    fs::write(at("many/deep/er/text"), "many words ".repeat(40_000)).unwrap();
    File::create(at("hole")).unwrap().set_len(5 << 20).unwrap();
    fs::write(at("empty"), "").unwrap();
    fs::hard_link(at("large"), at("many/again")).unwrap();
    tree
}

fn same(left: &Path, right: &Path) {
    let mut names: Vec<_> = fs::read_dir(left).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let mut others: Vec<_> = fs::read_dir(right).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    others.sort();
    assert_eq!(names, others, "{}", left.display());
    for name in names {
        let (left, right) = (left.join(&name), right.join(&name));
        let (one, other) = (fs::symlink_metadata(&left).unwrap(), fs::symlink_metadata(&right).unwrap());
        assert_eq!(
            (one.mode(), one.uid(), one.mtime()),
            (other.mode(), other.uid(), other.mtime()),
            "{left:?}"
        );
        if one.is_dir() {
            same(&left, &right);
        } else {
            assert_eq!(one.nlink(), other.nlink(), "{left:?}");
            assert!(fs::read(&left).unwrap() == fs::read(&right).unwrap(), "{left:?}");
        }
    }
}

#[test]
fn whatever_the_builder_chose_the_tree_is_the_same() {
    let tree = made();
    let choices: [&[&str]; 6] = [
        &["-comp", "zstd", "-no-fragments"],
        &["-comp", "zstd"],
        &["-comp", "zstd", "-always-use-fragments", "-b", "4096"],
        &["-comp", "zstd", "-noI", "-noD", "-noF", "-noX"],
        &["-comp", "zstd", "-no-exports", "-no-xattrs", "-b", "1M"],
        &["-comp", "zstd", "-no-duplicates", "-no-sparse"],
    ];
    for (order, options) in choices.into_iter().enumerate() {
        let place = tempfile::tempdir().unwrap();
        let (image, to) = (place.path().join("image"), place.path().join("to"));
        mksquashfs(tree.path(), &image, options);
        fs::create_dir(&to).unwrap();
        unpack_shuffled(&image, &to, order as u64).unwrap();
        same(tree.path(), &to);
        assert!(fs::metadata(to.join("hole")).unwrap().blocks() < 16, "{options:?}");
    }
}

#[test]
fn what_is_for_the_kernel_to_read_is_said() {
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    mksquashfs(place.path(), &image, &["-comp", "gzip"]);
    let error = Shuffled::new(&image, 0, 0).tables().unwrap_err();
    assert!(matches!(error, SquashfsError::Unsupported("not compressed with zstd")), "{error}");
    fs::write(&image, [0; 200]).unwrap();
    let error = Shuffled::new(&image, 0, 0).tables().unwrap_err();
    assert!(matches!(error, SquashfsError::Unsupported("no squashfs at all")), "{error}");
}

#[test]
fn what_does_not_come_or_cannot_be_made_is_an_error() {
    let (tree, place) = (made(), tempfile::tempdir().unwrap());
    let image = place.path().join("image");
    mksquashfs(tree.path(), &image, &["-comp", "zstd", "-no-fragments"]);
    let to = place.path().join("to");
    fs::create_dir(&to).unwrap();
    // The tables are read early enough with this order.
    let errors: Vec<_> = (0..20)
        .filter_map(|order| {
            let source = Shuffled::new(&image, order, 1);
            let (superblock, tables) = source.tables().ok()?;
            let to = place.path().join(order.to_string());
            fs::create_dir(&to).unwrap();
            let tree = Tree::read(&superblock, &tables).unwrap();
            unpack(&tree, &source, &to, &AtomicU64::new(0)).err()
        })
        .collect();
    assert!(
        errors.iter().any(|error| matches!(error, UnpackError::Source(SquashfsError::Read(_)))),
        "{errors:?}"
    );
    fs::create_dir(to.join("large")).unwrap();
    let error = unpack_shuffled(&image, &to, 1).unwrap_err();
    assert!(error.to_string().ends_with("/large"), "{error}");
}

/// Of a pipe and a file of one name the file's content would be waited for without end, of a device and a file it would go to the
/// device, and of two files it would be mixed.
#[test]
fn a_name_that_comes_twice_is_damage() {
    use nix::sys::stat::{Mode, SFlag, makedev, mknod};
    let content = |path: &Path| fs::write(path, "content ".repeat(5000)).unwrap();
    let pipe = |path: &Path| nix::unistd::mkfifo(path, Mode::S_IRUSR).unwrap();
    // The one that swallows all.
    let device = |path: &Path| mknod(path, SFlag::S_IFCHR, Mode::empty(), makedev(1, 3)).unwrap();
    for first in [&content as &dyn Fn(&Path), &pipe, &device] {
        let place = tempfile::tempdir().unwrap();
        let (tree, image) = (place.path().join("tree"), place.path().join("image"));
        fs::create_dir(&tree).unwrap();
        first(&tree.join("name-a"));
        content(&tree.join("name-b"));
        mksquashfs(&tree, &image, &["-comp", "zstd", "-noI", "-noX"]);
        let mut bytes = fs::read(&image).unwrap();
        let at = bytes.windows(6).position(|name| name == b"name-b").unwrap();
        bytes[at + 5] = b'a';
        fs::write(&image, bytes).unwrap();
        let (superblock, tables) = Shuffled::new(&image, 0, 0).tables().unwrap();
        let error = Tree::read(&superblock, &tables).unwrap_err();
        assert!(matches!(error, SquashfsError::Damaged("the order of names")), "{error}");
    }
}

/// A small squashfs with all that there is in one, its tables as they are: a byte that changes changes a number or a name.
fn intricate() -> &'static [u8] {
    static IMAGE: OnceLock<Vec<u8>> = OnceLock::new();
    IMAGE.get_or_init(|| {
        let place = tempfile::tempdir().unwrap();
        let (tree, image) = (place.path().join("tree"), place.path().join("image"));
        fs::create_dir_all(tree.join("directory/below/deep")).unwrap();
        fs::write(tree.join("directory/file"), "content ".repeat(3000)).unwrap();
        fs::write(tree.join("directory/below/fragment"), "short").unwrap();
        fs::hard_link(tree.join("directory/file"), tree.join("again")).unwrap();
        File::create(tree.join("directory/hole")).unwrap().set_len(100_000).unwrap();
        // Whoever follows one of these leaves the target.
        symlink("../outside", tree.join("directory/way-out")).unwrap();
        symlink("..", tree.join("parent")).unwrap();
        nix::unistd::mkfifo(&tree.join("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        for value in ["one", "a longer value that is stored elsewhere as two have it"] {
            ::xattr::set(tree.join("directory/file"), format!("user.{}", value.len()), value.as_bytes())
                .unwrap();
            ::xattr::set(tree.join("directory/hole"), format!("user.{}", value.len()), value.as_bytes())
                .unwrap();
        }
        mksquashfs(&tree, &image, &["-comp", "zstd", "-noI", "-noF", "-noX", "-b", "8192"]);
        fs::read(image).unwrap()
    })
}

#[test]
fn what_is_read_takes_no_more_memory_than_it_may() {
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    fs::write(&image, intricate()).unwrap();
    let (superblock, tables) = Shuffled::new(&image, 0, 0).tables().unwrap();
    let least = (0..1 << 16).find(|room| Tree::read_within(&superblock, &tables, *room).is_ok());
    let tree = Tree::read(&superblock, &tables).unwrap();
    let entries = (tree.count() + tree.links.len()) * size_of::<PathBuf>();
    assert!(least.is_some_and(|least| least > entries), "{least:?}");
}

/// Bytes of memory that this process had at most since [`forget_peak`], and has now.
fn memory() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    };
    (field("VmHWM:"), field("VmRSS:"))
}

/// Forgets the peak of this process's memory (proc_pid_clear_refs(5)).
fn forget_peak() {
    fs::write("/proc/self/clear_refs", "5").unwrap();
}

/// Memory that reading and unpacking a few kilobytes takes at most, with buffers for each processor, and other tests beside it.
const MAX_MEMORY: u64 = 256 << 20;

/// What is damaged: anything, or the tables alone, which are what most of it depends on.
fn any_damage() -> impl Strategy<Value = Vec<(bool, prop::sample::Index, u8)>> {
    prop::collection::vec((prop::bool::weighted(0.8), any::<prop::sample::Index>(), any::<u8>()), 1..6)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Damage is an error or another tree below the same directory, never a panic, and takes no more memory than the whole does.
    #[test]
    fn damage_stays_where_it_is(damage in any_damage(), order in any::<u64>()) {
        let mut bytes = intricate().to_vec();
        let tables = usize::try_from(u64::from_le_bytes(bytes[64..72].try_into().unwrap())).unwrap();
        for (in_tables, at, value) in damage {
            let from = if in_tables { tables } else { 0 };
            let at = from + at.index(bytes.len() - from);
            bytes[at] = value;
        }
        let place = tempfile::tempdir().unwrap();
        let (image, to) = (place.path().join("image"), place.path().join("below/to"));
        fs::write(&image, bytes).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::create_dir(place.path().join("below/outside")).unwrap();
        forget_peak();
        let (_, before) = memory();
        let source = Shuffled::new(&image, order, 0);
        if let Ok((superblock, tables)) = source.tables()
            && let Ok(tree) = Tree::read(&superblock, &tables)
        {
            let done = AtomicU64::new(0);
            let _ = unpack(&tree, &source, &to, &done);
            prop_assert!(done.load(Ordering::Relaxed) <= tree.content());
        }
        let (peak, _) = memory();
        prop_assert!(peak - before.min(peak) < MAX_MEMORY, "{before} bytes became {peak}");
        let names = |path: &str| fs::read_dir(place.path().join(path)).unwrap().count();
        prop_assert_eq!((names("."), names("below"), names("below/outside")), (2, 2, 0));
    }
}
