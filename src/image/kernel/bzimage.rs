//! The header of an x86 kernel (Linux, Documentation/arch/x86/boot.rst, "The Real-Mode Kernel Header").

/// Why bytes are not a kernel that an image can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KernelImageError {
    /// For another architecture.
    #[error("it is a kernel for {0}: images are for 64-bit x86")]
    OtherMachine(&'static str),
    /// No bzImage.
    #[error("it is not an x86 bzImage: take the file vmlinuz of a kernel package, not vmlinux")]
    NotAKernel,
    /// Its version is missing.
    #[error("it does not say its version: it is damaged or very old")]
    NoVersion,
}

/// Offset of `boot_flag` and its value.
const BOOT_FLAG: (usize, [u8; 2]) = (0x1fe, [0x55, 0xaa]);
/// Offset of `header` and its value.
const HEADER: (usize, &[u8]) = (0x202, b"HdrS");
/// Offset of `kernel_version`: where the version's text is, less 0x200.
const KERNEL_VERSION: usize = 0x20e;
/// Offset of `xloadflags`; bit 0: has the 64-bit entry point.
const LOAD_FLAGS: usize = 0x236;
/// Longest version text.
const MAX_VERSION: usize = 256;

/// The version of the kernel in `bytes`, as `uname -r` will say it.
pub(super) fn version(bytes: &[u8]) -> Result<String, KernelImageError> {
    let has = |at: usize, magic: &[u8]| bytes.get(at..).is_some_and(|rest| rest.starts_with(magic));
    if has(0x38, b"ARM\x64") {
        return Err(KernelImageError::OtherMachine("arm64"));
    }
    if has(0x30, b"RISCV\0\0\0") {
        return Err(KernelImageError::OtherMachine("RISC-V"));
    }
    if !has(BOOT_FLAG.0, &BOOT_FLAG.1) || !has(HEADER.0, HEADER.1) {
        return Err(KernelImageError::NotAKernel);
    }
    if u16_at(bytes, LOAD_FLAGS).is_none_or(|flags| flags & 1 == 0) {
        return Err(KernelImageError::OtherMachine("32-bit x86"));
    }
    let at = u16_at(bytes, KERNEL_VERSION).filter(|&at| at != 0).ok_or(KernelImageError::NoVersion)?;
    let text = bytes.get(usize::from(at) + 0x200..).ok_or(KernelImageError::NoVersion)?;
    let text: Vec<u8> = text.iter().copied().take(MAX_VERSION).take_while(u8::is_ascii_graphic).collect();
    // It names a directory.
    String::from_utf8(text)
        .ok()
        .filter(|text| text.starts_with(|c: char| c.is_ascii_digit()) && !text.contains('/'))
        .ok_or(KernelImageError::NoVersion)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Something that passes for a kernel of this version.
    pub(in crate::image) fn sample(version: &str) -> Vec<u8> {
        let mut bytes = vec![0; 0x400];
        bytes[0x1fe..0x200].copy_from_slice(&BOOT_FLAG.1);
        bytes[0x202..0x206].copy_from_slice(b"HdrS");
        bytes[0x20e..0x210].copy_from_slice(&[0, 1]);
        bytes[0x236] = 1;
        let text = format!("{version} (builder@host) #1 SMP");
        bytes[0x300..0x300 + text.len()].copy_from_slice(text.as_bytes());
        bytes
    }

    #[test]
    fn the_version_is_the_first_word() {
        assert_eq!(version(&sample("6.1.0-40-cloud-amd64")), Ok("6.1.0-40-cloud-amd64".into()));
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(version(b""), Err(KernelImageError::NotAKernel));
        assert_eq!(version(b"\x7fELF"), Err(KernelImageError::NotAKernel));
        let mut arm = sample("6.1");
        arm[0x38..0x3c].copy_from_slice(b"ARM\x64");
        assert_eq!(version(&arm), Err(KernelImageError::OtherMachine("arm64")));
        let mut small = sample("6.1");
        small[0x236] = 0;
        assert_eq!(version(&small), Err(KernelImageError::OtherMachine("32-bit x86")));
        assert_eq!(version(&sample("6/../1")), Err(KernelImageError::NoVersion));
        assert_eq!(version(&sample("..")), Err(KernelImageError::NoVersion));
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..0x400, value: u8, cut in 0usize..0x400) {
            let mut bytes = sample("6.1");
            bytes[at] = value;
            let _ = version(&bytes);
            let _ = version(&bytes[..cut]);
        }
    }
}
