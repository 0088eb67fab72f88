//! What the kernel knows of a disk's partitions.

use std::ffi::{c_int, c_longlong};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

use super::layout::Place;

nix::ioctl_none!(
    /// `BLKRRPART` of linux/fs.h.
    blkrrpart,
    0x12,
    95
);
nix::ioctl_write_ptr_bad!(
    /// `BLKPG` of linux/blkpg.h.
    blkpg,
    nix::request_code_none!(0x12, 105),
    Request
);

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
struct Request {
    operation: c_int,
    flags: c_int,
    length: c_int,
    partition: *const Partition,
}

/// `struct blkpg_partition` of linux/blkpg.h; places in bytes.
#[repr(C)]
struct Partition {
    start: c_longlong,
    length: c_longlong,
    number: c_int,
    names: [u8; 128],
}

/// `BLKPG_ADD_PARTITION`.
const ADD: c_int = 1;

/// Makes the kernel forget the partitions of `disk` and find them anew; their nodes are there when this returns.
#[expect(unsafe_code, reason = "no crate that is in use speaks this request")]
pub(super) fn reread(disk: &File) -> io::Result<()> {
    // SAFETY: the request takes no argument, and `disk` is open while it is borrowed.
    match unsafe { blkrrpart(disk.as_raw_fd()) } {
        // A device that has no partitions, as loop devices unless they are told to.
        Ok(_) | Err(Errno::EINVAL) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Tells the kernel that `disk` has the partition `number` at `place`, whatever its table says; its node is there when this
/// returns.
#[expect(unsafe_code, reason = "no crate that is in use speaks this request")]
pub(super) fn add(disk: &File, number: c_int, place: Place) -> io::Result<()> {
    let bytes = |bytes: u64| c_longlong::try_from(bytes).map_err(|_| io::ErrorKind::InvalidInput);
    let partition =
        Partition { start: bytes(place.start)?, length: bytes(place.length)?, number, names: [0; 128] };
    let length = c_int::try_from(size_of::<Partition>()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let request = Request { operation: ADD, flags: 0, length, partition: &raw const partition };
    // SAFETY: both structures have the kernel's layout, live through the call and are only read.
    unsafe { blkpg(disk.as_raw_fd(), &raw const request) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernel_s_layout() {
        assert_eq!((size_of::<Request>(), align_of::<Request>()), (24, 8));
        // Eight bytes twice, four, two names of 64, and what aligns it.
        assert_eq!((size_of::<Partition>(), align_of::<Partition>()), (152, 8));
    }
}
