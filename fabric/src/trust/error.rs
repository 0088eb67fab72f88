//! What can be wrong with keys and signed statements.

use std::io;
use std::path::PathBuf;

use super::{OperatorId, TrustRoot};

/// Why a key or a signed statement is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The bytes are not a signed statement of the expected kind.
    #[error("malformed {what}: fetch it again, or sign it anew")]
    Malformed {
        /// What was expected.
        what: &'static str,
    },
    /// A statement of another kind was expected.
    #[error("this is a signed statement of kind {kind}, not a {what}")]
    Kind {
        /// What was expected.
        what: &'static str,
        /// The kind that the bytes give.
        kind: u8,
    },
    /// A statement written by another version of the program.
    #[error(
        "the {what} has format {format}, this program reads formats up to {known}: use the same program version on all nodes"
    )]
    Format {
        /// What was expected.
        what: &'static str,
        /// The format that the bytes give.
        format: u8,
        /// The newest format that this program reads.
        known: u8,
    },
    /// More bytes than a statement of this kind may have.
    #[error("the {what} has {len} bytes, at most {max} are allowed")]
    TooLong {
        /// What was expected.
        what: &'static str,
        /// Length in bytes.
        len: usize,
        /// The bound in bytes.
        max: usize,
    },
    /// The operator key was granted by the root of another fabric.
    #[error(
        "the {what} belongs to the fabric {}, this is the fabric {}: sign it with an operator key of this fabric",
        theirs.fingerprint(), ours.fingerprint()
    )]
    OtherFabric {
        /// What was to be verified.
        what: &'static str,
        /// The root that the statement names.
        theirs: TrustRoot,
        /// The root that was asked for.
        ours: TrustRoot,
    },
    /// The grant is not signed by the trust root.
    #[error("the trust root did not grant the operator key {}: the {what} is forged or damaged", operator.fingerprint())]
    BadGrant {
        /// What was to be verified.
        what: &'static str,
        /// The operator key that it names.
        operator: OperatorId,
    },
    /// The statement is not signed by the operator key.
    #[error("the signature of the {what} is wrong: it is forged or damaged")]
    BadSignature {
        /// What was to be verified.
        what: &'static str,
    },
    /// A statement whose content makes no sense, whoever signed it.
    #[error("the {what} is not valid: {why}")]
    Invalid {
        /// What was checked.
        what: &'static str,
        /// What is wrong and what would be right.
        why: String,
    },
    /// A statement older than one that is known.
    #[error(
        "the {what} `{name}` has generation {generation}, generation {newest} is known: a replay, or the operator must sign it \
         with a higher generation to go back to it"
    )]
    Replayed {
        /// What was checked.
        what: &'static str,
        /// Its name.
        name: String,
        /// Its generation.
        generation: u64,
        /// The newest generation known.
        newest: u64,
    },
    /// Text that is not a public key.
    #[error("`{text}` is not a {what}: 64 hexadecimal digits of an Ed25519 public key are needed")]
    ParseKey {
        /// What was expected.
        what: &'static str,
        /// What was given.
        text: String,
    },
    /// There is no such key.
    #[error("there is no {what} at {}: {remedy}", path.display())]
    NoKey {
        /// Which key.
        what: &'static str,
        /// Where it was looked for.
        path: PathBuf,
        /// What to do.
        remedy: &'static str,
    },
    /// A new key would replace an old one.
    #[error("there is a {what} at {} already: keep it, or move it away first", path.display())]
    KeyExists {
        /// Which key.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
    },
    /// A secret that others may read.
    #[error(
        "others may read the {what} {} (mode {mode:04o}): `chmod 600` it, and make a new key if somebody may have read it",
        path.display()
    )]
    Exposed {
        /// Which key.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file that does not hold what it should.
    #[error("{} does not hold a {what}: restore it from a backup", path.display())]
    BadKeyFile {
        /// Which key.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The system gives no random bytes.
    #[error("the system gives no random bytes for a new key")]
    Random(#[source] getrandom::Error),
}
