//! Extended attributes.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStringExt;

use super::metadata::{Cursor, Metadata, Reference, Tables};
use super::{NONE, SquashfsError, Superblock};

/// Bytes of an entry of the table of ids.
const ENTRY: u64 = 16;
/// The value is elsewhere, as several files have it.
const ELSEWHERE: u16 = 0x100;
/// Longest value (linux/limits.h, `XATTR_SIZE_MAX`).
const MAX_VALUE: u32 = 65536;
/// Most attributes of one file: all their names fit into `XATTR_LIST_MAX` (linux/limits.h).
const MAX_COUNT: u32 = 65536 / 2;

/// Names and values.
pub(super) type Attributes = Vec<(OsString, Vec<u8>)>;

/// All attributes.
#[derive(Debug, Default)]
pub(super) struct Xattrs {
    /// Place and number of each file's attributes.
    entries: Vec<(Reference, u32)>,
    pairs: Metadata,
}

impl Xattrs {
    /// Reads them.
    pub(super) fn read(superblock: &Superblock, tables: &Tables<'_>) -> Result<Self, SquashfsError> {
        if superblock.xattr_table == NONE {
            return Ok(Self::default());
        }
        let mut head = tables.at(superblock.xattr_table)?;
        let (start, count) = (head.u64()?, head.u32()?);
        let list = superblock.xattr_table.saturating_add(ENTRY);
        let bytes = tables.listed(list, count.into(), ENTRY)?;
        let mut at = Cursor::new(&bytes);
        let entries = (0..count).map(|_| {
            let entry = (Reference::from(at.u64()?), at.u32()?);
            at.skip(4)?;
            Ok(entry)
        });
        let entries = entries.collect::<Result<_, SquashfsError>>()?;
        // The pairs end where the first block of the table of ids begins.
        let end = if count == 0 { start } else { tables.at(list)?.u64()? };
        Ok(Self { entries, pairs: tables.metadata(start, end)? })
    }

    /// The attributes of the entry `number`, which may take `room` bytes of memory.
    pub(super) fn of(&self, number: u32, room: usize) -> Result<Attributes, SquashfsError> {
        let entry = self.entries.get(number as usize);
        let &(place, count) = entry.ok_or(SquashfsError::Damaged("attributes that are not there"))?;
        if count > MAX_COUNT {
            return Err(SquashfsError::Damaged("the number of attributes"));
        }
        let mut at = self.pairs.at(place)?;
        let mut left = room;
        let pairs = (0..count).map(|_| {
            let pair = self.pair(&mut at)?;
            left = left.checked_sub(bytes(&pair)).ok_or(SquashfsError::Damaged("the size of attributes"))?;
            Ok(pair)
        });
        pairs.collect()
    }

    fn pair(&self, at: &mut Cursor<'_>) -> Result<(OsString, Vec<u8>), SquashfsError> {
        let (kind, length) = (at.u16()?, at.u16()?);
        let prefix = match kind & 0xff {
            0 => "user.",
            1 => "trusted.",
            2 => "security.",
            _ => return Err(SquashfsError::Damaged("a kind of attribute that there is not")),
        };
        let mut name = OsStr::new(prefix).to_owned();
        name.push(OsString::from_vec(at.bytes(length.into())?.to_vec()));
        let own = value(at)?;
        if kind & ELSEWHERE == 0 {
            return Ok((name, own.to_vec()));
        }
        let place = Cursor::new(own).u64()?;
        let shared = value(&mut self.pairs.at(place.into())?)?.to_vec();
        Ok((name, shared))
    }
}

/// Bytes of memory that an attribute takes.
pub(super) fn bytes((name, value): &(OsString, Vec<u8>)) -> usize {
    size_of::<(OsString, Vec<u8>)>() + name.len() + value.len()
}

fn value<'a>(at: &mut Cursor<'a>) -> Result<&'a [u8], SquashfsError> {
    match at.u32()? {
        length @ 0..=MAX_VALUE => at.bytes(length as usize),
        _ => Err(SquashfsError::Damaged("the value of an attribute")),
    }
}
