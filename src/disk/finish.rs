//! A filled disk made to start: boot loader, and last of all the partition table.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::check::{Installed, installed};
use super::device::DiskName;
use super::error::InstallError;
use super::gpt::Piece;
use super::image::Image;
use super::loader::{self, Loader};
use super::prepare::{Ids, Prepared};
use super::probe::{MARK, MARK_AT};

/// What makes a filled disk start.
pub(super) struct Finish<'a> {
    pub(super) prepared: &'a Prepared,
    pub(super) image: &'a Image,
    /// The kernel line, to which is added where the disk's own parts are.
    pub(super) line: &'a str,
    pub(super) loader: &'a Loader,
    pub(super) kernel: &'a Path,
    pub(super) first_stage: &'a Path,
}

impl Finish<'_> {
    /// Finishes it; says with `step` what is being done.
    ///
    /// # Errors
    /// [`InstallError`]
    pub(super) fn run(self, step: &dyn Fn(&str)) -> Result<Installed, InstallError> {
        let Self { prepared, image, loader, .. } = self;
        let Prepared { disk, size, block, layout, ids } = prepared;
        let write_error = |source| prepared.write_error(source);
        let installed = Installed { disk: disk.clone(), root: ids.root.clone(), store: ids.store.clone() };
        let file = match prepared.open() {
            // Another attempt was ended after its last write, before it said so.
            Err(InstallError::Changed(_)) if self.is_finished(&installed)? => return Ok(installed),
            opened => opened?,
        };
        // Nor has the disk a table while its loader is written a second time.
        prepared.clear_table(&file).map_err(write_error)?;

        step("boot loader");
        let boot_code = loader.place_bios(&file, layout.bios)?;
        let config = loader::config(&image.title, &line(self.line, ids));
        loader.place_efi(&file, layout.efi, *block, self.kernel, self.first_stage, &config)?;
        file.sync_all().map_err(write_error)?;

        step("partition table");
        let table = layout.table(&image.release).map_err(write_error)?;
        for Piece { at, bytes } in table.pieces(*size, *block, &boot_code) {
            file.write_all_at(&bytes, at).map_err(write_error)?;
        }
        file.sync_all().map_err(write_error)?;
        file.write_all_at(&vec![0; MARK.len()], MARK_AT).map_err(write_error)?;
        file.sync_all().map_err(write_error)?;
        Ok(installed)
    }

    /// Whether the disk holds this very installation: its filesystems' UUIDs are nobody else's.
    fn is_finished(&self, expected: &Installed) -> Result<bool, InstallError> {
        let name: DiskName = self.prepared.disk.display().to_string().parse()?;
        Ok(installed(&name, &self.image.release)?.as_ref() == Some(expected))
    }
}

/// The kernel line of the installation: where it finds its parts, by what cannot change with cables and slots.
fn line(line: &str, ids: &Ids) -> String {
    let root = ids.root.as_ref().map(|uuid| format!(" bootfabric.root=disk:{uuid}")).unwrap_or_default();
    format!("{}{root} bootfabric.store={}", line.trim(), ids.store)
}

/// Gives the tree of a root the `fstab` of one whose filesystem is `uuid`.
///
/// # Errors
/// [`InstallError::Read`] of that file.
pub(super) fn write_fstab(tree: &Path, uuid: &str) -> Result<(), InstallError> {
    let path = tree.join("etc/fstab");
    let write = || -> io::Result<()> {
        let old = match fs::read_to_string(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            old => old.unwrap_or_default(),
        };
        fs::create_dir_all(tree.join("etc"))?;
        fs::write(&path, fstab(&old, uuid))
    };
    write().map_err(|source| InstallError::Read { path: path.clone(), source })
}

/// The root's own `fstab`, with another line for `/`.
fn fstab(old: &str, uuid: &str) -> String {
    let others = old
        .lines()
        .filter(|line| line.split_whitespace().nth(1) != Some("/") || line.trim_start().starts_with('#'));
    let mut text = format!("UUID={uuid} / ext4 errors=remount-ro 0 1\n");
    for line in others {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_for_the_root_is_replaced_and_all_else_kept() {
        assert_eq!(fstab("", "u"), "UUID=u / ext4 errors=remount-ro 0 1\n");
        assert_eq!(
            fstab("a / b\nc /d e\n# f / g", "u"),
            "UUID=u / ext4 errors=remount-ro 0 1\nc /d e\n# f / g\n"
        );
    }
}
