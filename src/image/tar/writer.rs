//! Makes members of a tar: ustar headers, with pax headers before them for what does not fit.

use super::BLOCK;
use super::header::Kind;
use super::pax::{record, without_place};

/// What ends an archive.
pub(in crate::image) const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

/// Zeros that follow `size` stored bytes.
pub(in crate::image) fn padding(size: u64) -> &'static [u8] {
    let length = usize::try_from(size.wrapping_neg() % BLOCK as u64).unwrap_or(0);
    END.get(..length).unwrap_or_default()
}

/// A member to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::image) struct NewMember<'a> {
    pub(in crate::image) path: &'a [u8],
    pub(in crate::image) kind: Kind,
    /// Permission bits.
    pub(in crate::image) mode: u32,
    pub(in crate::image) uid: u32,
    pub(in crate::image) gid: u32,
    pub(in crate::image) size: u64,
    /// Seconds since 1970.
    pub(in crate::image) mtime: i64,
    /// Target of a link.
    pub(in crate::image) link: &'a [u8],
    /// Major and minor number of a device.
    pub(in crate::image) device: (u64, u64),
    /// Extended attributes, name and value.
    pub(in crate::image) xattrs: &'a [(Vec<u8>, Vec<u8>)],
}

impl<'a> NewMember<'a> {
    /// A member of root's, without content, time or attributes.
    pub(in crate::image) fn plain(path: &'a [u8], kind: Kind, mode: u32) -> Self {
        Self { path, kind, mode, uid: 0, gid: 0, size: 0, mtime: 0, link: &[], device: (0, 0), xattrs: &[] }
    }

    /// The header blocks, which the content follows.
    pub(in crate::image) fn header(&self) -> Vec<u8> {
        let mut records = Vec::new();
        let mut path = self.path.to_vec();
        if self.kind == Kind::Directory {
            path.push(b'/');
        }
        let fields = [
            field(&mut records, b"mode", 8, i64::from(self.mode & 0o7777)),
            field(&mut records, b"uid", 8, i64::from(self.uid)),
            field(&mut records, b"gid", 8, i64::from(self.gid)),
            field(&mut records, b"size", 12, i64::try_from(self.size).unwrap_or(i64::MAX)),
            field(&mut records, b"mtime", 12, self.mtime),
        ];
        let name = text(&mut records, b"path", &path);
        let link = text(&mut records, b"linkpath", self.link);
        for (key, value) in self.xattrs {
            records.extend(record(&[b"SCHILY.xattr.", key.as_slice()].concat(), value));
        }
        let major = field(&mut records, b"SCHILY.devmajor", 8, i64::try_from(self.device.0).unwrap_or(0));
        let minor = field(&mut records, b"SCHILY.devminor", 8, i64::try_from(self.device.1).unwrap_or(0));

        let mut header = name;
        header.extend(fields.concat());
        header.extend_from_slice(b"        ");
        header.push(self.kind.flag());
        header.extend(link);
        header.extend_from_slice(b"ustar\x0000");
        header.extend([0; 64]);
        header.extend(major);
        header.extend(minor);
        header.resize(BLOCK, 0);
        seal(&mut header);

        let mut blocks = if records.is_empty() { Vec::new() } else { extended(&records) };
        blocks.extend(header);
        blocks
    }
}

/// The header blocks of a member at `path` that leads to `link` and has `size` bytes; all else is as the header `own` and the
/// `records` that precede it say.
pub(super) fn moved(own: &[u8], records: &[u8], path: &[u8], link: &[u8], size: u64) -> Vec<u8> {
    let mut records = without_place(records);
    let mut header = own.get(..BLOCK).unwrap_or(own).to_vec();
    let mut name = path.to_vec();
    let kind = header.get(156).copied();
    if kind == Some(Kind::Directory.flag()) {
        name.push(b'/');
    }
    // What follows a header of GNU's own is the rest of it, above all the map of a sparse file.
    let kind = if kind == Some(b'S') { Kind::File.flag() } else { kind.unwrap_or(0) };
    let is_posix = header.get(257..263) == Some(b"ustar\0".as_slice());
    let rest = if is_posix { 345..500 } else { 345..BLOCK };
    let fields = [
        (0..100, text(&mut records, b"path", &name)),
        (124..136, field(&mut records, b"size", 12, i64::try_from(size).unwrap_or(i64::MAX))),
        (148..156, vec![b' '; 8]),
        (156..157, vec![kind]),
        (157..257, text(&mut records, b"linkpath", link)),
        (rest.clone(), vec![0; rest.len()]),
    ];
    for (place, bytes) in fields {
        if let Some(place) = header.get_mut(place) {
            place.copy_from_slice(&bytes);
        }
    }
    seal(&mut header);
    let mut blocks = if records.is_empty() { Vec::new() } else { extended(&records) };
    blocks.extend(header);
    blocks
}

/// A pax header with `records`.
fn extended(records: &[u8]) -> Vec<u8> {
    let mut header = b"pax".to_vec();
    header.resize(100, 0);
    header.extend_from_slice(b"0000644\x000000000\x000000000\x00");
    header.extend(octal(12, records.len() as u64).unwrap_or_default());
    header.extend_from_slice(b"00000000000\0        x");
    header.resize(257, 0);
    header.extend_from_slice(b"ustar\x0000");
    header.resize(BLOCK, 0);
    seal(&mut header);
    header.extend_from_slice(records);
    header.extend_from_slice(padding(records.len() as u64));
    header
}

/// Puts the check sum in its place.
fn seal(header: &mut [u8]) {
    let sum: u64 = header.iter().map(|&byte| u64::from(byte)).sum();
    let digits = format!("{sum:06o}\0 ");
    if let Some(place) = header.get_mut(148..156) {
        place.copy_from_slice(digits.as_bytes());
    }
}

/// `value` in a field of `width` bytes, or a record if it does not fit.
fn field(records: &mut Vec<u8>, key: &[u8], width: usize, value: i64) -> Vec<u8> {
    let fitting = u64::try_from(value).ok().and_then(|value| octal(width, value));
    fitting.unwrap_or_else(|| {
        records.extend(record(key, value.to_string().as_bytes()));
        octal(width, 0).unwrap_or_default()
    })
}

/// Octal digits with a NUL after them, if that fits.
fn octal(width: usize, value: u64) -> Option<Vec<u8>> {
    let digits = format!("{value:0digits$o}\0", digits = width - 1);
    (digits.len() == width).then(|| digits.into_bytes())
}

/// `value` in a field of 100 bytes, or a record if it does not fit.
fn text(records: &mut Vec<u8>, key: &[u8], value: &[u8]) -> Vec<u8> {
    if value.len() > 100 {
        records.extend(record(key, value));
    }
    let mut place = value.get(..100).unwrap_or(value).to_vec();
    place.resize(100, 0);
    place
}
