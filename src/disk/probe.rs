//! What a disk or partition holds: recognised by its first bytes, without mounting anything.
//!
//! Owns the signatures. Everything unknown that is not zero counts as somebody's data.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::gpt::{self, Guid, Table};

/// Bytes at either end of a disk that must be zero for it to be empty: partition tables, superblocks, RAID metadata.
pub(super) const ENDS: u64 = 1 << 20;
/// Places in between that are looked at, evenly spaced.
const SAMPLES: u64 = 64;
/// Bytes looked at in each of them.
const SAMPLE: usize = 64 << 10;
/// Where the superblock of ext2 to ext4 is, in bytes (kernel documentation, filesystems/ext4, "The Super Block").
const EXT: usize = 1024;
/// Where an installation that has begun says so: behind every usual table, before the first partition.
pub(super) const MARK_AT: u64 = 512 << 10;
/// What it says.
pub(super) const MARK: &[u8] = b"bootfabric installs here, undone\n";

/// Signatures: offset, bytes, what it is.
const SIGNATURES: [(usize, &[u8], &str); 13] = [
    (512, b"EFI PART", "a GPT partition table"),
    (4096, b"EFI PART", "a GPT partition table"),
    (EXT + 56, b"\x53\xef", "an ext filesystem"),
    (0x1_0040, b"_BHRfS_M", "a btrfs filesystem"),
    (0, b"XFSB", "an xfs filesystem"),
    (0, b"LUKS\xba\xbe", "a LUKS volume"),
    (512, b"LABELONE", "an LVM volume"),
    (4096, b"\xfc\x4e\x2b\xa9", "a RAID member"),
    (4086, b"SWAPSPACE2", "swap space"),
    (3, b"NTFS    ", "an NTFS filesystem"),
    (0, b"hsqs", "a squashfs"),
    (0x8001, b"CD001", "an ISO 9660 filesystem"),
    (510, b"\x55\xaa", "a partition table or boot sector"),
];

/// Most bytes that a signature lies behind.
const HEAD: usize = 128 << 10;

/// What a disk holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Content {
    /// Zeros wherever one looks.
    Nothing,
    /// An installation of ours that did not come to its end.
    Unfinished,
    /// An installation of ours.
    Installed(Table),
    /// Something else; what, in words.
    Foreign(&'static str),
}

/// Looks at a disk of `size` bytes in blocks of `block` bytes.
pub(super) fn content(disk: &File, size: u64, block: u64) -> io::Result<Content> {
    let head = read(disk, 0, HEAD)?;
    let table = Table::read(&head, block);
    if let Some(table) =
        table.filter(|table| table.partitions.iter().any(|part| part.name.starts_with(super::layout::NAME)))
    {
        return Ok(Content::Installed(table));
    }
    if read(disk, MARK_AT, MARK.len())? == MARK {
        return Ok(Content::Unfinished);
    }
    if let Some(what) = signature(&head) {
        return Ok(Content::Foreign(what));
    }
    Ok(if is_zero(disk, size)? {
        Content::Nothing
    } else {
        Content::Foreign("data of a kind that is not known")
    })
}

fn signature(head: &[u8]) -> Option<&'static str> {
    let found =
        SIGNATURES.iter().find(|(at, bytes, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(bytes)));
    found.map(|(_, _, what)| *what)
}

fn is_zero(disk: &File, size: u64) -> io::Result<bool> {
    let ends = usize::try_from(ENDS.min(size)).unwrap_or(SAMPLE);
    let places = (1..SAMPLES).map(|number| (size / SAMPLES * number, SAMPLE));
    for (at, length) in [(0, ends), (size.saturating_sub(ENDS), ends)].into_iter().chain(places) {
        if read(disk, at, length)?.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Up to `length` bytes from byte `at` on; fewer at the end.
fn read(disk: &File, at: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut done = 0;
    while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match disk.read_at(rest, at + done as u64) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(done);
    Ok(bytes)
}

/// An ext filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ext {
    /// Its UUID, in text.
    pub uuid: String,
    /// Its label; empty if it has none.
    pub label: String,
}

/// The ext filesystem on a partition, if it holds one.
///
/// # Errors
/// Those of reading.
pub fn ext(partition: &File) -> io::Result<Option<Ext>> {
    Ok(parse_ext(&read(partition, 0, EXT + 1024)?))
}

pub(super) fn parse_ext(head: &[u8]) -> Option<Ext> {
    let block = head.get(EXT..EXT + 1024)?;
    if block.get(56..58)? != b"\x53\xef" {
        return None;
    }
    let label = block.get(120..136)?.split(|byte| *byte == 0).next()?;
    let uuid = Guid(*block.get(104..)?.first_chunk()?);
    // A clean table of features says that it is one: revision 0 has neither UUID nor label.
    (gpt::u32_at(block, 76)? > 0)
        .then(|| Ext { uuid: uuid.to_string(), label: String::from_utf8_lossy(label).into_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 8 << 20;

    fn disk(content: &[(u64, &[u8])]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(SIZE).unwrap();
        for (at, bytes) in content {
            file.write_all_at(bytes, *at).unwrap();
        }
        file
    }

    #[test]
    fn zeros_are_nothing_and_all_else_is_something() {
        assert_eq!(content(&disk(&[]), SIZE, 512).unwrap(), Content::Nothing);
        for (at, bytes, what) in SIGNATURES {
            assert_eq!(content(&disk(&[(at as u64, bytes)]), SIZE, 512).unwrap(), Content::Foreign(what));
        }
        for at in [0, 1000, SIZE - 1, SIZE / SAMPLES * 7] {
            let found = content(&disk(&[(at, b"x")]), SIZE, 512).unwrap();
            assert!(matches!(found, Content::Foreign(what) if what.starts_with("data")), "{at}");
        }
        assert_eq!(
            content(&disk(&[(MARK_AT, MARK), (1 << 22, b"x")]), SIZE, 512).unwrap(),
            Content::Unfinished
        );
        assert_eq!(content(&tempfile::tempfile().unwrap(), 0, 512).unwrap(), Content::Nothing);
    }
}
