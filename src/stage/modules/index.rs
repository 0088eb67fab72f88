//! The module index: what `depmod` wrote about the modules of one kernel.
//!
//! Owns the parsing of `modules.dep`, `modules.alias`, `modules.softdep` and `modules.builtin` (see modules.dep(5)) and the order
//! of loading. Touches no kernel. Lines it cannot read are left out: the index comes with the image, and a module that
//! is missed shows up by name where it is needed.

use std::collections::{HashMap, HashSet};
use std::io::Read;
use std::path::{Component, Path, PathBuf};

use super::alias;

/// Largest index file that is read; a full distribution kernel's `modules.alias` has about 2 MB.
const MAX_FILE: u64 = 32 << 20;

/// How deep soft dependencies may refer to one another; real ones are one or two deep.
const MAX_DEPTH: usize = 16;

/// The module index cannot be used.
#[derive(Debug, thiserror::Error)]
pub(in crate::stage) enum IndexError {
    /// The image carries modules, but none for this kernel.
    #[error("the first stage carries modules for {carried}, but the kernel that runs is {running}")]
    OtherKernel {
        /// Versions there are modules for.
        carried: String,
        /// The kernel's version.
        running: String,
    },
    /// A file of the index cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Name of a module with `_` for `-`: the kernel and the tools treat them alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::stage) struct ModuleName(String);

impl ModuleName {
    /// The name that `text` stands for.
    pub(super) fn new(text: &str) -> Self {
        Self(text.replace('-', "_"))
    }

    /// The name of the module in the file at `path`: the file's name up to its first `.`.
    fn of_path(path: &str) -> Option<Self> {
        let file = path.rsplit('/').next()?;
        let stem = file.split('.').next().filter(|stem| !stem.is_empty())?;
        Some(Self::new(stem))
    }

    /// The name, with `_`.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// One module that can be loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// Its file, below the directory of the index.
    pub(super) path: PathBuf,
    /// All modules it needs, in the order in which they must be loaded.
    needs: Vec<ModuleName>,
}

/// What the index says.
#[derive(Debug, Default)]
pub(super) struct Index {
    modules: HashMap<ModuleName, Module>,
    /// Patterns by the text before their first `:`, which is literal in nearly all of them.
    aliases: HashMap<String, Vec<(String, ModuleName)>>,
    /// Patterns with a wildcard before their first `:`.
    wild: Vec<(String, ModuleName)>,
    soft: HashMap<ModuleName, Soft>,
    builtin: HashSet<ModuleName>,
}

/// Modules to be loaded before and after one, if they are there.
#[derive(Debug, Default)]
struct Soft {
    before: Vec<ModuleName>,
    after: Vec<ModuleName>,
}

impl Index {
    /// Reads the index of the kernel with version `release` below `root` (`/lib/modules`). An image without any modules
    /// gives an empty index: its kernel has all drivers built in.
    pub(super) fn open(root: &Path, release: &str) -> Result<Self, IndexError> {
        let directory = root.join(release);
        if !directory.is_dir() {
            let carried = names_in(root);
            return if carried.is_empty() {
                Ok(Self::default())
            } else {
                Err(IndexError::OtherKernel { carried: carried.join(", "), running: release.to_owned() })
            };
        }
        let mut index = Self::default();
        index.read_dep(&read(&directory.join("modules.dep"))?);
        index.read_alias(&read(&directory.join("modules.alias"))?);
        index.read_softdep(&read(&directory.join("modules.softdep"))?);
        index.read_builtin(&read(&directory.join("modules.builtin"))?);
        Ok(index)
    }

    /// Whether there are no modules at all.
    pub(super) fn is_empty(&self) -> bool {
        self.modules.is_empty()
    }

    /// Whether the kernel itself contains the module.
    pub(super) fn is_builtin(&self, name: &ModuleName) -> bool {
        self.builtin.contains(name)
    }

    /// The modules that ask for a device or service with this alias.
    pub(super) fn wanted_by(&self, modalias: &str) -> Vec<ModuleName> {
        let exact = self.aliases.get(bus(modalias)).into_iter().flatten();
        let mut names: Vec<ModuleName> = exact
            .chain(&self.wild)
            .filter(|(pattern, _)| alias::matches(pattern, modalias))
            .map(|(_, name)| name.clone())
            .collect();
        let mut seen = HashSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// Everything to load for `name`, first things first; `None` if there is no such module. Modules of soft dependencies that
    /// are missing are left out.
    pub(super) fn plan(&self, name: &ModuleName) -> Option<Vec<(&ModuleName, &Module)>> {
        self.modules.get_key_value(name)?;
        let mut plan = Plan { index: self, order: Vec::new(), seen: HashSet::new() };
        plan.add(name, 0);
        Some(plan.order)
    }

    fn read_dep(&mut self, text: &str) {
        for line in text.lines() {
            let Some((path, needs)) = line.split_once(':') else { continue };
            let Some(name) = ModuleName::of_path(path) else { continue };
            if !is_below(path) {
                continue;
            }
            // depmod lists the nearest dependence first; loading goes the other way.
            let needs = needs.split_whitespace().rev().filter_map(ModuleName::of_path).collect();
            self.modules.insert(name, Module { path: PathBuf::from(path), needs });
        }
    }

    fn read_alias(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("alias"), Some(pattern), Some(name), None) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            let entry = (pattern.to_owned(), ModuleName::new(name));
            if bus(pattern).contains(['*', '?', '[', '\\']) {
                self.wild.push(entry);
            } else {
                self.aliases.entry(bus(pattern).to_owned()).or_default().push(entry);
            }
        }
    }

    fn read_softdep(&mut self, text: &str) {
        for line in text.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(name)) = (words.next(), words.next()) else { continue };
            let soft = self.soft.entry(ModuleName::new(name)).or_default();
            let mut list = None;
            for word in words {
                match word {
                    "pre:" => list = Some(&mut soft.before),
                    "post:" => list = Some(&mut soft.after),
                    _ => list.iter_mut().for_each(|list| list.push(ModuleName::new(word))),
                }
            }
        }
    }

    fn read_builtin(&mut self, text: &str) {
        self.builtin.extend(text.lines().filter_map(|line| ModuleName::of_path(line.trim())));
    }
}

/// A plan in the making: a depth-first walk that visits each module once, so cycles end.
struct Plan<'a> {
    index: &'a Index,
    order: Vec<(&'a ModuleName, &'a Module)>,
    seen: HashSet<&'a ModuleName>,
}

impl<'a> Plan<'a> {
    fn add(&mut self, name: &ModuleName, depth: usize) {
        let Some((name, module)) = self.index.modules.get_key_value(name) else { return };
        if depth > MAX_DEPTH || !self.seen.insert(name) {
            return;
        }
        let soft = self.index.soft.get(name);
        for before in soft.into_iter().flat_map(|soft| &soft.before).chain(&module.needs) {
            self.add(before, depth + 1);
        }
        self.order.push((name, module));
        for after in soft.into_iter().flat_map(|soft| &soft.after) {
            self.add(after, depth + 1);
        }
    }
}

/// What comes before the first `:` of an alias: `pci`, `virtio`, `usb`; all of it where there is none. `-` counts as `_`.
fn bus(alias: &str) -> &str {
    match alias.split_once(':') {
        Some((bus, _)) => bus,
        // `fs-squashfs`, `crypto-zstd`, `net-pf-16-proto-9`: the word before the separator.
        None => alias.split(['-', '_']).next().unwrap_or(alias),
    }
}

/// Whether a path of the index stays below the index's directory.
fn is_below(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// A file as text; a file that is not there is empty, as depmod leaves out what it has nothing to say about.
fn read(path: &Path) -> Result<String, IndexError> {
    let mut bytes = Vec::new();
    let outcome = std::fs::File::open(path).and_then(|file| file.take(MAX_FILE).read_to_end(&mut bytes));
    match outcome {
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(IndexError::Read { path: path.to_owned(), source }),
    }
}

fn names_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEP: &str = "\
kernel/drivers/net/virtio_net.ko: kernel/drivers/net/net_failover.ko kernel/net/core/failover.ko
kernel/drivers/net/net_failover.ko: kernel/net/core/failover.ko
kernel/net/core/failover.ko:
kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/raid6/raid6_pq.ko.xz
kernel/lib/raid6/raid6_pq.ko.xz:
kernel/lib/libcrc32c.ko.zst:
/etc/passwd.ko:
kernel/../../evil.ko:
";

    fn index() -> Index {
        let mut index = Index::default();
        index.read_dep(DEP);
        index.read_alias(
            "# comment\nalias virtio:d00000001v* virtio_net\nalias fs-btrfs btrfs\nalias pci*:v* failover\nalias broken\n",
        );
        index.read_softdep(
            "softdep btrfs pre: libcrc32c missing post: failover\nsoftdep failover pre: btrfs\n",
        );
        index.read_builtin("kernel/fs/ext4/ext4.ko\n\n");
        index
    }

    fn order(index: &Index, name: &str) -> Option<Vec<String>> {
        let plan = index.plan(&ModuleName::new(name))?;
        Some(plan.into_iter().map(|(name, _)| name.as_str().to_owned()).collect())
    }

    #[test]
    fn dependencies_come_first() {
        let index = index();
        assert_eq!(order(&index, "raid6-pq").unwrap(), ["raid6_pq"]);
        assert_eq!(order(&index, "btrfs").unwrap(), ["libcrc32c", "raid6_pq", "btrfs", "failover"]);
        let virtio = order(&index, "virtio-net").unwrap();
        let place = |name: &str| virtio.iter().position(|other| other == name).unwrap();
        assert!(place("failover") < place("net_failover") && place("net_failover") < place("virtio_net"));
        assert_eq!(order(&index, "absent"), None);
    }

    #[test]
    fn paths_that_leave_the_directory_are_left_out() {
        assert_eq!(order(&index(), "evil"), None);
        assert_eq!(order(&index(), "passwd"), None);
    }

    #[test]
    fn aliases_find_modules() {
        let index = index();
        assert_eq!(index.wanted_by("virtio:d00000001v00001AF4"), [ModuleName::new("virtio_net")]);
        assert_eq!(index.wanted_by("fs-btrfs"), [ModuleName::new("btrfs")]);
        assert_eq!(index.wanted_by("fs_btrfs"), [ModuleName::new("btrfs")]);
        assert_eq!(index.wanted_by("pci:v1"), [ModuleName::new("failover")]);
        assert!(index.wanted_by("usb:x").is_empty());
        assert!(index.is_builtin(&ModuleName::new("ext4")));
    }

    #[test]
    fn a_kernel_that_the_image_has_no_modules_for() {
        let root = tempfile::tempdir().unwrap();
        assert!(Index::open(root.path(), "6.1").unwrap().is_empty());
        std::fs::create_dir(root.path().join("6.12")).unwrap();
        let error = Index::open(root.path(), "6.1").unwrap_err().to_string();
        assert_eq!(error, "the first stage carries modules for 6.12, but the kernel that runs is 6.1");
        assert!(Index::open(root.path(), "6.12").unwrap().is_empty());
    }

    proptest! {
        #[test]
        fn no_index_is_too_odd(dep in "([a-c./: \n]|\\PC){0,200}", soft in "(softdep |pre: |post: |[a-c ]|\n){0,60}") {
            let mut index = Index::default();
            index.read_dep(&dep);
            index.read_alias(&dep);
            index.read_softdep(&soft);
            index.read_builtin(&dep);
            for name in index.modules.keys() {
                let plan = index.plan(name).unwrap();
                prop_assert!(plan.len() <= index.modules.len());
                for (_, module) in plan {
                    prop_assert!(is_below(module.path.to_str().unwrap()));
                }
            }
        }

        #[test]
        fn soft_dependencies_may_run_in_circles(edges in proptest::collection::vec((0_u8..20, 0_u8..20), 0..60)) {
            let mut index = Index::default();
            for n in 0..20 {
                index.read_dep(&format!("kernel/m{n}.ko:\n"));
            }
            for (from, to) in edges {
                index.read_softdep(&format!("softdep m{from} pre: m{to} post: m{to}\n"));
            }
            for n in 0..20 {
                let name = ModuleName::new(&format!("m{n}"));
                prop_assert!(index.plan(&name).unwrap().len() <= 20);
            }
        }
    }
}
