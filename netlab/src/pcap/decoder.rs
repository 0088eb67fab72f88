//! The classic pcap file format (draft-ietf-opsawg-pcap), in pieces as they come.

use std::time::Duration;

/// Longest captured frame that is believed; libpcap's own limit is the same.
const MAX_CAPTURED: u32 = 256 * 1024;

const FILE_HEADER: usize = 24;
const RECORD_HEADER: usize = 16;

/// LINKTYPE_ETHERNET.
const ETHERNET: u32 = 1;

/// Why a file is no usable capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PcapError {
    /// The first bytes are not those of a pcap file.
    #[error("it is not a pcap file: it starts with {0:#010x}")]
    Magic(u32),
    /// Frames of another kind than Ethernet.
    #[error("its frames are not Ethernet but of link type {0}")]
    LinkType(u32),
    /// A record that cannot be.
    #[error("record {number} claims {captured} captured bytes: the file is damaged from there on")]
    Length {
        /// Counted from 0.
        number: u64,
        /// What it claims.
        captured: u32,
    },
}

/// One captured frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Time since 1970.
    pub time: Duration,
    /// Its length on the wire.
    pub length: u32,
    /// The part that was kept.
    pub data: Vec<u8>,
}

/// What the first header says.
#[derive(Clone, Copy, Debug)]
struct Format {
    big_endian: bool,
    nanoseconds: bool,
}

/// Takes a pcap stream apart. What is incomplete waits for more: the end of a file that is still being written is no error.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// Bytes of `buffer` that are done with.
    done: usize,
    format: Option<Format>,
    records: u64,
}

impl Decoder {
    /// A decoder at the start of a file.
    #[must_use]
    pub fn new() -> Decoder {
        Decoder::default()
    }

    /// Adds the next bytes of the file.
    pub fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.done);
        self.done = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next record, or `None` until more bytes are fed.
    ///
    /// # Errors
    /// When the file is not a capture of Ethernet, or damaged. Further calls say the same.
    pub fn next_record(&mut self) -> Result<Option<Record>, PcapError> {
        let format = match self.format {
            Some(format) => format,
            None => match self.file_header()? {
                Some(format) => *self.format.insert(format),
                None => return Ok(None),
            },
        };
        let rest = self.buffer.get(self.done..).unwrap_or_default();
        let Some((header, rest)) = rest.split_at_checked(RECORD_HEADER) else { return Ok(None) };
        let field = |at| u32_at(header, at, format.big_endian);
        let (seconds, fraction, captured, length) = (field(0), field(4), field(8), field(12));
        if captured > MAX_CAPTURED {
            return Err(PcapError::Length { number: self.records, captured });
        }
        let Some(data) = usize::try_from(captured).ok().and_then(|captured| rest.get(..captured)) else {
            return Ok(None);
        };
        let fraction = u64::from(fraction) * if format.nanoseconds { 1 } else { 1000 };
        let time = Duration::from_secs(seconds.into()) + Duration::from_nanos(fraction);
        let record = Record { time, length, data: data.to_vec() };
        self.done += RECORD_HEADER + record.data.len();
        self.records += 1;
        Ok(Some(record))
    }

    fn file_header(&mut self) -> Result<Option<Format>, PcapError> {
        let Some(header) = self.buffer.get(..FILE_HEADER) else { return Ok(None) };
        let magic = u32_at(header, 0, true);
        let (big_endian, nanoseconds) = match magic {
            0xa1b2_c3d4 => (true, false),
            0xd4c3_b2a1 => (false, false),
            0xa1b2_3c4d => (true, true),
            0x4d3c_b2a1 => (false, true),
            other => return Err(PcapError::Magic(other)),
        };
        // The upper bits tell of checksums at the end of frames.
        let link_type = u32_at(header, 20, big_endian) & 0xffff;
        if link_type != ETHERNET {
            return Err(PcapError::LinkType(link_type));
        }
        self.done = FILE_HEADER;
        Ok(Some(Format { big_endian, nanoseconds }))
    }
}

/// Four bytes that the caller knows to be there.
fn u32_at(bytes: &[u8], at: usize, big_endian: bool) -> u32 {
    let four = bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().unwrap_or_default();
    if big_endian { u32::from_be_bytes(four) } else { u32::from_le_bytes(four) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A little-endian file with microseconds.
    pub(crate) fn file(frames: &[&[u8]]) -> Vec<u8> {
        let mut file = Vec::new();
        for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 262_144, ETHERNET] {
            file.extend(word.to_le_bytes());
        }
        for (number, frame) in (0_u32..).zip(frames) {
            let length = u32::try_from(frame.len()).unwrap();
            for word in [100 + number, 250_000, length, length] {
                file.extend(word.to_le_bytes());
            }
            file.extend_from_slice(frame);
        }
        file
    }

    fn all(decoder: &mut Decoder) -> Result<Vec<Record>, PcapError> {
        std::iter::from_fn(|| decoder.next_record().transpose()).take(1000).collect()
    }

    #[test]
    fn records_in_any_pieces() {
        let file = file(&[b"first", b"", b"third"]);
        let mut whole = Decoder::new();
        whole.feed(&file);
        let records = all(&mut whole).unwrap();
        assert_eq!(records.iter().map(|record| record.data.len()).collect::<Vec<_>>(), [5, 0, 5]);
        assert_eq!(records[0].time, Duration::from_millis(100_250));
        let mut pieces = Decoder::new();
        let mut found = Vec::new();
        for byte in file {
            pieces.feed(&[byte]);
            found.extend(all(&mut pieces).unwrap());
        }
        assert_eq!(found, records);
    }

    #[test]
    fn both_byte_orders_and_units() {
        let mut file = Vec::new();
        for word in [0xa1b2_3c4d_u32, 0x0002_0004, 0, 0, 65535, ETHERNET, 7, 9, 1, 60] {
            file.extend(word.to_be_bytes());
        }
        file.push(0xff);
        let mut decoder = Decoder::new();
        decoder.feed(&file);
        let record = Record { time: Duration::new(7, 9), length: 60, data: vec![0xff] };
        assert_eq!(decoder.next_record(), Ok(Some(record)));
        assert_eq!(decoder.next_record(), Ok(None));
    }

    #[test]
    fn other_files_are_refused() {
        let mut decoder = Decoder::new();
        decoder.feed(b"\x7fELF and then some more bytes");
        assert_eq!(decoder.next_record(), Err(PcapError::Magic(0x7f45_4c46)));
        let mut linux_cooked = file(&[]);
        linux_cooked[20] = 113;
        let mut decoder = Decoder::new();
        decoder.feed(&linux_cooked);
        assert_eq!(decoder.next_record(), Err(PcapError::LinkType(113)));
        let mut damaged = file(&[b"first"]);
        damaged[24 + 11] = 0xff;
        let mut decoder = Decoder::new();
        decoder.feed(&damaged);
        assert!(matches!(decoder.next_record(), Err(PcapError::Length { number: 0, .. })));
    }
}
