//! The one tree that layers make, laid over each other: what container images are, and a tar is a single layer.
//!
//! Owns which member of which layer ends up at which names; never holds a file's content. A layer is applied as container
//! runtimes do (OCI image specification, "Image Layer Filesystem Changeset"): `.wh.NAME` removes NAME of the layers below,
//! `.wh..wh..opq` all that these have in its directory, a directory keeps what is in it, anything else replaces what was
//! there. A member whose way leads through a symbolic link is where the link leads, as if the root was `/`; one that would
//! leave the root is refused.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::rules;
use crate::image::tar::{Kind, Member, TarError};

/// Symbolic links followed on the way to one member: as many as Linux follows.
const MAX_LINKS: usize = 40;

/// Marks a name as one that is removed.
const WHITEOUT: &[u8] = b".wh.";
/// What begins with this is not a name that is removed: it speaks of a directory, or of a runtime's own matters.
const WHITEOUT_META: &[u8] = b".wh..wh.";
/// Removes all that lower layers have in its directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The tree so far.
#[derive(Debug, Default)]
pub(super) struct Tree {
    entries: BTreeMap<Vec<u8>, Entry>,
    nodes: Vec<Node>,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    node: usize,
    /// The layer that put it there.
    layer: usize,
}

/// A file of whatever kind, with all its names.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) member: Member,
    /// Where its content is: layer, and number of the member in it.
    layer: usize,
    number: usize,
    pub(super) names: Vec<Vec<u8>>,
}

/// What is left when all layers are applied.
#[derive(Debug, Default)]
pub(super) struct Plan {
    nodes: Vec<Node>,
    /// Nodes by layer and number of the member.
    by_member: HashMap<(usize, usize), usize>,
    /// Directories that no layer has a member for, parents first.
    pub(super) implied: Vec<Vec<u8>>,
}

impl Tree {
    /// Takes the member `number` of layer `layer`; `whiteouts` tells whether names may be removed. Returns where it is, unless
    /// it is none of the tree.
    pub(super) fn apply(
        &mut self,
        layer: usize,
        number: usize,
        mut member: Member,
        whiteouts: bool,
    ) -> Result<Option<Vec<u8>>, TarError> {
        if member.path.is_empty() {
            return Ok(None);
        }
        let removes = whiteouts && split(&member.path).1.starts_with(WHITEOUT);
        let path = match self.real(&member.path, &member.path) {
            // Some tools remove one by one what was in a directory that they replace by a file.
            Err(_) if removes => return Ok(None),
            path => path?,
        };
        let (parent, name) = split(&path);
        if removes {
            if name == OPAQUE {
                self.remove_below(parent, Some(layer));
            } else if !name.starts_with(WHITEOUT_META) {
                let removed = join(parent, name.get(WHITEOUT.len()..).unwrap_or_default());
                self.remove(&removed, Some(layer));
            }
            return Ok(None);
        }
        let node = if member.kind == Kind::HardLink {
            let target = self.real(&member.link, &member.path)?;
            let Some(entry) =
                self.entries.get(&target).filter(|_| self.kind(&target) != Some(Kind::Directory))
            else {
                let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                return Err(TarError::LinkToNothing {
                    member: text(&member.path),
                    target: text(&member.link),
                });
            };
            if target == path {
                return Ok(None);
            }
            entry.node
        } else {
            self.nodes.len()
        };
        if member.kind != Kind::Directory || self.kind(&path).is_some_and(|kind| kind != Kind::Directory) {
            self.remove(&path, None);
        }
        self.entries.insert(path.clone(), Entry { node, layer });
        if node == self.nodes.len() {
            member.path.shrink_to_fit();
            self.nodes.push(Node { member, layer, number, names: Vec::new() });
        }
        Ok(Some(path))
    }

    /// Whether `path` is in it.
    pub(super) fn contains(&self, path: &[u8]) -> bool {
        self.entries.contains_key(path)
    }

    /// What is left, without what belongs into no image.
    pub(super) fn finish(mut self) -> Plan {
        let (mut plan, mut implied) = (Plan::default(), BTreeSet::new());
        for (path, entry) in &self.entries {
            if rules::is_left_out(path) {
                continue;
            }
            if let Some(node) = self.nodes.get_mut(entry.node) {
                node.names.push(path.clone());
            }
            implied
                .extend(ancestors(path).filter(|dir| !self.entries.contains_key(*dir)).map(<[u8]>::to_vec));
        }
        plan.implied = implied.into_iter().collect();
        self.nodes.retain(|node| !node.names.is_empty());
        plan.by_member =
            self.nodes.iter().enumerate().map(|(at, node)| ((node.layer, node.number), at)).collect();
        plan.nodes = self.nodes;
        plan
    }

    /// Where `path` is once the symbolic links on its way are followed; `member` is whose way it is.
    fn real(&self, path: &[u8], member: &[u8]) -> Result<Vec<u8>, TarError> {
        let mut open: Vec<&[u8]> = parts(path).collect();
        open.reverse();
        let (mut at, mut links) = (Vec::new(), 0);
        let mut through: &[u8] = b"";
        let refused = |through: &[u8], why| TarError::Through {
            member: String::from_utf8_lossy(member).into_owned(),
            through: String::from_utf8_lossy(through).into_owned(),
            why,
        };
        while let Some(part) = open.pop() {
            if part == b".." {
                if at.is_empty() {
                    return Err(refused(through, "a link that leads out of the root"));
                }
                at.truncate(split(&at).0.len());
                continue;
            }
            let next = join(&at, part);
            let node = self.entries.get_key_value(&next).filter(|_| !open.is_empty());
            let node = node.and_then(|(name, entry)| Some((name, self.nodes.get(entry.node)?)));
            match node {
                Some((name, node)) if node.member.kind == Kind::Symlink => {
                    through = name;
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(refused(through, "a link that leads in a circle"));
                    }
                    if node.member.link.starts_with(b"/") {
                        at.clear();
                    }
                    let rest = open.len();
                    open.extend(parts(&node.member.link));
                    open.get_mut(rest..).unwrap_or_default().reverse();
                }
                Some((name, node)) if node.member.kind != Kind::Directory => {
                    return Err(refused(name, "which is no directory"));
                }
                _ => at = next,
            }
        }
        Ok(at)
    }

    fn kind(&self, path: &[u8]) -> Option<Kind> {
        self.entries.get(path).and_then(|entry| self.nodes.get(entry.node)).map(|node| node.member.kind)
    }

    /// Removes `path` and what is below it, of all layers or all but `but`.
    fn remove(&mut self, path: &[u8], but: Option<usize>) {
        if self.entries.get(path).is_some_and(|entry| Some(entry.layer) != but) {
            self.entries.remove(path);
        }
        self.remove_below(path, but);
    }

    fn remove_below(&mut self, path: &[u8], but: Option<usize>) {
        let start = join(path, b"");
        let below = self.entries.range(start.clone()..).take_while(|(name, _)| name.starts_with(&start));
        let gone: Vec<_> =
            below.filter(|(_, entry)| Some(entry.layer) != but).map(|(name, _)| name.clone()).collect();
        for name in gone {
            self.entries.remove(&name);
        }
    }
}

impl Node {
    /// Where its content is: layer, and number of the member in it.
    pub(super) fn place(&self) -> (usize, usize) {
        (self.layer, self.number)
    }
}

impl Plan {
    /// All that is left.
    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// What is left of the member `number` of layer `layer`.
    pub(super) fn of_member(&self, layer: usize, number: usize) -> Option<&Node> {
        self.by_member.get(&(layer, number)).and_then(|&at| self.nodes.get(at))
    }
}

fn parts(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

/// Directory and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
        None => (&[], path),
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

/// The directories that `path` is in, the nearest first, the root left out.
fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(Some(split(path).0), |dir| Some(split(dir).0)).take_while(|dir| !dir.is_empty())
}

#[cfg(test)]
#[path = "tree_tests.rs"]
mod tests;
