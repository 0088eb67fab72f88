//! The bytes of one transfer, read in pieces ahead of the window and laid out as the packets in which they leave.
//!
//! Holds the pieces that the window touches and at most one more, which is read while the window is on the wire. What the
//! page cache has is copied at once (`RWF_NOWAIT`), for a hand-over to another thread costs more than the copy. What would
//! wait for a disk is read on the blocking pool, never on the runtime's thread.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::{IoSliceMut, ReadWriteFlags, preadv2};
use tokio::io::AsyncReadExt;
use tokio_util::task::AbortOnDropHandle;

use super::packet::{DATA_HEADER, data_header};
use crate::files::{FileBody, FileError, Slice};

/// Bytes read at once, rounded down to whole blocks: large enough that a hand-over to the blocking pool is noise,
/// small enough that 256 transfers hold 64 MiB at most in the usual case.
const PIECE: u64 = 128 * 1024;

/// Blocks of a piece at most, however small they are: what one call reads into (`IOV_MAX` is 1024).
const MAX_BLOCKS: u64 = 512;

/// Longest wait for one piece: a relay that is slower than this is no help to firmware, which gives up before.
const READ_DEADLINE: Duration = Duration::from_secs(20);

type Reading = AbortOnDropHandle<Result<Bytes, FileError>>;

/// Consecutive DATA packets, ready to be sent.
struct Piece {
    index: u64,
    packets: Vec<u8>,
}

pub(super) struct Reader {
    body: Arc<dyn FileBody>,
    len: u64,
    blksize: u64,
    last: u64,
    blocks_per_piece: u64,
    /// Consecutive pieces.
    held: VecDeque<Piece>,
    ahead: Option<(u64, Reading)>,
    /// The last piece had to be waited for, so the next one is asked for ahead.
    slow: bool,
    /// Memory of a piece that is used again.
    spare: Vec<u8>,
}

impl Reader {
    pub(super) fn new(body: Arc<dyn FileBody>, blksize: u16) -> Self {
        let blksize = u64::from(blksize).max(1);
        let len = body.len();
        Self {
            len,
            body,
            blksize,
            last: len / blksize + 1,
            blocks_per_piece: (PIECE / blksize).clamp(1, MAX_BLOCKS),
            held: VecDeque::new(),
            ahead: None,
            slow: false,
            spare: Vec::new(),
        }
    }

    /// Bytes of a full packet.
    pub(super) fn packet_len(&self) -> usize {
        self.blksize as usize + DATA_HEADER
    }

    /// Whether `blocks` are available already.
    pub(super) fn holds(&self, blocks: &RangeInclusive<u64>) -> bool {
        let (first, last) = (self.piece_of(*blocks.start()), self.piece_of(*blocks.end()));
        let held = self.held.front().zip(self.held.back());
        held.is_some_and(|(front, back)| front.index <= first && last <= back.index)
    }

    /// Makes `blocks` available to [`Self::packets`], and forgets those before them. Begins to read what follows if
    /// that takes time. Cancelling it loses nothing.
    pub(super) async fn load(&mut self, blocks: &RangeInclusive<u64>) -> Result<(), FileError> {
        let first = self.piece_of(*blocks.start());
        let last = self.piece_of(*blocks.end());
        while let Some(piece) = self.held.pop_front_if(|piece| piece.index < first) {
            self.spare = piece.packets;
        }
        let missing = self.held.back().map_or(first, |piece| piece.index + 1);
        for index in missing..=last {
            let packets = self.take(index).await?;
            self.held.push_back(Piece { index, packets });
        }
        let next = last + 1;
        if self.slow && self.ahead.is_none() && !self.range_of(next).is_empty() {
            let (body, range) = (Arc::clone(&self.body), self.range_of(next));
            let read = async move {
                let length = length_of(&range)?;
                read(body.slice(range).await?, length).await
            };
            self.ahead = Some((next, AbortOnDropHandle::new(tokio::spawn(read))));
        }
        Ok(())
    }

    /// The packets of `blocks`, which were loaded last, in runs that lie together in memory. All packets but the file's
    /// last have [`Self::packet_len`] bytes.
    pub(super) fn packets(&self, blocks: RangeInclusive<u64>) -> impl Iterator<Item = &[u8]> {
        let stride = self.packet_len();
        self.held.iter().filter_map(move |piece| {
            let before = piece.index * self.blocks_per_piece;
            // Within a piece, so they fit a usize.
            let skip = (*blocks.start()).saturating_sub(before + 1) as usize * stride;
            let end = (*blocks.end()).saturating_sub(before) as usize * stride;
            piece.packets.get(skip..end.min(piece.packets.len())).filter(|packets| !packets.is_empty())
        })
    }

    fn piece_of(&self, block: u64) -> u64 {
        block.saturating_sub(1) / self.blocks_per_piece
    }

    fn range_of(&self, piece: u64) -> Range<u64> {
        let bytes = self.blocks_per_piece * self.blksize;
        let start = (piece * bytes).min(self.len);
        start..(start + bytes).min(self.len)
    }

    /// The packets of a piece.
    async fn take(&mut self, index: u64) -> Result<Vec<u8>, FileError> {
        let range = self.range_of(index);
        let length = length_of(&range)?;
        let task = match self.ahead.take_if(|(ahead, _)| *ahead == index) {
            Some((_, task)) => task,
            None if range.is_empty() => return Ok(self.empty_packets(index, 0)),
            None => {
                let source = self.body.slice(range).await?;
                if let Some(packets) = self.read_now(index, &source, length)? {
                    self.slow = false;
                    return Ok(packets);
                }
                self.slow = true;
                AbortOnDropHandle::new(tokio::spawn(read(source, length)))
            }
        };
        match tokio::time::timeout(READ_DEADLINE, task).await {
            Ok(Ok(bytes)) => Ok(self.laid_out(index, &bytes?)),
            Ok(Err(error)) => Err(FileError::Io(error.to_string())),
            Err(_) => Err(FileError::Io(format!("no bytes within {} s", READ_DEADLINE.as_secs()))),
        }
    }

    /// The packets of a piece, if all of `source` can be had without waiting.
    fn read_now(&mut self, index: u64, source: &Slice, length: usize) -> Result<Option<Vec<u8>>, FileError> {
        match source {
            Slice::Stream(_) => Ok(None),
            Slice::Bytes(bytes) => {
                checked(bytes.clone(), length).map(|bytes| Some(self.laid_out(index, &bytes)))
            }
            Slice::File { file, range } => {
                let mut packets = self.empty_packets(index, length);
                let mut payloads: Vec<_> =
                    payloads(&mut packets, self.packet_len()).map(IoSliceMut::new).collect();
                // Short where a part is not in the page cache, an error where the filesystem cannot tell.
                let read = preadv2(file, &mut payloads, range.start, ReadWriteFlags::NOWAIT);
                Ok((read == Ok(length)).then_some(packets))
            }
        }
    }

    fn laid_out(&mut self, index: u64, bytes: &[u8]) -> Vec<u8> {
        let mut packets = self.empty_packets(index, bytes.len());
        let blocks = bytes.chunks(self.packet_len() - DATA_HEADER);
        for (payload, block) in payloads(&mut packets, self.packet_len()).zip(blocks) {
            payload.copy_from_slice(block);
        }
        packets
    }

    /// The packets of a piece of `length` bytes, with their headers and any payload.
    fn empty_packets(&mut self, index: u64, length: usize) -> Vec<u8> {
        let before = index * self.blocks_per_piece;
        let blocks = before + 1..=self.last.min(before + self.blocks_per_piece);
        let mut packets = std::mem::take(&mut self.spare);
        packets.resize((blocks.end() - before) as usize * DATA_HEADER + length, 0);
        for (packet, block) in packets.chunks_mut(self.packet_len()).zip(blocks) {
            if let Some(header) = packet.first_chunk_mut() {
                *header = data_header(block);
            }
        }
        packets
    }
}

/// The payloads of `packets`.
fn payloads(packets: &mut [u8], packet_len: usize) -> impl Iterator<Item = &mut [u8]> {
    packets.chunks_mut(packet_len).filter_map(|packet| packet.get_mut(DATA_HEADER..))
}

fn length_of(range: &Range<u64>) -> Result<usize, FileError> {
    usize::try_from(range.end - range.start).map_err(|error| FileError::Io(error.to_string()))
}

fn checked(bytes: Bytes, length: usize) -> Result<Bytes, FileError> {
    match bytes.len() {
        len if len == length => Ok(bytes),
        len => Err(FileError::Io(format!("{len} bytes instead of {length}"))),
    }
}

/// All bytes of `source`: exactly `length`, or an error.
async fn read(source: Slice, length: usize) -> Result<Bytes, FileError> {
    let io_error = |error: std::io::Error| FileError::Io(error.to_string());
    match source {
        Slice::Bytes(bytes) => checked(bytes, length),
        Slice::File { file, range } => tokio::task::spawn_blocking(move || {
            let mut buffer = vec![0; length];
            file.read_exact_at(&mut buffer, range.start).map(|()| buffer.into())
        })
        .await
        .map_err(|error| FileError::Io(error.to_string()))?
        .map_err(io_error),
        Slice::Stream(mut stream) => {
            let mut buffer = vec![0; length];
            stream.read_exact(&mut buffer).await.map_err(io_error)?;
            Ok(buffer.into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::{DiskBody, MemoryBody};

    /// All packets of `body`, asked for in windows.
    async fn all(body: Arc<dyn FileBody>, blksize: u16, window: u64) -> Vec<Vec<u8>> {
        let mut reader = Reader::new(body, blksize);
        let stride = reader.packet_len();
        let mut packets = Vec::new();
        let mut next = 1;
        while next <= reader.last {
            let blocks = next..=reader.last.min(next + window - 1);
            next = blocks.end() + 1;
            reader.load(&blocks).await.unwrap();
            packets.extend(reader.packets(blocks).flat_map(|run| run.chunks(stride)).map(<[u8]>::to_vec));
        }
        packets
    }

    #[tokio::test]
    async fn files_become_packets_whatever_their_shape() {
        for (len, blksize, window) in [
            (0, 512, 4),
            (511, 512, 1),
            (512, 512, 4),
            (300_000, 1468, 16),
            (1468 * 89 * 2, 1468, 64),
            (1468 * 89 * 2, 1468, 1),
            (300_000, 65_464, 3),
            (5000, 8, 64),
        ] {
            let content: Vec<u8> = (0..len).map(|at| (at % 251) as u8).collect();
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&content, 0).unwrap();
            let disk: Arc<dyn FileBody> = Arc::new(DiskBody::new(Arc::new(file)).unwrap());
            let memory: Arc<dyn FileBody> = Arc::new(MemoryBody(content.clone().into()));
            for body in [disk, memory] {
                let packets = all(body, blksize, window).await;
                assert_eq!(packets.len(), len / usize::from(blksize) + 1);
                let headers = packets.iter().map(|packet| &packet[..DATA_HEADER]);
                assert!((1..).map(data_header).zip(headers).all(|(wanted, header)| wanted == header));
                let joined: Vec<u8> =
                    packets.iter().flat_map(|packet| &packet[DATA_HEADER..]).copied().collect();
                assert!(joined == content, "{len} bytes in blocks of {blksize}, windows of {window}");
            }
        }
    }
}
