//! Empty file-systems, ready to be written to a device and grown to its size.
//!
//! The first stage makes no file-system itself and carries no tool for it: what `mkfs` writes to a small device is kept
//! here, block by block, without what is zero. Written to a device that reads as zeroes it is that file-system;
//! mounted, the kernel grows it to the device's size. `tests::make` makes the files anew.
//!
//! Both have 4096-byte blocks and only features that kernels since 4.16 know.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Bytes of a block, in either file-system.
const BLOCK: usize = 4096;

/// Number of the block, little-endian, and its bytes.
const RECORD: usize = 4 + BLOCK;

/// An empty file-system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Empty {
    /// Two groups of 64 MiB, a log of 16 MiB, no limit on inodes.
    Xfs,
    /// One group of up to 128 MiB, an inode for each block, no journal.
    Ext4,
}

impl Empty {
    /// The kernel's name for it, which is that of its module.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Xfs => "xfs",
            Self::Ext4 => "ext4",
        }
    }

    /// What it is mounted with: what is deleted is told to the device.
    pub(super) fn options(self) -> &'static str {
        "discard"
    }

    /// Bytes of the smallest device that it fits on.
    pub(super) fn least(self) -> u64 {
        match self {
            Self::Xfs => 128 << 20,
            Self::Ext4 => 64 << 20,
        }
    }

    fn packed(self) -> &'static [u8] {
        match self {
            Self::Xfs => include_bytes!("empty-xfs.zst"),
            Self::Ext4 => include_bytes!("empty-ext4.zst"),
        }
    }

    /// Writes it to the device at `node`, which must read as zeroes.
    pub(super) fn write(self, node: &Path) -> io::Result<()> {
        let device = OpenOptions::new().write(true).open(node)?;
        self.for_each_block(|number, block| device.write_all_at(block, u64::from(number) * BLOCK as u64))
    }

    fn for_each_block(self, mut take: impl FnMut(u32, &[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut blocks = zstd::Decoder::with_buffer(self.packed())?;
        let mut record = [0; RECORD];
        loop {
            match blocks.read_exact(&mut record) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Err(error) => return Err(error),
            }
            let (number, block) = record.split_first_chunk().ok_or(io::ErrorKind::InvalidData)?;
            take(u32::from_le_bytes(*number), block)?;
        }
    }

    /// Makes it, mounted on `target`, as large as `bytes`.
    pub(super) fn grow(self, target: &Path, bytes: u64) -> io::Result<()> {
        let blocks = bytes / BLOCK as u64;
        if bytes <= self.least() {
            return Ok(());
        }
        let directory = File::open(target)?;
        match self {
            Self::Xfs => grow_xfs(&directory, blocks),
            Self::Ext4 => grow_ext4(&directory, blocks),
        }
    }
}

/// `struct xfs_growfs_data` of linux/fs/xfs/libxfs/xfs_fs.h.
#[repr(C)]
struct XfsGrowth {
    blocks: u64,
    /// The most that inodes may take, in percent; 0: no limit.
    inode_percent: u32,
}

nix::ioctl_write_ptr!(
    /// Grows the data section of a mounted XFS.
    xfs_grow_data,
    b'X',
    110,
    XfsGrowth
);
nix::ioctl_write_ptr!(
    /// Grows a mounted ext4 to a number of blocks.
    ext4_resize,
    b'f',
    16,
    u64
);

#[expect(unsafe_code, reason = "no crate speaks this file-system's requests")]
fn grow_xfs(directory: &File, blocks: u64) -> io::Result<()> {
    let growth = XfsGrowth { blocks, inode_percent: 0 };
    // SAFETY: `growth` has the layout of the kernel's structure, lives through the call and is only read.
    unsafe { xfs_grow_data(directory.as_raw_fd(), &raw const growth) }?;
    Ok(())
}

#[expect(unsafe_code, reason = "no crate speaks this file-system's requests")]
fn grow_ext4(directory: &File, blocks: u64) -> io::Result<()> {
    // SAFETY: the kernel reads one number, which lives through the call.
    unsafe { ext4_resize(directory.as_raw_fd(), &raw const blocks) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Reads block `wanted` of an empty file-system.
    fn block(empty: Empty, wanted: u32) -> Option<Vec<u8>> {
        let mut found = None;
        let look = |number, block: &[u8]| {
            found = (number == wanted).then(|| block.to_vec()).or(found.take());
            Ok(())
        };
        empty.for_each_block(look).unwrap();
        found
    }

    #[test]
    fn they_are_what_they_say() {
        assert_eq!(size_of::<XfsGrowth>(), 16);
        let xfs = block(Empty::Xfs, 0).unwrap();
        assert_eq!(&xfs[..4], b"XFSB");
        let number = |at: usize| u32::from_be_bytes(xfs[at..at + 4].try_into().unwrap());
        assert_eq!(number(4), 4096, "bytes of a block");
        assert_eq!(u64::from(number(12)) * 4096, Empty::Xfs.least());
        let ext4 = block(Empty::Ext4, 0).unwrap();
        let number = |at: usize| u32::from_le_bytes(ext4[1024 + at..1024 + at + 4].try_into().unwrap());
        assert_eq!(ext4[1024 + 56..1024 + 58], [0x53, 0xef], "magic");
        assert_eq!((u64::from(number(4)) * 4096, number(24)), (Empty::Ext4.least(), 2));
        assert_eq!(number(32), number(40), "an inode for each block of a group");
    }

    #[test]
    fn all_blocks_lie_within() {
        for empty in [Empty::Xfs, Empty::Ext4] {
            let mut count = 0;
            let check = |number, block: &[u8]| {
                count += 1;
                assert!(u64::from(number) * 4096 < empty.least());
                assert!(block.iter().any(|byte| *byte != 0));
                Ok(())
            };
            empty.for_each_block(check).unwrap();
            assert!((5..200).contains(&count), "{empty:?}: {count}");
        }
    }

    #[test]
    #[ignore = "writes into the source: makes the empty file-systems anew with mkfs.xfs and mke2fs"]
    fn make() {
        let dir = tempfile::tempdir().unwrap();
        for (empty, program, options) in [(Empty::Xfs, "mkfs.xfs", XFS), (Empty::Ext4, "mke2fs", EXT4)] {
            let image = dir.path().join(empty.name());
            File::create(&image).unwrap().set_len(empty.least()).unwrap();
            let mut command = Command::new(program);
            command.args(options.split_whitespace()).arg(&image).env("E2FSPROGS_FAKE_TIME", "1");
            assert!(command.status().unwrap().success());
            let mut records = Vec::new();
            for (number, block) in (0_u32..).zip(std::fs::read(&image).unwrap().chunks(BLOCK)) {
                if block.iter().any(|byte| *byte != 0) {
                    records.extend(number.to_le_bytes());
                    records.extend(block);
                }
            }
            let packed = zstd::encode_all(records.as_slice(), 19).unwrap();
            let path = format!("{}/src/stage/root/empty-{}.zst", env!("CARGO_MANIFEST_DIR"), empty.name());
            std::fs::write(path, packed).unwrap();
        }
    }

    const XFS: &str = "-q --unsupported -m uuid=626f6f74-6661-6272-6963-000000000001,crc=1,finobt=1,rmapbt=0,reflink=0 \
                       -m bigtime=0,inobtcount=0 -i sparse=1,nrext64=0 -n ftype=1 -d agcount=2 -l size=16m -s size=4096";
    const EXT4: &str = "-q -F -b 4096 -I 256 -N 32768 -m 0 -E resize=16777216,lazy_itable_init=0 -U 626f6f74-6661-6272-6963-000000000002 \
                        -O none,ext_attr,resize_inode,dir_index,filetype,extent,flex_bg,sparse_super,large_file,huge_file,dir_nlink,extra_isize";
}
