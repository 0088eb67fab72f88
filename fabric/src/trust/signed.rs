//! The envelope of every signed statement.
//!
//! Encoding: magic `BFSIGNED` (8 bytes), kind (1), format of the payload (1), length of the grant (1), the
//! [`Grant`], payload, the operator's signature (64) over a domain string, the kind's name and all bytes before it. The
//! signature covers the grant and thus the trust root: a statement cannot be moved to another fabric, operator or kind.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;

use super::error::TrustError;
use super::grant::{Grant, MAX_GRANT, Operator};
use super::key::{OperatorId, SIGNATURE, TrustRoot};
use crate::id::{Hash, ObjectId};

const MAGIC: &[u8; 8] = b"BFSIGNED";
const DOMAIN: &[u8] = b"bootfabric statement 1\0";

/// Magic, kind, format and the length of the grant.
const HEAD: usize = 8 + 3;
/// Where the format of the payload is.
const FORMAT_AT: usize = 8 + 1;

/// Something that an operator signs.
pub trait Statement: Sized {
    /// The kind's number on the wire; never used again for another kind.
    const KIND: u8;
    /// The kind's name, in signatures and errors.
    const NAME: &'static str;
    /// The newest format of the payload. This program reads all formats from 1 up to it.
    const FORMAT: u8;
    /// The longest payload (bytes).
    const MAX_PAYLOAD: usize;

    /// The format in which this statement is written: the oldest that can say it, so that older programs read it.
    fn format(&self) -> u8 {
        Self::FORMAT
    }

    /// Encodes a statement in its [`format`](Self::format).
    ///
    /// # Errors
    /// [`TrustError::Invalid`] if it makes no sense: nothing is signed that a node would refuse.
    fn to_payload(&self) -> Result<Vec<u8>, TrustError>;

    /// Decodes and checks a statement whose signature is valid; `format` is 1 to [`FORMAT`](Self::FORMAT).
    ///
    /// # Errors
    /// [`TrustError::Malformed`] or [`TrustError::Invalid`].
    fn from_payload(format: u8, payload: &[u8]) -> Result<Self, TrustError>;
}

/// A signed statement as it was received: nothing in it counts before [`verify`](Self::verify).
pub struct Signed<S> {
    bytes: Bytes,
    grant: Grant,
    statement: PhantomData<fn() -> S>,
}

/// A statement whose signature holds, and who made it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<S> {
    /// What was signed.
    pub statement: S,
    /// The key that signed it.
    pub operator: OperatorId,
    /// Whose key that is, by the words of the trust root.
    pub operator_name: String,
}

impl<S: Statement> Signed<S> {
    /// The longest envelope (bytes): what a reader must be ready to take.
    pub const MAX_BYTES: usize = HEAD + MAX_GRANT + S::MAX_PAYLOAD + SIGNATURE;

    /// Signs `statement` as `operator`.
    ///
    /// # Errors
    /// [`TrustError::Invalid`] or [`TrustError::TooLong`] if the statement would be refused by nodes.
    pub fn sign(operator: &Operator, statement: &S) -> Result<Self, TrustError> {
        let payload = statement.to_payload()?;
        if payload.len() > S::MAX_PAYLOAD {
            return Err(TrustError::TooLong { what: S::NAME, len: payload.len(), max: S::MAX_PAYLOAD });
        }
        let grant = operator.grant().clone();
        let grant_len =
            u8::try_from(grant.bytes().len()).map_err(|_| TrustError::Malformed { what: "grant" })?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[S::KIND, statement.format(), grant_len]);
        bytes.extend_from_slice(grant.bytes());
        bytes.extend_from_slice(&payload);
        let signature = operator.key().sign(&message::<S>(&bytes));
        bytes.extend_from_slice(&signature);
        Ok(Self { bytes: bytes.into(), grant, statement: PhantomData })
    }

    /// Reads the envelope; nothing is verified yet.
    ///
    /// # Errors
    /// [`TrustError`] saying why `bytes` are not an envelope of this kind and format.
    pub fn decode(bytes: &[u8]) -> Result<Self, TrustError> {
        let malformed = TrustError::Malformed { what: S::NAME };
        if bytes.len() > Self::MAX_BYTES {
            return Err(TrustError::TooLong { what: S::NAME, len: bytes.len(), max: Self::MAX_BYTES });
        }
        let Some((magic, rest)) = bytes.split_first_chunk::<8>() else { return Err(malformed) };
        let Some((&[kind, format, grant_len], rest)) = rest.split_first_chunk::<3>() else {
            return Err(malformed);
        };
        if magic != MAGIC {
            return Err(malformed);
        }
        if kind != S::KIND {
            return Err(TrustError::Kind { what: S::NAME, kind });
        }
        if !(1..=S::FORMAT).contains(&format) {
            return Err(TrustError::Format { what: S::NAME, format, known: S::FORMAT });
        }
        match rest.split_at_checked(grant_len.into()) {
            Some((grant, rest)) if rest.len() >= SIGNATURE => Ok(Self {
                grant: Grant::decode(grant)?,
                bytes: Bytes::copy_from_slice(bytes),
                statement: PhantomData,
            }),
            _ => Err(malformed),
        }
    }

    /// The statement, if `root` granted the operator key and that key signed these very bytes.
    ///
    /// # Errors
    /// [`TrustError`] saying what does not hold.
    pub fn verify(&self, root: &TrustRoot) -> Result<S, TrustError> {
        self.verify_signer(root).map(|verified| verified.statement)
    }

    /// Like [`verify`](Self::verify), and says who signed.
    ///
    /// # Errors
    /// [`TrustError`] saying what does not hold.
    pub fn verify_signer(&self, root: &TrustRoot) -> Result<Verified<S>, TrustError> {
        self.grant.verify(root, S::NAME)?;
        let (body, signature) = self.split()?;
        let operator = self.grant.operator();
        if !operator.verifies(&message::<S>(body), signature) {
            return Err(TrustError::BadSignature { what: S::NAME });
        }
        let statement = self.unverified()?;
        Ok(Verified { statement, operator, operator_name: self.grant.name().to_owned() })
    }

    /// What the statement says, whoever made it: for bookkeeping about what was verified when it came.
    pub(super) fn unverified(&self) -> Result<S, TrustError> {
        let (body, _) = self.split()?;
        let format = body.get(FORMAT_AT).copied().unwrap_or_default();
        let payload = body.get(HEAD + self.grant.bytes().len()..).unwrap_or_default();
        S::from_payload(format, payload)
    }

    fn split(&self) -> Result<(&[u8], &[u8; SIGNATURE]), TrustError> {
        self.bytes.split_last_chunk::<SIGNATURE>().ok_or(TrustError::Malformed { what: S::NAME })
    }

    /// The envelope, byte for byte as signed: what is stored and passed on.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The hash of the envelope: its name as an object.
    #[must_use]
    pub fn object_id(&self) -> ObjectId {
        ObjectId(Hash::of(&self.bytes))
    }
}

/// The kind of the signed statement that `bytes` seem to be.
pub(super) fn kind(bytes: &[u8]) -> Option<u8> {
    bytes.strip_prefix(MAGIC)?.first().copied()
}

/// What the operator signs.
fn message<S: Statement>(body: &[u8]) -> Vec<u8> {
    [DOMAIN, S::NAME.as_bytes(), b"\0", body].concat()
}

impl<S> Clone for Signed<S> {
    fn clone(&self) -> Self {
        Self { bytes: self.bytes.clone(), grant: self.grant.clone(), statement: PhantomData }
    }
}

impl<S: Statement> fmt::Debug for Signed<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed {}({:?}, {:?})", S::NAME, self.object_id(), self.grant)
    }
}
