//! The choice: sets and names become modules, each with everything that it needs.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::index::{ModuleIndex, ModuleName};
use super::sets::{ALWAYS, ModuleSet, Need, SETS};

/// A module that a set names and the kernel does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Absent {
    /// The set.
    pub set: &'static str,
    /// Name of the module.
    pub module: String,
}

/// Why no modules can be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectError {
    /// Neither a set nor a module.
    #[error("`{name}` is neither a set of modules ({sets}) nor a module of kernel {kernel}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// The sets there are.
        sets: String,
        /// Version of the kernel.
        kernel: String,
    },
    /// The root cannot be mounted with this kernel.
    #[error(
        "kernel {kernel} has no `{module}`, neither built in nor as a module, and without it no root can be mounted: use a distribution's kernel package"
    )]
    Essential {
        /// Name of the module.
        module: String,
        /// Version of the kernel.
        kernel: String,
    },
    /// No network interface would be found.
    #[error(
        "kernel {kernel} has none of the network drivers of {asked}: machines could boot, but never fetch the root. Name the right set with --modules, or use a kernel that has the drivers"
    )]
    NoNetwork {
        /// The sets that were asked for.
        asked: String,
        /// Version of the kernel.
        kernel: String,
    },
    /// A module needs one that is not there.
    #[error(
        "module `{module}` needs `{needs}`, which modules.dep does not know: this kernel package is incomplete"
    )]
    Incomplete {
        /// The module.
        module: String,
        /// What it needs.
        needs: String,
    },
}

/// The modules of a first stage.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::image) struct Selection {
    /// Module files by name, closed under dependence.
    pub(super) modules: BTreeSet<ModuleName>,
    /// Those that the first stage loads in any case, in this order.
    pub(in crate::image) load: Vec<String>,
    /// Members of sets that the kernel lacks.
    pub(in crate::image) absent: Vec<Absent>,
}

/// Chooses the modules of `asked`, sets or single modules, and those that are always needed, out of `index`, the index of
/// the kernel `kernel`.
pub(in crate::image) fn select(
    index: &ModuleIndex,
    kernel: &str,
    asked: &[String],
) -> Result<Selection, SelectError> {
    let mut choice =
        Choice { index, kernel, network: false, names_modules: false, selection: Selection::default() };
    choice.add_set(&ALWAYS)?;
    for name in asked {
        match SETS.iter().find(|set| set.name == name) {
            Some(set) => choice.add_set(set)?,
            None => choice.add_named(name)?,
        }
    }
    if !choice.network && !choice.names_modules {
        return Err(SelectError::NoNetwork { asked: asked.join(", "), kernel: kernel.to_owned() });
    }
    choice.close()?;
    Ok(choice.selection)
}

struct Choice<'a> {
    index: &'a ModuleIndex,
    kernel: &'a str,
    /// Whether a driver for a network interface is among what was chosen.
    network: bool,
    /// Whether the operator named single modules: then it is for them to know which drivers they need.
    names_modules: bool,
    selection: Selection,
}

impl Choice<'_> {
    fn add_set(&mut self, set: &ModuleSet) -> Result<(), SelectError> {
        for group in set.groups {
            for member in group.members {
                let found = self.add(member, group.load);
                self.network |= found && group.network;
                if found {
                    continue;
                }
                match group.need {
                    Need::Must => {
                        let (module, kernel) = ((*member).to_owned(), self.kernel.to_owned());
                        return Err(SelectError::Essential { module, kernel });
                    }
                    Need::May => {
                        self.selection.absent.push(Absent { set: set.name, module: (*member).to_owned() });
                    }
                    Need::Helps => {}
                }
            }
        }
        Ok(())
    }

    fn add_named(&mut self, name: &str) -> Result<(), SelectError> {
        self.names_modules = true;
        if self.add(name, true) {
            return Ok(());
        }
        let sets = SETS.iter().map(|set| set.name).collect::<Vec<_>>().join(", ");
        Err(SelectError::Unknown { name: name.to_owned(), sets, kernel: self.kernel.to_owned() })
    }

    /// Adds what `member` names; false if the kernel does not have it.
    fn add(&mut self, member: &str, load: bool) -> bool {
        if self.index.builtin.contains(&ModuleName::new(member)) {
            return true;
        }
        let named = self.index.named(member);
        for module in &named {
            let text = module.to_string();
            if load && !self.selection.load.contains(&text) {
                self.selection.load.push(text);
            }
        }
        self.selection.modules.extend(named.iter().cloned());
        !named.is_empty()
    }

    /// Adds what the chosen modules need (that must be there) and would like (that need not).
    fn close(&mut self) -> Result<(), SelectError> {
        let mut open: Vec<ModuleName> = self.selection.modules.iter().cloned().collect();
        while let Some(name) = open.pop() {
            let needs =
                self.index.modules.get(&name).map(|module| module.needs.as_slice()).unwrap_or_default();
            if let Some(lost) = needs.iter().find(|needed| !self.index.modules.contains_key(needed)) {
                return Err(SelectError::Incomplete { module: name.to_string(), needs: lost.to_string() });
            }
            let wishes = self.index.soft.get(&name).into_iter().flatten();
            let wishes: Vec<_> = wishes.flat_map(|wish| self.index.named(wish)).collect();
            for next in needs.iter().cloned().chain(wishes) {
                if self.selection.modules.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        Ok(())
    }
}

impl Selection {
    /// The lines of the index about the chosen modules: `modules.dep`, `modules.alias`, `modules.softdep` and
    /// `modules.builtin`, each with its text. Paths end in `.ko`: the first stage holds modules unpacked.
    pub(super) fn index_files(&self, index: &ModuleIndex) -> BTreeMap<&'static str, String> {
        let path = |name: &ModuleName| index.modules.get(name).map(|module| unpacked_path(&module.path));
        let mut dep = String::new();
        for name in &self.modules {
            let needs = index.modules.get(name).map(|module| module.needs.as_slice()).unwrap_or_default();
            let needs: Vec<_> = needs.iter().filter_map(path).collect();
            if let Some(path) = path(name) {
                dep.push_str(&format!(
                    "{path}:{}{}\n",
                    if needs.is_empty() { "" } else { " " },
                    needs.join(" ")
                ));
            }
        }
        let aliases = index.aliases.iter().filter(|(_, name)| self.modules.contains(name));
        let alias = aliases.map(|(pattern, name)| format!("alias {pattern} {name}\n")).collect();
        let soft = self.modules.iter().filter_map(|name| index.soft_lines.get(name)).flatten();
        let soft = soft.map(|line| format!("{line}\n")).collect();
        [
            ("modules.dep", dep),
            ("modules.alias", alias),
            ("modules.softdep", soft),
            ("modules.builtin", index.builtin_text.clone()),
        ]
        .into()
    }
}

/// `path` of a module without the suffix of its compression.
pub(super) fn unpacked_path(path: &str) -> &str {
    [".xz", ".zst", ".gz"].iter().find_map(|suffix| path.strip_suffix(suffix)).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/net/virtio-net.ko: kernel/net/net_failover.ko kernel/net/failover.ko
kernel/net/net_failover.ko: kernel/net/failover.ko
kernel/net/failover.ko:
kernel/net/virtio_pci.ko:
kernel/fs/squashfs.ko.xz: kernel/lib/zstd_decompress.ko
kernel/lib/zstd_decompress.ko:
kernel/fs/overlay.ko:
kernel/crypto/lz4.ko:
kernel/crypto/lz4hc.ko:
kernel/other.ko:
";
    const ALIAS: &str = "alias crypto-lz4 lz4\nalias virtio:d00000001v* virtio_net\nalias pci:x other\n";
    const SOFT: &str = "softdep lz4 post: lz4hc missing\n";

    fn index(builtin: &str) -> ModuleIndex {
        ModuleIndex::parse(DEP, ALIAS, SOFT, builtin.to_owned()).unwrap()
    }

    fn asked(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_set_comes_with_all_it_needs_and_nothing_else() {
        let index = index("kernel/loop.ko\n");
        let selection = select(&index, "6.1", &asked(&["virtio"])).unwrap();
        let names: Vec<_> = selection.modules.iter().map(ToString::to_string).collect();
        let expected = [
            "failover",
            "lz4",
            "lz4hc",
            "net_failover",
            "overlay",
            "squashfs",
            "virtio_net",
            "virtio_pci",
            "zstd_decompress",
        ];
        assert_eq!(names, expected);
        assert_eq!(selection.load, ["squashfs", "overlay"]);
        let files = selection.index_files(&index);
        assert!(files["modules.dep"].contains("kernel/fs/squashfs.ko: kernel/lib/zstd_decompress.ko\n"));
        assert!(!files["modules.dep"].contains("other"));
        assert_eq!(files["modules.alias"], "alias crypto-lz4 lz4\nalias virtio:d00000001v* virtio_net\n");
        assert_eq!(files["modules.softdep"], SOFT);
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let whole = index("kernel/loop.ko\n");
        assert!(matches!(select(&whole, "6.1", &asked(&["virtoi"])), Err(SelectError::Unknown { .. })));
        assert!(matches!(select(&whole, "6.1", &asked(&["storage"])), Err(SelectError::NoNetwork { .. })));
        assert!(select(&whole, "6.1", &asked(&["storage", "virtio-net"])).is_ok());
        let no_loop = select(&index(""), "6.1", &asked(&["virtio"]));
        assert!(matches!(no_loop, Err(SelectError::Essential { module, .. }) if module == "loop"));
        let hole = ModuleIndex::parse(
            "kernel/loop.ko: kernel/lost.ko\nkernel/squashfs.ko:\nkernel/overlay.ko:\n",
            "",
            "",
            "kernel/virtio_net.ko\n".into(),
        );
        let hole = select(&hole.unwrap(), "6.1", &asked(&["virtio"]));
        assert!(matches!(hole, Err(SelectError::Incomplete { needs, .. }) if needs == "lost"));
    }

    #[test]
    fn drivers_that_a_kernel_lacks_are_reported() {
        let selection = select(&index("kernel/loop.ko\n"), "6.1", &asked(&["pc"])).unwrap();
        assert!(selection.absent.iter().any(|absent| absent.module == "e1000e" && absent.set == "pc"));
    }
}
