//! Disks: how they are named, found, and claimed.
//!
//! Owns the names that an operator may give and what the kernel says of a disk in `/sys`. A disk is opened only here, and
//! for writing only when it is nobody else's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::str::FromStr;

use nix::fcntl::OFlag;

/// Where the kernel lists block devices, partitions among them.
const CLASS: &str = "/sys/class/block";

/// Blocks that partition tables are counted in, unless the disk says otherwise.
const USUAL_BLOCK: u64 = 512;

/// The one disk that is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskName {
    /// A node, or a link to one: `/dev/nvme0n1`.
    Node(PathBuf),
    /// A serial number as the disk tells it, or its world wide name: `serial:S4EWNX0R`.
    Serial(String),
    /// A PCI address of its controller: `pci:0000:00:1f.2`.
    Pci(String),
}

/// A disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DeviceError {
    /// No name of a disk.
    #[error("`{0}` names no disk: /dev/NAME, serial:NUMBER or pci:ADDRESS is expected")]
    Name(String),
    /// It is not there.
    #[error("there is no disk {name}; there are {present}")]
    Absent {
        /// What was looked for.
        name: DiskName,
        /// What there is.
        present: String,
    },
    /// Several answer to the name.
    #[error("{name} is not one disk but {found}: name it by its node or serial number")]
    Several {
        /// What was looked for.
        name: DiskName,
        /// What was found.
        found: String,
    },
    /// A file, a terminal, …
    #[error("{} is no block device", .0.display())]
    NoDevice(PathBuf),
    /// A part of a disk.
    #[error("{} is a partition: name the whole disk", .0.display())]
    Partition(PathBuf),
    /// Somebody has mounted it, or uses it otherwise.
    #[error("{} is in use: something on it is mounted, or it is part of a RAID or volume group", .0.display())]
    Busy(PathBuf),
    /// Its blocks are of no usual size.
    #[error("{} has blocks of {block} bytes", path.display())]
    Block {
        /// The node.
        path: PathBuf,
        /// Bytes.
        block: u64,
    },
    /// Anything else.
    #[error("cannot use {}", path.display())]
    Io {
        /// The node.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl FromStr for DiskName {
    type Err = DeviceError;

    fn from_str(text: &str) -> Result<Self, DeviceError> {
        let wrong = || DeviceError::Name(text.chars().filter(|c| !c.is_control()).take(80).collect());
        match text.split_once(':') {
            Some(("serial", serial)) if !serial.is_empty() => Ok(Self::Serial(serial.to_owned())),
            Some(("pci", address)) if !address.is_empty() && !address.contains('/') => {
                Ok(Self::Pci(address.to_owned()))
            }
            _ => {
                let path = Path::new(text);
                let below = path.starts_with("/dev") && path != Path::new("/dev");
                let plain = !path.components().any(|part| part == Component::ParentDir);
                if below && plain { Ok(Self::Node(path.to_owned())) } else { Err(wrong()) }
            }
        }
    }
}

impl std::fmt::Display for DiskName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Node(path) => write!(f, "{}", path.display()),
            Self::Serial(serial) => write!(f, "serial:{serial}"),
            Self::Pci(address) => write!(f, "pci:{address}"),
        }
    }
}

/// A disk that is there.
#[derive(Debug)]
pub(super) struct Disk {
    /// Its node.
    pub(super) path: PathBuf,
    /// It, open.
    pub(super) file: File,
    /// Bytes.
    pub(super) size: u64,
    /// Bytes of a block.
    pub(super) block: u64,
}

impl Disk {
    /// Finds the disk and makes sure that nobody uses it or a part of it. Writes nothing.
    ///
    /// # Errors
    /// [`DeviceError`]
    pub(super) fn claim(name: &DiskName) -> Result<Self, DeviceError> {
        // With O_EXCL the kernel refuses a block device that is mounted or claimed, and the disk of such a partition.
        Self::open(name, OFlag::O_EXCL)
    }

    /// Finds the disk, whoever uses it, to read it.
    ///
    /// # Errors
    /// [`DeviceError`]
    pub(super) fn look(name: &DiskName) -> Result<Self, DeviceError> {
        Self::open(name, OFlag::empty())
    }

    fn open(name: &DiskName, flags: OFlag) -> Result<Self, DeviceError> {
        let path = name.find()?;
        let error = |source| DeviceError::Io { path: path.clone(), source };
        let metadata = fs::metadata(&path).map_err(error)?;
        if !metadata.file_type().is_block_device() {
            return Err(DeviceError::NoDevice(path));
        }
        let (major, minor) = (nix::sys::stat::major(metadata.rdev()), nix::sys::stat::minor(metadata.rdev()));
        let sys = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        if sys.join("partition").exists() {
            return Err(DeviceError::Partition(path));
        }
        let write = flags.contains(OFlag::O_EXCL);
        let opened = OpenOptions::new().read(true).write(write).custom_flags(flags.bits()).open(&path);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => return Err(DeviceError::Busy(path)),
            other => other.map_err(error)?,
        };
        let size = file.seek(SeekFrom::End(0)).map_err(error)?;
        let block = attribute(&sys, "queue/logical_block_size").and_then(|text| text.parse().ok());
        let block = block.unwrap_or(USUAL_BLOCK);
        if !matches!(block, 512 | 4096) {
            return Err(DeviceError::Block { path, block });
        }
        Ok(Self { path, file, size, block })
    }
}

impl DiskName {
    fn find(&self) -> Result<PathBuf, DeviceError> {
        let fits = |sys: &Path| match self {
            Self::Node(_) => false,
            Self::Serial(wanted) => serials(sys).any(|serial| serial == *wanted),
            Self::Pci(wanted) => fs::canonicalize(sys)
                .is_ok_and(|path| path.components().any(|part| part.as_os_str() == wanted.as_str())),
        };
        let present = disks();
        let listed = |paths: &[PathBuf]| match paths {
            [] => "none".to_owned(),
            paths => paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", "),
        };
        let absent = || DeviceError::Absent { name: self.clone(), present: listed(&present) };
        if let Self::Node(path) = self {
            return fs::canonicalize(path).map_err(|_| absent());
        }
        let found: Vec<PathBuf> = present
            .iter()
            .filter(|node| node.file_name().is_some_and(|name| fits(&Path::new(CLASS).join(name))))
            .cloned()
            .collect();
        match found.as_slice() {
            [] => Err(absent()),
            [one] => Ok(one.clone()),
            several => Err(DeviceError::Several { name: self.clone(), found: listed(several) }),
        }
    }
}

/// What a disk calls itself: virtio and others tell at the one place, NVMe and SCSI at the other.
fn serials(sys: &Path) -> impl Iterator<Item = String> {
    ["serial", "device/serial", "wwid", "device/wwid"].into_iter().filter_map(|name| attribute(sys, name))
}

fn attribute(sys: &Path, name: &str) -> Option<String> {
    Some(fs::read_to_string(sys.join(name)).ok()?.trim().to_owned())
}

/// Nodes of all whole disks: what has a device behind it, which loop devices and RAM disks have not.
fn disks() -> Vec<PathBuf> {
    nodes(|sys| sys.join("device").exists() && !sys.join("partition").exists())
}

/// Nodes of everything that may hold a filesystem: partitions and whole disks, in the order of their names.
#[must_use]
pub fn volumes() -> Vec<PathBuf> {
    nodes(|sys| sys.join("device").exists() || sys.join("partition").exists())
}

fn nodes(wanted: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(CLASS).into_iter().flatten().flatten();
    let mut nodes: Vec<PathBuf> = entries
        .filter(|entry| wanted(&entry.path()))
        .map(|entry| Path::new("/dev").join(entry.file_name()))
        .collect();
    nodes.sort();
    nodes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_written_alike() {
        for text in ["/dev/vda", "/dev/disk/by-id/ata-X", "serial:S4 1", "pci:0000:00:1f.2"] {
            assert_eq!(text.parse::<DiskName>().unwrap().to_string(), text);
        }
        for text in
            ["", "vda", "/dev", "/dev/../etc/passwd", "/etc/passwd", "serial:", "pci:", "uuid:1", "pci:../x"]
        {
            assert!(text.parse::<DiskName>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_disk_is_refused() {
        let claim = |text: &str| Disk::claim(&text.parse().unwrap()).unwrap_err();
        assert!(matches!(claim("/dev/null"), DeviceError::NoDevice(_)));
        assert!(matches!(claim("/dev/no-such-disk"), DeviceError::Absent { .. }));
        assert!(matches!(claim("serial:no such number"), DeviceError::Absent { .. }));
    }
}
