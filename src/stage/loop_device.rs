//! A file as a block device: the loop driver's part that is needed to mount a blob.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A loop device cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum LoopError {
    /// The blob's file cannot be opened.
    #[error("cannot open {path}")]
    Blob {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The driver is not there.
    #[error("no loop driver (/dev/loop-control); the image must carry the module `loop`")]
    NoDriver(#[source] io::Error),
    /// The driver has no free device.
    #[error("no free loop device")]
    NoneFree(#[source] io::Error),
    /// The device's node does not appear.
    #[error("{path} does not appear")]
    NoNode {
        /// The node.
        path: PathBuf,
        /// Why it cannot be opened.
        #[source]
        source: io::Error,
    },
    /// The driver refuses the file.
    #[error("cannot make {path} a view of the blob (a kernel of 5.8 or later is needed)")]
    Configure {
        /// The device.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A read-only block device over a file. It goes by itself when it is neither open nor mounted any more.
#[derive(Debug)]
pub(super) struct LoopDevice {
    /// Its node.
    pub(super) path: PathBuf,
    /// It, open.
    pub(super) file: File,
}

/// `struct loop_info64` of linux/loop.h.
#[repr(C)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// `struct loop_config` of linux/loop.h.
#[repr(C)]
struct LoopConfig {
    fd: u32,
    /// 0: the default of 512 bytes.
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;

nix::ioctl_none_bad!(
    /// Number of a device that is free, made if necessary.
    loop_ctl_get_free,
    0x4c82
);
nix::ioctl_write_ptr_bad!(
    /// Puts a file behind a device.
    loop_configure,
    0x4c0a,
    LoopConfig
);

/// Attempts at a free device; another process may take it between asking and using.
const ATTEMPTS: u32 = 8;

/// How long a node may take to appear: devtmpfs makes it before the driver answers.
const NODE_DEADLINE: Duration = Duration::from_secs(5);

impl LoopDevice {
    /// Makes the file at `blob` a block device. Lets time pass in `pause` until its node is there.
    pub(super) fn attach(blob: &Path, mut pause: impl FnMut(Duration)) -> Result<Self, LoopError> {
        let file = File::open(blob).map_err(|source| LoopError::Blob { path: blob.to_owned(), source })?;
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control");
        let control = control.map_err(LoopError::NoDriver)?;
        for attempt in 1_u32.. {
            let number = get_free(control.as_raw_fd()).map_err(LoopError::NoneFree)?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = open_node(&path, &mut pause)?;
            match configure(device.as_raw_fd(), &file, blob) {
                Ok(()) => return Ok(Self { path, file: device }),
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy && attempt < ATTEMPTS => {}
                Err(source) => return Err(LoopError::Configure { path, source }),
            }
        }
        Err(LoopError::NoneFree(io::ErrorKind::ResourceBusy.into()))
    }
}

fn open_node(path: &Path, pause: &mut impl FnMut(Duration)) -> Result<File, LoopError> {
    /// Pause between two looks.
    const LOOK: Duration = Duration::from_millis(20);
    let mut waited = Duration::ZERO;
    loop {
        match File::open(path) {
            Ok(device) => return Ok(device),
            Err(source) if waited >= NODE_DEADLINE => {
                return Err(LoopError::NoNode { path: path.to_owned(), source });
            }
            Err(_) => {
                pause(LOOK);
                waited += LOOK;
            }
        }
    }
}

#[expect(unsafe_code, reason = "no crate speaks the loop driver's requests")]
fn get_free(control: RawFd) -> io::Result<i32> {
    // SAFETY: LOOP_CTL_GET_FREE takes no argument; `control` is open while its owner is borrowed by the caller.
    Ok(unsafe { loop_ctl_get_free(control) }?)
}

#[expect(unsafe_code, reason = "no crate speaks the loop driver's requests")]
fn configure(device: RawFd, file: &File, name: &Path) -> io::Result<()> {
    let mut file_name = [0; 64];
    // For `losetup` to show; it ends in a zero and may be cut.
    let text = name.as_os_str().as_encoded_bytes();
    for (to, from) in file_name.iter_mut().take(63).zip(text) {
        *to = *from;
    }
    let config = LoopConfig {
        fd: u32::try_from(file.as_raw_fd()).unwrap_or(u32::MAX),
        block_size: 0,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR,
            file_name,
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: `config` has the layout of `struct loop_config`, lives through the call and is only read; the driver takes
    // its own reference to the file behind `fd`.
    unsafe { loop_configure(device, &raw const config) }?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structures_have_the_kernel_s_sizes() {
        // As `sizeof` says of linux/loop.h on every 64-bit machine.
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }
}
