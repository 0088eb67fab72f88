//! What a person can say of disks on the kernel line.

use crate::stage::value::ValueError;

/// What the kernel line says of disks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::stage) struct DiskOptions {
    /// `bootfabric.root=disk`: whether, and on which filesystem.
    pub(in crate::stage) root: Option<DiskRoot>,
    /// `bootfabric.disk`: the disk to install on.
    pub(in crate::stage) name: Option<String>,
    /// `bootfabric.disk-wipe`: whether what it holds may go.
    pub(in crate::stage) wipe: bool,
    /// `bootfabric.store`: UUID of the filesystem with the store.
    pub(in crate::stage) store: Option<String>,
}

/// A root on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::stage) enum DiskRoot {
    /// On the disk that `bootfabric.disk` names, installed if it is not.
    Install,
    /// On the filesystem with this UUID.
    There(String),
}

impl DiskRoot {
    /// Reads `disk` and `disk:UUID`; `None` for other roots.
    pub(in crate::stage) fn read(value: &str) -> Result<Option<Self>, ValueError> {
        match value.split_once(':') {
            None if value == "disk" => Ok(Some(Self::Install)),
            Some(("disk", id)) => uuid(id).map(|id| Some(Self::There(id))),
            _ => Ok(None),
        }
    }
}

/// A UUID in text, in lower case.
pub(in crate::stage) fn uuid(text: &str) -> Result<String, ValueError> {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    let digits = text.chars().all(|c| c == '-' || c.is_ascii_hexdigit());
    if digits && groups == [8, 4, 4, 4, 12] { Ok(text.to_ascii_lowercase()) } else { Err(ValueError::Uuid) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roots_on_disks_are_told_from_others() {
        let id = "0F3A9C42-0001-4abc-8def-0123456789ab";
        assert_eq!(DiskRoot::read("disk"), Ok(Some(DiskRoot::Install)));
        assert_eq!(DiskRoot::read(&format!("disk:{id}")), Ok(Some(DiskRoot::There(id.to_ascii_lowercase()))));
        assert_eq!(DiskRoot::read("overlay"), Ok(None));
        for wrong in ["disk:", "disk:/dev/vda1", "disk:0f3a9c42", "disk:0f3a9c42-0001-4abc-8def-0123456789ag"]
        {
            assert_eq!(DiskRoot::read(wrong), Err(ValueError::Uuid), "{wrong}");
        }
    }
}
