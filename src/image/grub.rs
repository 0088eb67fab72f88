//! The parts of the boot loader that [`crate::disk`] writes to disks, made by GRUB's own program on the builder's machine.
//!
//! The same version of GRUB gives the same bytes.

use std::path::{Path, PathBuf};

use super::tool::{GRUB_MKIMAGE, ToolError};
use crate::disk::loader::{BOOT, CORE, EFI};

/// Where GRUB's modules are, and the Debian package of each.
const BIOS_MODULES: (&str, &str) = ("/usr/lib/grub/i386-pc", "grub-pc-bin");
const EFI_MODULES: (&str, &str) = ("/usr/lib/grub/x86_64-efi", "grub-efi-amd64-bin");
/// What GRUB must be able to do, beside the disk itself: find the partition, read the configuration, load Linux.
const MODULES: [&str; 7] = ["part_gpt", "fat", "normal", "linux", "echo", "reboot", "halt"];
/// Where it finds its configuration: on the second partition of the disk that it was loaded from.
const PREFIX: &str = "(,gpt2)/boot";

/// Why there is no boot loader.
#[derive(Debug, thiserror::Error)]
pub enum GrubError {
    /// GRUB is not installed.
    #[error("`{}` is missing: install GRUB's modules (Debian: apt install {package}), which disks boot with", path.display())]
    Missing {
        /// The directory or file.
        path: PathBuf,
        /// Debian package that holds it.
        package: &'static str,
    },
    /// GRUB's program failed.
    #[error("cannot make the boot loader of disks")]
    Tool(#[from] ToolError),
    /// What it made cannot be read.
    #[error("cannot make the boot loader of disks")]
    Read(#[from] std::io::Error),
}

/// Makes the parts: names and bytes.
///
/// # Errors
/// [`GrubError`]
pub fn parts() -> Result<Vec<(&'static str, Vec<u8>)>, GrubError> {
    let boot = Path::new(BIOS_MODULES.0).join(BOOT);
    let boot =
        std::fs::read(&boot).map_err(|_| GrubError::Missing { path: boot, package: BIOS_MODULES.1 })?;
    Ok(vec![
        (BOOT, boot),
        (CORE, make("i386-pc", BIOS_MODULES, &["biosdisk"])?),
        (EFI, make("x86_64-efi", EFI_MODULES, &[])?),
    ])
}

fn make(
    format: &str,
    (directory, package): (&str, &'static str),
    more: &[&str],
) -> Result<Vec<u8>, GrubError> {
    if !Path::new(directory).is_dir() {
        return Err(GrubError::Missing { path: directory.into(), package });
    }
    let output = tempfile::NamedTempFile::new()?;
    let mut command = GRUB_MKIMAGE.command()?;
    command.args(["--format", format, "--directory", directory, "--prefix", PREFIX, "--output"]);
    command.arg(output.path()).args(more).args(MODULES);
    GRUB_MKIMAGE.start(command)?.finish()?;
    Ok(std::fs::read(output.path())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_what_disks_expect_and_made_alike_each_time() {
        let made = parts().unwrap();
        assert_eq!(made, parts().unwrap());
        let [boot, core, efi] = made.as_slice() else { panic!("three parts") };
        assert!(boot.1.len() == 512 && core.1.len() < 1 << 20 && efi.1.starts_with(b"MZ"));
    }
}
