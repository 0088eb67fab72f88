//! A Debian or Ubuntu from packages, as a recipe says: a root and, if it names one, a kernel.
//!
//! | module | owns |
//! |---|---|
//! | `file`, `date` | what is written in a recipe, and what it means once checked |
//! | `sources` | where packages come from if the recipe does not say |
//! | `make` | running `mmdebstrap` |
//!
//! What comes out is a tar, which then goes the way of every root. No privileges are needed where user namespaces serve.

mod date;
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
    /// What files made during installation are dated, and nothing is later than, in seconds since 1970; none: the newest
    /// date of the archive's own.
    date: Option<i64>,
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
        let has = |known: &[&str]| known.iter().any(|known| words.contains(known));
        match () {
            () if has(&["NO_PUBKEY", "EXPKEYSIG"]) => {
                " (the keys of its archive are not known here: Debian's are in the package debian-archive-keyring, Ubuntu's in ubuntu-keyring of Ubuntu's own archive; name a file with them in `keyring`)"
            }
            () if has(&[
                "Temporary failure resolving",
                "Could not resolve",
                "Could not connect",
                "Connection failed",
            ]) =>
            {
                " (the archive cannot be reached: is there a network, a proxy to name in http_proxy, or another `mirror`?)"
            }
            () if has(&["does not have a Release file", "404  Not Found"]) => {
                " (the archive has no such `suite`: is it spelled right, is the `mirror`?)"
            }
            () if has(&["subuid", "newuidmap", "unshare"]) => {
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
