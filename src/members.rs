//! The memberships of a private fabric, as a store keeps them and an operator changes them.
//!
//! Which of several statements about a name counts is the swarm's to decide; here there is one for each name.

use std::collections::BTreeMap;

use anyhow::Context;
use bytes::Bytes;
use fabric::id::NodeId;
use fabric::store::Store;
use fabric::trust::{
    Membership, Operator, SignedMembership, TrustRoot, decode_memberships, encode_memberships,
};

use crate::home::MEMBERS_HEAD;

/// One name.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// What was signed.
    pub(crate) membership: Membership,
    /// Whose key signed it.
    pub(crate) operator: String,
    /// The signed statement.
    pub(crate) bytes: Bytes,
}

/// All names.
#[derive(Debug)]
pub(crate) struct Book {
    trust_root: TrustRoot,
    entries: BTreeMap<String, Entry>,
}

impl Book {
    /// The book of these statements; what no operator of the fabric signed is left out.
    pub(crate) fn of(trust_root: TrustRoot, memberships: impl IntoIterator<Item = Bytes>) -> Self {
        let mut book = Self { trust_root, entries: BTreeMap::new() };
        for bytes in memberships {
            if let Err(error) = book.add(&bytes) {
                tracing::warn!("a membership is left out: {error:#}");
            }
        }
        book
    }

    /// The book in `store`.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(crate) fn stored(store: &Store, trust_root: TrustRoot) -> anyhow::Result<Self> {
        let list = match store.head(MEMBERS_HEAD)? {
            Some(id) => {
                let object = store.object(&id).context("the store has lost the fabric's memberships")?;
                decode_memberships(&object)?
            }
            None => Vec::new(),
        };
        Ok(Self::of(trust_root, list))
    }

    /// All signed statements.
    pub(crate) fn statements(&self) -> Vec<Bytes> {
        self.entries.values().map(|entry| entry.bytes.clone()).collect()
    }

    /// All names in order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Whether the machine with this key has a name.
    pub(crate) fn admits(&self, node: NodeId) -> bool {
        self.entries.values().any(|entry| entry.membership.node == Some(node))
    }

    /// The machine that has a name.
    pub(crate) fn holder(&self, name: &str) -> Option<NodeId> {
        self.entries.get(name)?.membership.node
    }

    /// Takes a signed statement in if it is newer than what is there.
    ///
    /// # Errors
    /// If no operator of the fabric signed it.
    pub(crate) fn add(&mut self, bytes: &Bytes) -> anyhow::Result<()> {
        let verified = SignedMembership::decode(bytes)?.verify_signer(&self.trust_root)?;
        let (membership, operator) = (verified.statement, verified.operator_name);
        let known = self.entries.get(&membership.name).map_or(0, |entry| entry.membership.generation);
        if membership.generation > known {
            let name = membership.name.clone();
            self.entries.insert(name, Entry { membership, operator, bytes: bytes.clone() });
        }
        Ok(())
    }

    /// Signs that `name` belongs to `node`, or to nobody.
    ///
    /// # Errors
    /// If the name cannot be one.
    pub(crate) fn sign(
        &self,
        operator: &Operator,
        name: &str,
        node: Option<NodeId>,
    ) -> anyhow::Result<Bytes> {
        let known = self.entries.get(name).map_or(0, |entry| entry.membership.generation);
        let membership = Membership { name: name.to_owned(), node, generation: known + 1 };
        Ok(SignedMembership::sign(operator, &membership)?.bytes().clone())
    }
}

/// Keeps these statements in `store`.
///
/// # Errors
/// If the store cannot be written.
pub(crate) fn keep(store: &Store, statements: &[Bytes]) -> anyhow::Result<()> {
    let id = store.put_object(&encode_memberships(statements)?)?;
    Ok(store.set_head(MEMBERS_HEAD, &id)?)
}

/// The name of a machine as a membership can have it: lower case, nothing but letters, digits and a few marks.
pub(crate) fn plain_name(name: &str, node: NodeId) -> String {
    /// Longest name of a member.
    const MAX: usize = 64;
    let plain = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '.' | '_' | '-') => c,
        _ => '-',
    };
    let plain: String = name.chars().map(plain).take(MAX).collect();
    let plain = plain.trim_start_matches(['-', '.', '_']);
    if plain.is_empty() { format!("node-{}", node.0.short()) } else { plain.to_owned() }
}

#[cfg(test)]
mod tests {
    use fabric::id::Hash;
    use fabric::store::{Root, StoreOptions};
    use fabric::trust::KeyDir;

    use super::*;

    #[test]
    fn a_book_is_kept_and_changed_and_strangers_do_not_write_in_it() {
        let dir = tempfile::tempdir().unwrap();
        let operator = KeyDir::new(dir.path().join("ours")).init("ann").unwrap();
        let stranger = KeyDir::new(dir.path().join("theirs")).init("eve").unwrap();
        let store = Store::open(&dir.path().join("store"), StoreOptions::default()).unwrap();
        let node = NodeId(Hash::of(b"node"));
        let mut book = Book::stored(&store, operator.trust_root()).unwrap();
        let first = book.sign(&operator, "a", Some(node)).unwrap();
        book.add(&first).unwrap();
        assert!(book.add(&book.sign(&stranger, "a", None).unwrap()).is_err());
        keep(&store, &book.statements()).unwrap();
        assert!(
            store.garbage().unwrap().kept.iter().any(|kept| kept.why == [Root::Head(MEMBERS_HEAD.into())])
        );
        let mut book = Book::stored(&store, operator.trust_root()).unwrap();
        assert!(book.admits(node));
        book.add(&book.sign(&operator, "a", None).unwrap()).unwrap();
        book.add(&first).unwrap();
        let entry = book.entries().next().unwrap();
        assert_eq!((entry.membership.generation, entry.operator.as_str()), (2, "ann"));
        assert!(!book.admits(node));
        keep(&store, &book.statements()).unwrap();
        store.gc().unwrap();
        assert_eq!(store.objects().unwrap().len(), 1, "the old list is garbage");
    }

    #[test]
    fn any_name_becomes_a_plain_one() {
        let node = NodeId(Hash::of(b"node"));
        assert_eq!(plain_name("Rack1.Example", node), "rack1.example");
        assert_eq!(plain_name("-ä b", node), "b");
        assert_eq!(plain_name("", node), format!("node-{}", node.0.short()));
        assert_eq!(plain_name(&"n".repeat(100), node).len(), 64);
    }
}
