//! Key files.
//!
//! | file | mode | content |
//! |---|---|---|
//! | `root.key` | 0600 | `bootfabric root key 1` and the secret seed |
//! | `root.pub` | 0644 | the trust root |
//! | `operator.key` | 0600 | `bootfabric operator key 1` and the secret seed |
//! | `operator.grant` | 0644 | `bootfabric operator grant 1` and the grant |
//!
//! Each file is one line of text, the value in hexadecimal. Files are written once and never over an older one, so
//! that no key is lost. `root.key` may be moved to a safe place once the operators have their grants.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::error::TrustError;
use super::grant::{Grant, MAX_GRANT, Operator};
use super::key::{KEY, OperatorKey, RootKey, TrustRoot};

/// Longest key file: a label and the longest value in hexadecimal (bytes).
const MAX_FILE: u64 = 128 + 2 * MAX_GRANT as u64;

struct Kind {
    file: &'static str,
    what: &'static str,
    label: &'static str,
    secret: bool,
    remedy: &'static str,
}

const INIT: &str = "`bootfabric init` makes one; on a further machine copy it from where the fabric was made";

const ROOT: Kind =
    Kind { file: "root.key", what: "root key", label: "bootfabric root key 1", secret: true, remedy: INIT };
const TRUST_ROOT: Kind = Kind {
    file: "root.pub",
    what: "trust root",
    label: "bootfabric trust root 1",
    secret: false,
    remedy: INIT,
};
const OPERATOR: Kind = Kind {
    file: "operator.key",
    what: "operator key",
    label: "bootfabric operator key 1",
    secret: true,
    remedy: INIT,
};
const GRANT: Kind = Kind {
    file: "operator.grant",
    what: "operator grant",
    label: "bootfabric operator grant 1",
    secret: false,
    remedy: INIT,
};

/// A directory of key files, mode 0700.
#[derive(Debug, Clone)]
pub struct KeyDir(PathBuf);

impl KeyDir {
    /// The directory `path`, which need not exist yet.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes a new fabric: a root key, and an operator key that it grants to `operator_name`.
    ///
    /// # Errors
    /// [`TrustError::KeyExists`] if there is any key already, [`TrustError::Io`], [`TrustError::Random`],
    /// [`TrustError::Invalid`] for an unfit name. Nothing is overwritten.
    pub fn init(&self, operator_name: &str) -> Result<Operator, TrustError> {
        for kind in [ROOT, TRUST_ROOT, OPERATOR, GRANT] {
            self.refuse_existing(&kind)?;
        }
        let (root, operator) = (RootKey::generate()?, OperatorKey::generate()?);
        let grant = root.grant(operator.public(), operator_name)?;
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)
            .map_err(|source| self.io("create", "", source))?;
        self.write(&ROOT, root.seed())?;
        self.write(&TRUST_ROOT, root.public().as_bytes())?;
        self.write(&OPERATOR, operator.seed())?;
        self.write(&GRANT, grant.bytes())?;
        Operator::new(operator, grant)
    }

    /// The root key.
    ///
    /// # Errors
    /// [`TrustError`] naming the file and what to do.
    pub fn root_key(&self) -> Result<RootKey, TrustError> {
        Ok(RootKey::from_bytes(&self.read_array(&ROOT)?))
    }

    /// The trust root.
    ///
    /// # Errors
    /// [`TrustError`] naming the file and what to do.
    pub fn trust_root(&self) -> Result<TrustRoot, TrustError> {
        Ok(TrustRoot::from_bytes(self.read_array(&TRUST_ROOT)?))
    }

    /// The operator key with its grant, which is checked against the trust root.
    ///
    /// # Errors
    /// [`TrustError`] naming the file and what to do.
    pub fn operator(&self) -> Result<Operator, TrustError> {
        let key = OperatorKey::from_bytes(&self.read_array(&OPERATOR)?);
        let grant = Grant::decode(&self.read(&GRANT)?)?;
        grant.verify(&self.trust_root()?, "operator key")?;
        Operator::new(key, grant)
    }

    fn refuse_existing(&self, kind: &Kind) -> Result<(), TrustError> {
        let path = self.0.join(kind.file);
        match path.symlink_metadata() {
            Ok(_) => Err(TrustError::KeyExists { what: kind.what, path }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(TrustError::Io { action: "look at", path, source }),
        }
    }

    fn write(&self, kind: &Kind, value: &[u8]) -> Result<(), TrustError> {
        let write = || {
            let mode = if kind.secret { 0o600 } else { 0o644 };
            let mut file =
                OpenOptions::new().write(true).create_new(true).mode(mode).open(self.0.join(kind.file))?;
            writeln!(file, "{} {}", kind.label, hex::encode(value))?;
            file.sync_all()?;
            File::open(&self.0)?.sync_all()
        };
        write().map_err(|source| self.io("write", kind.file, source))
    }

    fn read(&self, kind: &Kind) -> Result<Vec<u8>, TrustError> {
        let (path, what) = (self.0.join(kind.file), kind.what);
        let file = File::open(&path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => TrustError::NoKey { what, path: path.clone(), remedy: kind.remedy },
            _ => self.io("open", kind.file, source),
        })?;
        let metadata = file.metadata().map_err(|source| self.io("look at", kind.file, source))?;
        let mode = metadata.mode() & 0o7777;
        if kind.secret && mode & 0o077 != 0 {
            return Err(TrustError::Exposed { what, path, mode });
        }
        let mut text = String::new();
        file.take(MAX_FILE).read_to_string(&mut text).map_err(|source| self.io("read", kind.file, source))?;
        let value =
            text.trim_end().strip_prefix(kind.label).and_then(|rest| hex::decode(rest.trim_start()).ok());
        value.ok_or(TrustError::BadKeyFile { what, path })
    }

    fn read_array(&self, kind: &Kind) -> Result<[u8; KEY], TrustError> {
        let bad = |_| TrustError::BadKeyFile { what: kind.what, path: self.0.join(kind.file) };
        self.read(kind)?.try_into().map_err(bad)
    }

    fn io(&self, action: &'static str, file: &str, source: io::Error) -> TrustError {
        TrustError::Io { action, path: self.0.join(file), source }
    }
}
