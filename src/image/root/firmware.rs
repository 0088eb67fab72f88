//! Firmware files out of a root's archives: their contents are not kept when it is surveyed, as which of them are wanted is
//! known only once its kernel is.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File};

use tempfile::TempDir;

use super::tree::Node;
use super::{Archive, Root, RootError, RootSource};
use crate::image::firmware::{DIRECTORIES, ENDINGS};
use crate::image::tar::{Kind, TarError};

/// Links followed from one name to a file.
const MAX_LINKS: usize = 8;

impl Root {
    /// The files `wanted` of the root's archives, in a temporary directory; `None` if the root is a directory, which has them
    /// itself, or if it has none of them.
    pub(in crate::image) fn firmware(&self, wanted: &BTreeSet<String>) -> Result<Option<TempDir>, RootError> {
        if let RootSource::Directory(_) = self.source {
            return Ok(None);
        }
        let nodes: HashMap<&[u8], &Node> = self
            .plan
            .nodes()
            .iter()
            .flat_map(|node| node.names.iter().map(move |name| (name.as_slice(), node)))
            .collect();
        // By layer and number of the member: the names that it has here.
        let mut targets: HashMap<(usize, usize), Vec<String>> = HashMap::new();
        for name in wanted {
            let candidates = DIRECTORIES.iter().flat_map(|dir| ENDINGS.map(|ending| (dir, ending)));
            let found = candidates
                .filter_map(|(dir, ending)| Some((file(&nodes, format!("{dir}/{name}{ending}"))?, ending)))
                .next();
            if let Some((node, ending)) = found {
                targets.entry(node.place()).or_default().push(format!("{name}{ending}"));
            }
        }
        if targets.is_empty() {
            return Ok(None);
        }
        let dir = TempDir::new().map_err(RootError::Temporary)?;
        for (layer, path) in self.source.archives().iter().enumerate() {
            let mut archive = Archive::open(path)?;
            while let Some((number, member)) = archive.next()? {
                let Some(names) = targets.get(&(layer, number)).filter(|_| member.kind == Kind::File) else {
                    continue;
                };
                let mut bytes = Vec::new();
                archive.reader.copy(&mut bytes).map_err(|error| match error {
                    TarError::Io(source) => RootError::Temporary(source),
                    source => RootError::Tar { path: path.clone(), source },
                })?;
                for name in names {
                    let target = dir.path().join(name);
                    let parent = target.parent().map_or(Ok(()), fs::create_dir_all);
                    let write = parent.and_then(|()| {
                        use std::io::Write;
                        File::create(&target)?.write_all(&bytes)
                    });
                    write.map_err(RootError::Temporary)?;
                }
            }
            archive.finish()?;
        }
        Ok(Some(dir))
    }
}

/// The file at `path`, or where the links there lead.
fn file<'a>(nodes: &HashMap<&[u8], &'a Node>, path: String) -> Option<&'a Node> {
    let mut path = path.into_bytes();
    for _ in 0..MAX_LINKS {
        let node = *nodes.get(path.as_slice())?;
        match node.member.kind {
            Kind::File => return Some(node),
            Kind::Symlink => path = target(&path, &node.member.link)?,
            _ => return None,
        }
    }
    None
}

/// Where the link `link` at `path` leads, if that is in the root.
fn target(path: &[u8], link: &[u8]) -> Option<Vec<u8>> {
    let mut at: Vec<&[u8]> =
        if link.starts_with(b"/") { Vec::new() } else { path.split(|byte| *byte == b'/').collect() };
    at.pop();
    for part in link.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                at.pop()?;
            }
            name => at.push(name),
        }
    }
    Some(at.join(&b'/'))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::image::progress::Silent;

    #[test]
    fn what_is_wanted_comes_out_of_a_tar() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("usr/lib/firmware/a")).unwrap();
        fs::create_dir_all(root.join("sbin")).unwrap();
        fs::write(root.join("sbin/init"), "#!/bin/sh\n").unwrap();
        fs::write(root.join("usr/lib/firmware/a/one-1.2"), "one").unwrap();
        fs::write(root.join("usr/lib/firmware/two.xz"), "two").unwrap();
        fs::write(root.join("usr/lib/firmware/other"), "other").unwrap();
        std::os::unix::fs::symlink("../a/one-1.2", root.join("usr/lib/firmware/a/one")).unwrap();
        std::os::unix::fs::symlink("usr/lib", root.join("lib")).unwrap();
        std::os::unix::fs::symlink("circle", root.join("usr/lib/firmware/circle")).unwrap();
        let tar = dir.path().join("root.tar");
        assert!(
            Command::new("tar")
                .arg("-C")
                .arg(&root)
                .arg("-cf")
                .arg(&tar)
                .arg(".")
                .status()
                .unwrap()
                .success()
        );
        let source = RootSource::detect(&tar).unwrap();
        let surveyed = Root::survey(&source, false, dir.path(), &Silent).unwrap();
        let wanted = ["a/one", "two", "circle", "none"].map(str::to_owned).into();
        let found = surveyed.firmware(&wanted).unwrap().unwrap();
        assert_eq!(fs::read(found.path().join("a/one")).unwrap(), b"one");
        assert_eq!(fs::read(found.path().join("two.xz")).unwrap(), b"two");
        assert_eq!(fs::read_dir(found.path()).unwrap().count(), 2);
        assert!(surveyed.firmware(&BTreeSet::new()).unwrap().is_none());
    }
}
