//! Reads a capture file as far as it has been written, and goes on from there the next time.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::decoder::Decoder;
use super::trace::Trace;
use crate::{Error, Result};

/// Read at once.
const PIECE: usize = 256 * 1024;

/// A capture file and what was found in it so far.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    file: Option<File>,
    decoder: Decoder,
    trace: Trace,
}

impl Follower {
    /// Nothing read yet; the file need not exist yet.
    #[must_use]
    pub fn new(path: &Path) -> Follower {
        Follower { path: path.into(), file: None, decoder: Decoder::new(), trace: Trace::default() }
    }

    /// What was found so far.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Reads what has been added to the file. A record that is not whole yet is left for the next time.
    ///
    /// # Errors
    /// When the file cannot be read, or is no capture of Ethernet frames.
    pub fn read_on(&mut self) -> Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => none.insert(File::open(&self.path).map_err(Error::file("open", &self.path))?),
        };
        let mut piece = vec![0; PIECE];
        loop {
            let length = file.read(&mut piece).map_err(Error::file("read", &self.path))?;
            if length == 0 {
                return Ok(());
            }
            self.decoder.feed(piece.get(..length).unwrap_or_default());
            let damaged = |source| Error::Capture { path: self.path.clone(), source };
            while let Some(record) = self.decoder.next_record().map_err(damaged)? {
                self.trace.add(&record);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::super::decoder::tests::file;
    use super::super::frame::tests::{A, B, tcp};
    use super::*;

    #[test]
    fn a_growing_file() {
        let whole = file(&[&tcp((A, 80), (B, 5000), &[1; 100]), &tcp((A, 80), (B, 5000), &[1; 100])]);
        let (first, second) = whole.split_at(whole.len() - 50);
        let mut written = tempfile::NamedTempFile::new().unwrap();
        let mut follower = Follower::new(written.path());
        follower.read_on().unwrap();
        written.write_all(first).unwrap();
        follower.read_on().unwrap();
        assert_eq!(follower.trace().tcp_payload(A, B), 100);
        written.write_all(second).unwrap();
        follower.read_on().unwrap();
        assert_eq!(follower.trace().tcp_payload(A, B), 200);
    }

    #[test]
    fn garbage_is_an_error_that_names_the_file() {
        let mut written = tempfile::NamedTempFile::new().unwrap();
        written.write_all(&[b'x'; 100]).unwrap();
        let error = Follower::new(written.path()).read_on().unwrap_err();
        assert!(format!("{error:?}").contains("not a pcap file"), "{error:?}");
        assert!(Follower::new(Path::new("/nowhere")).read_on().is_err());
    }
}
