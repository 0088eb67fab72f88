//! Makes the kernel read a partition table again.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;

nix::ioctl_none!(
    /// `BLKRRPART` of linux/fs.h.
    blkrrpart,
    0x12,
    95
);

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
