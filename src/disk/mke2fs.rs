//! ext4, made by `mke2fs`, and filled in the same go where the files are there already: owners, times, hard links, attributes and
//! devices come out as they went in, and nothing has to be mounted.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::layout::Place;

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// What every kernel since 4.5 reads. Named in full, so that neither the version nor a configuration file decides.
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,sparse_super,large_file,huge_file,\
                        dir_nlink,extra_isize,metadata_csum";
/// How much of its words an error repeats.
const WORDS: u64 = 2048;

/// The filesystem could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// There is no `mke2fs`.
    #[error(
        "the program `mke2fs` is missing in {searched} (Debian: apt install e2fsprogs; for the first stage: build the image with --disk)"
    )]
    Missing {
        /// Where it was looked for.
        searched: String,
    },
    /// It cannot be run.
    #[error("cannot run `mke2fs`")]
    Run(#[from] io::Error),
    /// It said no.
    #[error("`mke2fs` failed ({status}): {words}")]
    Failed {
        /// Its end.
        status: std::process::ExitStatus,
        /// What it said.
        words: String,
    },
}

/// Where `mke2fs` is.
const PATHS: [&str; 4] = ["/usr/sbin/mke2fs", "/sbin/mke2fs", "/usr/bin/mke2fs", "/bin/mke2fs"];

/// Finds `mke2fs`.
///
/// # Errors
/// [`MakeError::Missing`]
pub fn find() -> Result<PathBuf, MakeError> {
    let found = PATHS.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| MakeError::Missing { searched: PATHS.join(", ") })
}

/// Makes the filesystem at `place` of `disk`, with what is in `directory`; without one, empty.
pub(super) fn make(
    disk: &Path,
    place: Place,
    uuid: &str,
    label: &str,
    directory: Option<&Path>,
) -> Result<(), MakeError> {
    let mut words = tempfile::tempfile().or_else(|_| tempfile::tempfile_in("/run"))?;
    let status = Command::new(find()?)
        .args(["-q", "-F", "-b", &BLOCK.to_string(), "-I", "256", "-m", "1", "-O", FEATURES])
        .args(["-E", &format!("offset={},nodiscard,root_owner=0:0", place.start), "-U", uuid, "-L", label])
        .args(directory.map(|directory| ["-d".as_ref(), directory.as_os_str()]).into_iter().flatten())
        .arg(disk)
        .arg((place.length / BLOCK).to_string())
        .env_clear()
        .env("LC_ALL", "C")
        .env("MKE2FS_CONFIG", "/dev/null")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(words.try_clone()?)
        .status()?;
    if status.success() {
        return Ok(());
    }
    let mut text = Vec::new();
    let length = words.seek(SeekFrom::End(0))?;
    words.seek(SeekFrom::Start(length.saturating_sub(WORDS)))?;
    words.take(WORDS).read_to_end(&mut text)?;
    Err(MakeError::Failed { status, words: String::from_utf8_lossy(&text).trim().replace('\n', "; ") })
}
