//! A Debian or Ubuntu from packages, as a recipe says: a root and, if it names one, a kernel.
//!
//! | module | owns |
//! |---|---|
//! | `file` | what is written in a recipe, and what it means once checked |
//! | `sources` | where packages come from if the recipe does not say |
//! | `make` | running `mmdebstrap` |
//!
//! What comes out is a tar, which then goes the way of every root. No privileges are needed where user namespaces serve.

mod file;
mod make;
mod sources;

use std::fmt;
use std::path::PathBuf;

pub use make::{Made, make};

use super::tool::ToolError;

/// A checked recipe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipe {
    /// Name of the image.
    pub name: Option<String>,
    /// Its version.
    pub version: Option<String>,
    suite: String,
    /// Addresses or lines of an apt source list; none: this machine's own.
    mirrors: Vec<String>,
    /// Parts of the archive; none: those of the sources.
    components: Vec<String>,
    keyring: Option<PathBuf>,
    variant: String,
    packages: Vec<String>,
    /// The kernel's package.
    pub kernel: Option<String>,
    files: Vec<PlacedFile>,
    commands: Vec<String>,
}

/// A file that a recipe puts into the root.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PlacedFile {
    /// Absolute, of plain parts.
    path: String,
    content: Content,
    /// Permission bits.
    mode: u32,
    /// `USER` or `USER:GROUP`, names or numbers of the root.
    owner: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Content {
    Text(String),
    /// A file of this machine.
    File(PathBuf),
}

/// Something in a recipe that cannot be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

/// Why there is no root of a recipe.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The recipe is wrong.
    #[error("{} is not right:{}", path.display(), Lines(problems))]
    Wrong {
        /// The recipe.
        path: PathBuf,
        /// All that is wrong with it.
        problems: Vec<Problem>,
    },
    /// `mmdebstrap` is missing or failed.
    #[error("cannot make the system that the recipe describes{}", .0.hint())]
    Mmdebstrap(#[source] MakeError),
    /// The kernel's packages cannot be unpacked.
    #[error("cannot unpack the packages of the kernel")]
    Kernel(#[source] ToolError),
    /// A temporary file cannot be written.
    #[error("cannot write to the temporary directory `{}`", path.display())]
    Temporary {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

/// What `mmdebstrap` said, and what may be done about it.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct MakeError(#[from] ToolError);

impl MakeError {
    /// What to do, where the program's own words do not tell.
    fn hint(&self) -> &'static str {
        let ToolError::Failed { words, .. } = &self.0 else { return "" };
        match () {
            () if words.contains("NO_PUBKEY") || words.contains("not signed") => {
                " (the keys of its archive are not known here: install debian-archive-keyring or ubuntu-keyring, or name them with `keyring`)"
            }
            () if words.contains("subuid") || words.contains("newuidmap") || words.contains("unshare") => {
                " (without root it takes user namespaces: Debian package uidmap and lines for this user in /etc/subuid and /etc/subgid; as root it takes neither)"
            }
            () => "",
        }
    }
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| write!(f, "\n  line {}: {}", problem.line, problem.why))
    }
}
