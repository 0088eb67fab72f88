//! Core: the memberships that are known.
//!
//! Of several statements about one name the one with the highest generation counts; of two with the same (two operators at
//! once) that which names nobody, then that with the higher hash. So everybody ends with the same roster, whatever the
//! order, repetition or loss of messages. Only what an operator signed gets in, so only an operator can fill it.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use bytes::Bytes;

use super::AdmitError;
use crate::id::{Hash, NodeId, ObjectId};
use crate::trust::{Membership, SignedMembership, TrustRoot};

/// Names known: as many as members, 0.5 KiB each.
pub const MAX_MEMBERSHIPS: usize = 4096;

/// What a statement changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Change {
    /// Who has a name now that had none of that name.
    pub(crate) gained: Option<NodeId>,
}

#[derive(Debug)]
struct Entry {
    membership: Membership,
    id: ObjectId,
    bytes: Bytes,
}

impl Entry {
    /// Whether this one counts rather than `other`, which is about the same name.
    fn precedes(&self, other: &Self) -> bool {
        let rank = |entry: &Self| (entry.membership.generation, entry.membership.node.is_none(), entry.id);
        rank(self) > rank(other)
    }
}

/// All that is known.
#[derive(Debug)]
pub(crate) struct Roster {
    trust_root: TrustRoot,
    names: BTreeMap<String, Entry>,
    nodes: BTreeSet<(NodeId, String)>,
    ids: HashSet<ObjectId>,
}

impl Roster {
    pub(crate) fn new(trust_root: TrustRoot) -> Self {
        Self { trust_root, names: BTreeMap::new(), nodes: BTreeSet::new(), ids: HashSet::new() }
    }

    /// Takes a signed membership in; `None` if it is known already.
    pub(crate) fn merge(&mut self, bytes: &[u8]) -> Result<Option<Change>, AdmitError> {
        let id = ObjectId(Hash::of(bytes));
        let signed = SignedMembership::decode(bytes)?;
        // Most of what comes is known: a look is cheaper than two signatures.
        if self.ids.contains(&id) {
            return Ok(None);
        }
        let membership = signed.verify(&self.trust_root)?;
        let entry = Entry { membership, id, bytes: signed.bytes().clone() };
        let name = entry.membership.name.clone();
        let old = match self.names.get(&name) {
            Some(known) if !entry.precedes(known) => {
                return Err(AdmitError::Superseded { name, newest: known.membership.generation });
            }
            None if self.names.len() >= MAX_MEMBERSHIPS => return Err(AdmitError::Full),
            known => known.and_then(|known| known.membership.node),
        };
        let new = entry.membership.node;
        if let Some(old) = old {
            self.nodes.remove(&(old, name.clone()));
        }
        if let Some(new) = new {
            self.nodes.insert((new, name.clone()));
        }
        self.ids.insert(id);
        if let Some(old) = self.names.insert(name, entry) {
            self.ids.remove(&old.id);
        }
        Ok(Some(Change { gained: new.filter(|_| new != old) }))
    }

    /// Whether the node has a name.
    pub(crate) fn admits(&self, node: NodeId) -> bool {
        self.of(node).is_some()
    }

    /// The signed membership of a node.
    pub(crate) fn of(&self, node: NodeId) -> Option<&Bytes> {
        let (_, name) = self.nodes.range((node, String::new())..).next().filter(|(it, _)| *it == node)?;
        self.names.get(name).map(|entry| &entry.bytes)
    }

    /// All signed memberships, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Bytes> {
        self.names.values().map(|entry| &entry.bytes)
    }

    /// Equal for equal rosters, and for others by chance alone.
    pub(crate) fn digest(&self) -> u64 {
        let first =
            |entry: &Entry| u64::from_be_bytes(*entry.id.0.as_bytes().first_chunk().unwrap_or(&[0; 8]));
        self.names.values().map(first).fold(0, |sum, hash| sum ^ hash)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::trust::{Operator, OperatorKey, RootKey, Signed};

    /// A fabric's operator whose keys are made of `seed`.
    pub(crate) fn operator(seed: u8) -> Operator {
        let root = RootKey::from_bytes(&[seed; 32]);
        let key = OperatorKey::from_bytes(&[seed + 1; 32]);
        let grant = root.grant(key.public(), "ann").unwrap();
        Operator::new(key, grant).unwrap()
    }

    pub(crate) fn membership(
        operator: &Operator,
        name: &str,
        node: Option<NodeId>,
        generation: u64,
    ) -> Bytes {
        let membership = Membership { name: name.into(), node, generation };
        Signed::sign(operator, &membership).unwrap().bytes().clone()
    }

    fn node(n: u8) -> NodeId {
        NodeId(Hash::of(&[n]))
    }

    #[test]
    fn a_name_holds_one_machine_at_a_time() {
        let ann = operator(1);
        let mut roster = Roster::new(ann.trust_root());
        let mut merge = |name: &str, who, generation| roster.merge(&membership(&ann, name, who, generation));
        assert_eq!(merge("a", Some(node(1)), 1).unwrap().unwrap().gained, Some(node(1)));
        assert_eq!(merge("a", Some(node(1)), 1).unwrap(), None);
        let change = merge("a", Some(node(2)), 2).unwrap().unwrap();
        assert_eq!(change.gained, Some(node(2)));
        let error = merge("a", Some(node(1)), 1).unwrap_err();
        assert!(matches!(error, AdmitError::Superseded { newest: 2, .. }), "{error}");
        assert_eq!(merge("b", Some(node(2)), 1).unwrap().unwrap().gained, Some(node(2)));
        assert_eq!(merge("a", None, 3).unwrap().unwrap(), Change::default());
        assert!(!roster.admits(node(1)) && roster.admits(node(2)), "it has its other name");
        assert_eq!((roster.all().count(), roster.of(node(1))), (2, None));
    }

    #[test]
    fn only_operators_of_the_fabric_admit_and_they_cannot_fill_memory() {
        let (ann, eve) = (operator(1), operator(9));
        let mut roster = Roster::new(ann.trust_root());
        let forged = roster.merge(&membership(&eve, "a", Some(node(1)), 9));
        assert!(matches!(forged, Err(AdmitError::Trust(_))));
        assert!(roster.merge(b"BFSIGNED").is_err());
        for n in 0..MAX_MEMBERSHIPS {
            roster.names.insert(
                n.to_string(),
                Entry {
                    membership: Membership { name: n.to_string(), node: None, generation: 1 },
                    id: ObjectId(Hash::of(&n.to_be_bytes())),
                    bytes: Bytes::new(),
                },
            );
        }
        let full = roster.merge(&membership(&ann, "a", Some(node(1)), 1));
        assert!(matches!(full, Err(AdmitError::Full)));
        assert!(roster.merge(&membership(&ann, "7", Some(node(1)), 2)).unwrap().is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Whatever the order and repetition, the roster is what the slow rule says.
        #[test]
        fn everybody_ends_with_the_same_roster(
            statements in prop::collection::vec((0..3u8, prop::option::of(0..3u8), 1..4u64, any::<bool>()), 1..12),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..24),
        ) {
            let operators = [operator(1), {
                let root = RootKey::from_bytes(&[1; 32]);
                let key = OperatorKey::from_bytes(&[7; 32]);
                let grant = root.grant(key.public(), "bob").unwrap();
                Operator::new(key, grant).unwrap()
            }];
            let signed: Vec<Bytes> = statements
                .iter()
                .map(|(name, who, generation, bob)| {
                    membership(&operators[usize::from(*bob)], &format!("n{name}"), who.map(node), *generation)
                })
                .collect();
            let (mut one, mut other) = (Roster::new(operators[0].trust_root()), Roster::new(operators[0].trust_root()));
            for bytes in &signed {
                let _ = one.merge(bytes);
            }
            for bytes in order.iter().map(|index| index.get(&signed)).chain(signed.iter().rev()) {
                let _ = other.merge(bytes);
            }
            prop_assert_eq!(one.digest(), other.digest());
            prop_assert!(one.all().eq(other.all()));
            for who in 0..3u8 {
                let named = (0..3u8).any(|name| {
                    let about = statements.iter().zip(&signed).filter(|((it, ..), _)| *it == name);
                    let newest = about.max_by_key(|((_, who, generation, _), bytes)| {
                        (*generation, who.is_none(), Hash::of(bytes))
                    });
                    newest.is_some_and(|((_, holder, ..), _)| *holder == Some(who))
                });
                prop_assert_eq!(one.admits(node(who)), named);
                prop_assert_eq!(one.of(node(who)).is_some(), named);
            }
        }
    }
}
