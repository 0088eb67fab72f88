//! Grants: the trust root's signature that lets an operator key sign.
//!
//! Encoding: trust root (32 bytes), operator key (32), length of the name (1), name, the root's signature (64) over a
//! domain string and all bytes before it.

use std::fmt;

use super::error::TrustError;
use super::key::{KEY, OperatorId, OperatorKey, RootKey, SIGNATURE, TrustRoot};
use super::text;

/// What the root signs begins with this, so that no other signature of its key can pass for a grant.
const DOMAIN: &[u8] = b"bootfabric grant 1\0";

/// Trust root, operator key and the length of the name.
const HEAD: usize = KEY + KEY + 1;

/// The longest encoded grant (bytes).
pub(super) const MAX_GRANT: usize = HEAD + text::MAX_NAME + SIGNATURE;

/// The trust root's statement that an operator key may sign releases, settings and documents.
#[derive(Clone, PartialEq, Eq)]
pub struct Grant {
    bytes: Vec<u8>,
    root: TrustRoot,
    operator: OperatorId,
    name: String,
}

impl Grant {
    pub(super) fn sign(root: &RootKey, operator: OperatorId, name: &str) -> Result<Self, TrustError> {
        let invalid = |why| TrustError::Invalid { what: "grant", why };
        if name.is_empty() {
            return Err(invalid("the operator's name is empty".into()));
        }
        text::check_line("the operator's name", name, text::MAX_NAME).map_err(invalid)?;
        let name_len =
            u8::try_from(name.len()).map_err(|_| invalid("the operator's name is too long".into()))?;
        let mut bytes = Vec::with_capacity(MAX_GRANT);
        bytes.extend_from_slice(root.public().as_bytes());
        bytes.extend_from_slice(operator.as_bytes());
        bytes.push(name_len);
        bytes.extend_from_slice(name.as_bytes());
        let signature = root.sign(&[DOMAIN, &bytes].concat());
        bytes.extend_from_slice(&signature);
        Ok(Self { bytes, root: root.public(), operator, name: name.into() })
    }

    /// Reads a grant; [`verify`](Self::verify) says whether it holds.
    ///
    /// # Errors
    /// [`TrustError::Malformed`] if `bytes` are not exactly one grant.
    pub fn decode(bytes: &[u8]) -> Result<Self, TrustError> {
        Self::parse(bytes).ok_or(TrustError::Malformed { what: "grant" })
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (root, rest) = bytes.split_first_chunk::<KEY>()?;
        let (operator, rest) = rest.split_first_chunk::<KEY>()?;
        let (&name_len, rest) = rest.split_first()?;
        let (name, signature) = rest.split_at_checked(name_len.into())?;
        let name = std::str::from_utf8(name).ok()?;
        text::check_line("", name, text::MAX_NAME).ok()?;
        (signature.len() == SIGNATURE && !name.is_empty()).then(|| Self {
            bytes: bytes.to_vec(),
            root: TrustRoot::from_bytes(*root),
            operator: OperatorId::from_bytes(*operator),
            name: name.into(),
        })
    }

    /// Checks that `root` made this grant; `what` names in errors what relies on it.
    ///
    /// # Errors
    /// [`TrustError::OtherFabric`] or [`TrustError::BadGrant`].
    pub fn verify(&self, root: &TrustRoot, what: &'static str) -> Result<(), TrustError> {
        if self.root != *root {
            return Err(TrustError::OtherFabric { what, theirs: self.root, ours: *root });
        }
        let signed = self.bytes.split_last_chunk::<SIGNATURE>();
        let holds =
            signed.is_some_and(|(body, signature)| root.verifies(&[DOMAIN, body].concat(), signature));
        if holds { Ok(()) } else { Err(TrustError::BadGrant { what, operator: self.operator }) }
    }

    /// The encoding.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The trust root that it claims to come from.
    #[must_use]
    pub fn root(&self) -> TrustRoot {
        self.root
    }

    /// The operator key that it grants.
    #[must_use]
    pub fn operator(&self) -> OperatorId {
        self.operator
    }

    /// Whose key that is.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl RootKey {
    /// Allows `operator` to sign for this fabric; `name` tells people whose key it is.
    ///
    /// # Errors
    /// [`TrustError::Invalid`] if `name` is not 1 to 64 printable ASCII characters.
    pub fn grant(&self, operator: OperatorId, name: &str) -> Result<Grant, TrustError> {
        Grant::sign(self, operator, name)
    }
}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Grant({:?} to {:?} {:?})", self.root, self.name, self.operator)
    }
}

/// Who signs: an operator key with the grant that makes its signatures count.
#[derive(Debug, Clone)]
pub struct Operator {
    key: OperatorKey,
    grant: Grant,
}

impl Operator {
    /// Joins a key with its grant.
    ///
    /// # Errors
    /// [`TrustError::Invalid`] if the grant is for another key, [`TrustError::BadGrant`] if it does not hold.
    pub fn new(key: OperatorKey, grant: Grant) -> Result<Self, TrustError> {
        if grant.operator() != key.public() {
            let why = format!(
                "it is for the key {}, the operator key is {}",
                grant.operator().fingerprint(),
                key.public().fingerprint()
            );
            return Err(TrustError::Invalid { what: "grant", why });
        }
        grant.verify(&grant.root(), "operator key")?;
        Ok(Self { key, grant })
    }

    /// The fabric that this operator signs for.
    #[must_use]
    pub fn trust_root(&self) -> TrustRoot {
        self.grant.root()
    }

    /// The grant.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    pub(super) fn key(&self) -> &OperatorKey {
        &self.key
    }
}
