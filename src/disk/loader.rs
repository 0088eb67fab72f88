//! The boot loader of a disk: GRUB, one for BIOS and one for UEFI, with one configuration for both.
//!
//! Both are made when the image is built ([`crate::image::grub`]) and only placed here: no program of GRUB's runs on the
//! machine. A BIOS executes the code in block 0, which loads the core image from its partition; UEFI firmware
//! finds `EFI/BOOT/BOOTX64.EFI`. Both read `boot/grub.cfg` from the FAT partition, where kernel and first stage are. All
//! names there are short ones (8.3): GRUB does not see the long ones that `fatfs` writes.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::gpt::BOOT_CODE;
use super::layout::Place;

/// GRUB's code for block 0.
pub const BOOT: &str = "boot.img";
/// GRUB's core image for a BIOS.
pub const CORE: &str = "core.img";
/// GRUB for UEFI.
pub const EFI: &str = "grubx64.efi";

/// Where block 0 has the first block of the core image, and where it decides which drive it came from (GRUB,
/// `include/grub/i386/pc/boot.h`: `GRUB_BOOT_MACHINE_KERNEL_SECTOR`, `GRUB_BOOT_MACHINE_DRIVE_CHECK`).
const CORE_BLOCK: usize = 0x5c;
const DRIVE_CHECK: usize = 0x66;
/// Where the first block of the core image has the block that the rest begins at: the last entry of its list, which grows
/// downwards from the block's end (`GRUB_BOOT_MACHINE_LIST_SIZE`).
const REST_BLOCK: usize = 512 - 12;
/// Blocks that a BIOS knows.
const SECTOR: u64 = 512;
/// Longest copy at a time.
const PIECE: usize = 1 << 20;

/// The loader's files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LoaderError {
    /// A file is missing or has another shape than GRUB's.
    #[error("`{0}` is not the file of GRUB that is expected")]
    Shape(&'static str),
    /// Reading or writing failed.
    #[error("cannot write the boot loader")]
    Io(#[from] io::Error),
}

/// The loader's parts.
#[derive(Debug)]
pub(super) struct Loader {
    boot: Vec<u8>,
    core: Vec<u8>,
    efi: Vec<u8>,
}

impl Loader {
    /// Reads the parts from `directory`.
    pub(super) fn read(directory: &Path) -> Result<Self, LoaderError> {
        let part = |name: &str| std::fs::read(directory.join(name));
        let (boot, core, efi) = (part(BOOT)?, part(CORE)?, part(EFI)?);
        let whole = boot.len() == 512 && boot.ends_with(&[0x55, 0xaa]);
        if !whole {
            return Err(LoaderError::Shape(BOOT));
        }
        // As made, the list says: the rest begins at block 2.
        if core.len() <= 512 || core.get(REST_BLOCK..REST_BLOCK + 8) != Some(&2_u64.to_le_bytes()) {
            return Err(LoaderError::Shape(CORE));
        }
        if !efi.starts_with(b"MZ") {
            return Err(LoaderError::Shape(EFI));
        }
        Ok(Self { boot, core, efi })
    }

    /// Bytes in the FAT partition.
    pub(super) fn bytes(&self) -> u64 {
        self.efi.len() as u64
    }

    /// Writes the core image to its place, and gives the code for block 0 that loads it from there.
    pub(super) fn place_bios(&self, disk: &File, place: Place) -> Result<Vec<u8>, LoaderError> {
        if self.core.len() as u64 > place.length {
            return Err(LoaderError::Shape(CORE));
        }
        let block = place.start / SECTOR;
        let mut core = self.core.clone();
        core.splice(REST_BLOCK..REST_BLOCK + 8, (block + 1).to_le_bytes());
        disk.write_all_at(&core, place.start)?;
        let mut boot = self.boot.clone();
        boot.splice(CORE_BLOCK..CORE_BLOCK + 8, block.to_le_bytes());
        // A BIOS that names a wrong drive is not believed.
        boot.splice(DRIVE_CHECK..DRIVE_CHECK + 2, [0x90, 0x90]);
        boot.truncate(BOOT_CODE);
        Ok(boot)
    }

    /// Makes the FAT partition at `place` with the loader, `kernel`, `first_stage` and `config`.
    pub(super) fn place_efi(
        &self,
        disk: &File,
        place: Place,
        block: u64,
        kernel: &Path,
        first_stage: &Path,
        config: &str,
    ) -> Result<(), LoaderError> {
        let sector = u16::try_from(block).map_err(|_| io::Error::from(io::ErrorKind::Unsupported))?;
        let mut window = Window { disk, place, at: 0 };
        let options =
            fatfs::FormatVolumeOptions::new().bytes_per_sector(sector).volume_label(*b"BOOTFABRIC ");
        fatfs::format_volume(&mut window, options)?;
        window.at = 0;
        let volume = fatfs::FileSystem::new(window, fatfs::FsOptions::new())?;
        {
            let root = volume.root_dir();
            let efi = root.create_dir("EFI")?.create_dir("BOOT")?;
            copy(&mut self.efi.as_slice(), &mut efi.create_file("BOOTX64.EFI")?)?;
            let own = root.create_dir("boot")?;
            copy(&mut config.as_bytes(), &mut own.create_file("grub.cfg")?)?;
            copy(&mut File::open(kernel)?, &mut own.create_file("vmlinuz")?)?;
            copy(&mut File::open(first_stage)?, &mut own.create_file("initrd")?)?;
        }
        volume.unmount()?;
        Ok(())
    }
}

fn copy(from: &mut impl Read, to: &mut (impl Write + Seek)) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let count = from.read(&mut piece)?;
        let Some(bytes) = piece.get(..count).filter(|bytes| !bytes.is_empty()) else { return to.flush() };
        to.write_all(bytes)?;
    }
}

/// GRUB's configuration: boots at once, unless somebody presses a key within the second.
pub(super) fn config(title: &str, line: &str) -> String {
    // GRUB puts quotes of its own around a word with blanks in it.
    let words: Vec<String> =
        super::line::words(line).iter().map(|word| quoted(&word.replace('"', ""))).collect();
    format!(
        "# Written when this disk was installed. One entry: the same kernel and first stage for BIOS and UEFI.\n\
         set timeout=1\n\
         menuentry {} {{\n  linux /boot/vmlinuz {}\n  initrd /boot/initrd\n}}\n",
        quoted(title),
        words.join(" ")
    )
}

/// A word for GRUB: what is between single quotes is taken as it is.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/=.,:_-".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A part of a disk as a file of its own.
struct Window<'a> {
    disk: &'a File,
    place: Place,
    at: u64,
}

impl Window<'_> {
    fn rest(&self, wanted: usize) -> usize {
        usize::try_from(self.place.length.saturating_sub(self.at)).unwrap_or(usize::MAX).min(wanted)
    }
}

impl Read for Window<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let rest = self.rest(buffer.len());
        let count =
            self.disk.read_at(buffer.get_mut(..rest).unwrap_or(&mut []), self.place.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for Window<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let rest = self.rest(buffer.len());
        let count = self.disk.write_at(buffer.get(..rest).unwrap_or(&[]), self.place.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Window<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => self.place.length.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_mean_something_to_grub_are_quoted() {
        let config = config("debian 1 (2)", "console=ttyS0,115200 x=$y;reboot a='b'");
        assert!(config.contains("menuentry 'debian 1 (2)' {"), "{config}");
        assert!(
            config.contains("linux /boot/vmlinuz console=ttyS0,115200 'x=$y;reboot' 'a='\\''b'\\'''\n"),
            "{config}"
        );
    }

    #[test]
    fn a_window_ends_where_its_place_does() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(100).unwrap();
        let mut window = Window { disk: &file, place: Place { start: 10, length: 20 }, at: 0 };
        window.seek(SeekFrom::End(-4)).unwrap();
        assert_eq!(window.write(b"abcdefgh").unwrap(), 4);
        assert_eq!(window.write(b"x").unwrap(), 0);
        window.seek(SeekFrom::Current(-3)).unwrap();
        let mut rest = String::new();
        window.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "bcd");
        let mut around = [1; 2];
        file.read_exact_at(&mut around, 30).unwrap();
        assert_eq!(around, [0, 0]);
        assert!(window.seek(SeekFrom::Current(-100)).is_err());
    }
}
