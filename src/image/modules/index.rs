//! The module index of a kernel: what `depmod` wrote (modules.dep(5), and the comments in the files themselves).
//!
//! Hostile text never panics, and no path leads out of the kernel's module directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

/// Largest index file that is read, in bytes: `modules.alias` of a full distribution kernel has 2 MB.
const MAX_FILE: u64 = 64 << 20;

/// A module's name with `_` for `-`: the kernel and its tools treat the two alike.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::image) struct ModuleName(String);

impl ModuleName {
    pub(super) fn new(text: &str) -> Self {
        Self(text.replace('-', "_"))
    }

    /// The name of the module in the file `path`: what is before the first dot of the last part.
    fn of_path(path: &str) -> Option<Self> {
        let (stem, _) = path.rsplit('/').next()?.split_once(".ko")?;
        (!stem.is_empty()).then(|| Self::new(stem))
    }
}

impl fmt::Display for ModuleName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why the index of a kernel's modules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// A file cannot be read.
    #[error("cannot read the module index `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A path that leads out of the directory.
    #[error(
        "`{path}` in modules.dep leads out of the module directory: this kernel package is damaged or hostile"
    )]
    Path {
        /// The path as it stands there.
        path: String,
    },
}

/// A module that is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Module {
    /// Below the directory of the index, only plain parts.
    pub(super) path: String,
    /// All modules that it needs.
    pub(super) needs: Vec<ModuleName>,
}

/// What the index says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::image) struct ModuleIndex {
    pub(super) modules: BTreeMap<ModuleName, Module>,
    pub(super) builtin: BTreeSet<ModuleName>,
    /// Pattern and module, in the order of the file.
    pub(super) aliases: Vec<(String, ModuleName)>,
    /// What a module would like to have loaded before or after it: names or aliases.
    pub(super) soft: BTreeMap<ModuleName, Vec<String>>,
    /// Lines of `modules.softdep` by the module that they are about.
    pub(super) soft_lines: BTreeMap<ModuleName, Vec<String>>,
    /// `modules.builtin` as it is.
    pub(super) builtin_text: String,
}

impl ModuleIndex {
    /// Reads the index in `directory` (`lib/modules/VERSION`).
    pub(in crate::image) fn open(directory: &Path) -> Result<Self, IndexError> {
        let needed = |name| read(&directory.join(name));
        let optional = |name| match needed(name) {
            Err(IndexError::Read { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(String::new())
            }
            other => other,
        };
        let softdep = optional("modules.softdep")?;
        Self::parse(
            &needed("modules.dep")?,
            &optional("modules.alias")?,
            &softdep,
            optional("modules.builtin")?,
        )
    }

    /// Reads the four files' texts. Lines of an unknown form are skipped: a module that is missed is reported by name.
    pub(super) fn parse(dep: &str, alias: &str, softdep: &str, builtin: String) -> Result<Self, IndexError> {
        let mut index = Self::default();
        for (path, needs) in dep.lines().filter_map(|line| line.split_once(':')) {
            let Some(name) = ModuleName::of_path(path) else { continue };
            if !path.split('/').all(|part| !matches!(part, "" | "." | "..")) || path.contains('\0') {
                return Err(IndexError::Path { path: path.chars().take(200).collect() });
            }
            let needs = needs.split_whitespace().filter_map(ModuleName::of_path).collect();
            index.modules.insert(name, Module { path: path.to_owned(), needs });
        }
        for line in alias.lines() {
            if let ["alias", pattern, name] = line.split_whitespace().collect::<Vec<_>>()[..] {
                index.aliases.push((pattern.to_owned(), ModuleName::new(name)));
            }
        }
        for line in softdep.lines() {
            let mut words = line.split_whitespace();
            let (Some("softdep"), Some(name)) = (words.next(), words.next()) else { continue };
            let wishes = words.filter(|word| !matches!(*word, "pre:" | "post:")).map(str::to_owned);
            index.soft.entry(ModuleName::new(name)).or_default().extend(wishes);
            index.soft_lines.entry(ModuleName::new(name)).or_default().push(line.to_owned());
        }
        index.builtin = builtin.lines().filter_map(ModuleName::of_path).collect();
        index.builtin_text = builtin;
        Ok(index)
    }

    /// The modules that `text` names: one of that name, else those with exactly this alias.
    pub(super) fn named(&self, text: &str) -> Vec<ModuleName> {
        let name = ModuleName::new(text);
        if self.modules.contains_key(&name) {
            return vec![name];
        }
        let aliases = self.aliases.iter().filter(|(pattern, _)| ModuleName::new(pattern) == name);
        aliases.map(|(_, module)| module.clone()).filter(|module| self.modules.contains_key(module)).collect()
    }
}

fn read(path: &Path) -> Result<String, IndexError> {
    use std::io::Read;
    let read = || {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    read().map_err(|source| IndexError::Read { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(dep: &str, alias: &str, softdep: &str, builtin: &str) -> Result<ModuleIndex, IndexError> {
        ModuleIndex::parse(dep, alias, softdep, builtin.to_owned())
    }

    #[test]
    fn the_four_files_are_read() {
        let index = parse(
            "kernel/a-b.ko.xz: kernel/c.ko\nkernel/c.ko:\n",
            "# comment\nalias pci:v1d*sv* a_b\nalias crypto-x c\n",
            "softdep a_b pre: crypto-x post: other\n",
            "kernel/fs/ext4/ext4.ko\n",
        )
        .unwrap();
        assert_eq!(index.modules[&ModuleName::new("a-b")].needs, [ModuleName::new("c")]);
        assert_eq!(index.named("crypto-x"), [ModuleName::new("c")]);
        assert_eq!(index.named("a-b"), [ModuleName::new("a_b")]);
        assert_eq!(index.soft[&ModuleName::new("a_b")], ["crypto-x", "other"]);
        assert!(index.builtin.contains(&ModuleName::new("ext4")));
    }

    #[test]
    fn paths_that_lead_out_are_refused() {
        for path in ["../../etc/shadow.ko", "/etc/x.ko", "kernel//x.ko", "./x.ko"] {
            assert!(
                matches!(parse(&format!("{path}:\n"), "", "", ""), Err(IndexError::Path { .. })),
                "{path}"
            );
        }
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(dep in "\\PC{0,40}\n\\PC{0,40}", alias in "(alias )?\\PC{0,20}", soft in "softdep \\PC{0,40}") {
            if let Ok(index) = parse(&dep, &alias, &soft, &dep) {
                let _ = index.named(&alias);
            }
        }
    }
}
