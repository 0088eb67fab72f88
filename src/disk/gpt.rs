//! The partition table: GUID partition tables as UEFI defines them (specification 2.10, section 5.3), written and read.
//!
//! Owns the bytes of the table and of the protective record in block 0. What the partitions are for is
//! [`super::layout`]'s; nothing here writes to a device by itself.

use std::io;

/// Entries of the table: the least that the specification allows.
const ENTRIES: usize = 128;
/// Bytes of an entry.
const ENTRY: usize = 128;
/// Bytes of the header that its checksum covers.
const HEADER: usize = 92;
/// What a header begins with.
const SIGNATURE: &[u8; 8] = b"EFI PART";
/// Bytes of boot code in block 0, before the identifier and the four records of the old table.
pub(super) const BOOT_CODE: usize = 440;
/// Most units of a name.
const NAME: usize = 36;

/// A GUID, in the order in which it is written in text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Guid(pub(super) [u8; 16]);

impl Guid {
    /// A new random one (RFC 9562, section 5.4).
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes)?;
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Ok(Self(bytes))
    }

    /// On a disk the first three fields are little-endian.
    fn on_disk(self) -> [u8; 16] {
        let [a, b, c, d, e, f, g, h, rest @ ..] = self.0;
        let [i, j, k, l, m, n, o, p] = rest;
        [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
    }
}

impl std::fmt::Display for Guid {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let dash = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

/// One partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    /// What it is for.
    pub(super) kind: Guid,
    /// Its own identity.
    pub(super) id: Guid,
    /// First byte.
    pub(super) start: u64,
    /// Bytes.
    pub(super) length: u64,
    /// At most 36 characters.
    pub(super) name: String,
}

/// A disk's table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Table {
    /// Identity of the disk.
    pub(super) id: Guid,
    /// Partitions, in the order of their numbers.
    pub(super) partitions: Vec<Partition>,
}

/// Where bytes of a table go.
#[derive(Debug)]
pub(super) struct Piece {
    /// Byte on the disk.
    pub(super) at: u64,
    /// What goes there.
    pub(super) bytes: Vec<u8>,
}

/// Bytes before the first partition that a table takes on a disk with blocks of `block` bytes: block 0, header, entries.
pub(super) fn head(block: u64) -> u64 {
    2 * block + entries_length(block)
}

/// Bytes that the second copy takes at the disk's end.
pub(super) fn tail(block: u64) -> u64 {
    block + entries_length(block)
}

fn entries_length(block: u64) -> u64 {
    ((ENTRIES * ENTRY) as u64).next_multiple_of(block)
}

impl Table {
    /// The pieces of the table on a disk of `size` bytes in blocks of `block` bytes: the second copy first, so that a first
    /// copy always has a second one. `boot_code` is what a BIOS executes, up to 440 bytes.
    pub(super) fn pieces(&self, size: u64, block: u64, boot_code: &[u8]) -> Vec<Piece> {
        let last = size / block - 1;
        let length = entries_length(block);
        let entries = self.entries(block);
        let header = |own: u64, other: u64, table: u64| self.header(own, other, table, last, block, &entries);
        let (first_table, second_table) = (2, last - length / block);
        let mut padded = entries.clone();
        padded.resize(usize::try_from(length).unwrap_or(entries.len()), 0);
        let piece = |at: u64, bytes: Vec<u8>| Piece { at: at * block, bytes };
        vec![
            piece(second_table, padded.clone()),
            piece(last, header(last, 1, second_table)),
            piece(first_table, padded),
            piece(1, header(1, last, first_table)),
            piece(0, protective(last, block, boot_code)),
        ]
    }

    fn entries(&self, block: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(ENTRIES * ENTRY);
        for partition in self.partitions.iter().take(ENTRIES) {
            bytes.extend(partition.kind.on_disk());
            bytes.extend(partition.id.on_disk());
            bytes.extend((partition.start / block).to_le_bytes());
            bytes.extend(((partition.start + partition.length) / block - 1).to_le_bytes());
            bytes.extend(0_u64.to_le_bytes());
            let name = partition.name.encode_utf16().chain(std::iter::repeat(0)).take(NAME);
            bytes.extend(name.flat_map(u16::to_le_bytes));
        }
        bytes.resize(ENTRIES * ENTRY, 0);
        bytes
    }

    fn header(&self, own: u64, other: u64, table: u64, last: u64, block: u64, entries: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER);
        bytes.extend(SIGNATURE);
        bytes.extend(0x0001_0000_u32.to_le_bytes());
        bytes.extend((HEADER as u32).to_le_bytes());
        // The checksum, made when the rest is there, and a reserved field.
        bytes.extend([0; 8]);
        for field in [own, other, head(block) / block, last - tail(block) / block] {
            bytes.extend(field.to_le_bytes());
        }
        bytes.extend(self.id.on_disk());
        bytes.extend(table.to_le_bytes());
        bytes.extend((ENTRIES as u32).to_le_bytes());
        bytes.extend((ENTRY as u32).to_le_bytes());
        bytes.extend(crc32(entries).to_le_bytes());
        let sum = crc32(&bytes);
        put(&mut bytes, 16, &sum.to_le_bytes());
        bytes.resize(usize::try_from(block).unwrap_or(HEADER), 0);
        bytes
    }

    /// Reads the first copy of a table from the beginning of a disk ([`head`] bytes at least); `None` if there is none that
    /// is whole. Tables with other sizes of entries than usual are not read.
    pub(super) fn read(disk: &[u8], block: u64) -> Option<Self> {
        let at = usize::try_from(block).ok()?;
        let header = disk.get(at..at + HEADER)?;
        if header.get(..8)? != SIGNATURE || u32_at(header, 12)? as usize != HEADER {
            return None;
        }
        let mut summed = header.to_vec();
        put(&mut summed, 16, &[0; 4]);
        if u32_at(header, 16)? != crc32(&summed) {
            return None;
        }
        let usual = u32_at(header, 80)? as usize == ENTRIES && u32_at(header, 84)? as usize == ENTRY;
        let table = usize::try_from(u64_at(header, 72)?.checked_mul(block)?).ok()?;
        let entries = disk.get(table..table.checked_add(ENTRIES * ENTRY)?)?;
        if !usual || crc32(entries) != u32_at(header, 88)? {
            return None;
        }
        let partitions =
            entries.chunks_exact(ENTRY).filter(|entry| entry.iter().take(16).any(|byte| *byte != 0));
        Some(Self {
            id: guid_at(header, 56)?,
            partitions: partitions.map(|entry| partition(entry, block)).collect::<Option<_>>()?,
        })
    }
}

fn partition(entry: &[u8], block: u64) -> Option<Partition> {
    let (first, last) = (u64_at(entry, 32)?, u64_at(entry, 40)?);
    let units = entry
        .get(56..)?
        .chunks_exact(2)
        .map(|pair| pair.iter().rev().fold(0, |unit, byte| unit << 8 | u16::from(*byte)));
    let name: Vec<u16> = units.take_while(|unit| *unit != 0).collect();
    Some(Partition {
        kind: guid_at(entry, 0)?,
        id: guid_at(entry, 16)?,
        start: first.checked_mul(block)?,
        length: last.checked_sub(first)?.checked_add(1)?.checked_mul(block)?,
        name: String::from_utf16_lossy(&name),
    })
}

/// Block 0: programs that know nothing of the table see one partition over all of the disk.
fn protective(last: u64, block: u64, boot_code: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(block).unwrap_or(512)];
    put(&mut bytes, 0, boot_code.get(..BOOT_CODE).unwrap_or(boot_code));
    let blocks = u32::try_from(last).unwrap_or(u32::MAX);
    // The record: not active, begins at cylinder 0, head 0, sector 2; of type 0xee; ends beyond what can be said.
    put(&mut bytes, 446, &[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0]);
    put(&mut bytes, 458, &blocks.to_le_bytes());
    put(&mut bytes, 510, &[0x55, 0xaa]);
    bytes
}

fn put(bytes: &mut [u8], at: usize, content: &[u8]) {
    for (to, from) in bytes.iter_mut().skip(at).zip(content) {
        *to = *from;
    }
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn guid_at(bytes: &[u8], at: usize) -> Option<Guid> {
    // Turning the fields around is its own inverse.
    Some(Guid(Guid(*bytes.get(at..)?.first_chunk()?).on_disk()))
}

/// CRC-32 as of ISO 3309 (the one of Ethernet and gzip), bit by bit: it sums a few KiB.
fn crc32(bytes: &[u8]) -> u32 {
    let step = |sum: u32, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 };
    !bytes.iter().fold(!0, |sum, byte| (0..8).fold(sum ^ u32::from(*byte), step))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table() -> Table {
        let guid = |last: u8| Guid([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, last]);
        let partition = |number: u8, name: &str| Partition {
            kind: guid(number),
            id: guid(100 + number),
            start: u64::from(number) << 20,
            length: 1 << 20,
            name: name.into(),
        };
        Table {
            id: guid(0),
            partitions: vec![partition(1, "first"), partition(2, "bootfabric root 0123456789abcdef")],
        }
    }

    fn disk(table: &Table, size: u64, block: u64) -> Vec<u8> {
        let mut disk = vec![0; usize::try_from(size).unwrap()];
        for piece in table.pieces(size, block, &[0x90; 600]) {
            put(&mut disk, usize::try_from(piece.at).unwrap(), &piece.bytes);
        }
        disk
    }

    #[test]
    fn what_is_written_is_read_with_blocks_of_either_size() {
        for block in [512, 4096] {
            let disk = disk(&table(), 8 << 20, block);
            assert_eq!(Table::read(&disk, block), Some(table()));
            assert_eq!(Table::read(&disk, 512 + 4096 - block), None);
            assert_eq!((disk[439], disk[440], disk[450]), (0x90, 0, 0xee));
        }
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    /// Another program's view: `sfdisk --verify` reads both copies and compares.
    #[test]
    fn sfdisk_finds_nothing_wrong() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), disk(&table(), 8 << 20, 512)).unwrap();
        let run = |argument: &str| {
            let output = std::process::Command::new("/usr/sbin/sfdisk")
                .arg(argument)
                .arg(file.path())
                .output()
                .unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
        };
        assert!(run("--verify").contains("No errors detected"));
        let dump = run("--dump");
        assert!(dump.contains("label-id: 01020304-0506-0708-090A-0B0C0D0E0F00"), "{dump}");
        assert!(dump.contains("start=        4096, size=        2048"), "{dump}");
        assert!(dump.contains("name=\"bootfabric root 0123456789abcdef\""), "{dump}");
    }

    proptest! {
        #[test]
        fn damage_is_seen_and_never_panics(at in 512_usize..17 << 10, value in any::<u8>()) {
            let mut disk = disk(&table(), 1 << 20, 512);
            prop_assume!(disk[at] != value && !(512 + HEADER..1024).contains(&at));
            disk[at] = value;
            prop_assert_eq!(Table::read(&disk, 512), None);
        }
    }
}
