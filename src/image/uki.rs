//! Unified kernel images: kernel, initramfs and command line in one UEFI program, which firmware loads by itself.
//!
//! The program is systemd's stub (`linuxx64.efi.stub`) with a section for each part; its format is PE/COFF ("Microsoft
//! PE and COFF specification", sections 3 and 4; UAPI group specification UKI.1). Owns the layout of the file; signs nothing.

use std::io::Read;
use std::path::PathBuf;

/// Offset of the PE header's offset in the DOS header.
const LFANEW: usize = 0x3c;
/// Bytes of the PE signature and the COFF header.
const COFF: usize = 24;
/// Bytes of a section header.
const SECTION: usize = 40;
/// Sections lie on pages of their own in memory.
const PAGE: usize = 4096;
/// Readable, initialized data.
const DATA: u32 = 0x4000_0040;
/// Firmware keeps the whole file in memory, and the file's offsets have 32 bits.
const MAX_PART: u64 = 1 << 30;

/// Where systemd's stub is on Debian.
pub const STUB: &str = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// Why a unified kernel image cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum UkiError {
    /// The stub is no UEFI program for 64-bit x86.
    #[error(
        "the stub is no 64-bit UEFI program: systemd's is expected (Debian: apt install systemd-boot-efi)"
    )]
    Stub,
    /// The stub has no room for the headers of further sections.
    #[error("the stub has no room for {0} more sections")]
    Room(usize),
    /// The whole would be larger than the format allows.
    #[error("the parts are too large for one UEFI program")]
    Size,
    /// A part cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A part is empty or too large.
    #[error("`{}` has {size} bytes; 1 to {MAX_PART} are allowed", path.display())]
    Part {
        /// The file.
        path: PathBuf,
        /// Its length, as far as it was read.
        size: u64,
    },
}

/// The parts of a unified kernel image.
#[derive(Debug, Clone)]
pub struct Uki {
    /// The UEFI program that starts the rest.
    pub stub: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initrd: PathBuf,
    /// The kernel's command line.
    pub cmdline: String,
}

impl Uki {
    /// The program's bytes. The same parts give the same bytes.
    ///
    /// # Errors
    /// [`UkiError`]
    pub fn build(&self) -> Result<Vec<u8>, UkiError> {
        let (stub, kernel, initrd) = (part(&self.stub)?, part(&self.kernel)?, part(&self.initrd)?);
        // The kernel last: it may use the memory behind it while it unpacks itself.
        with_sections(
            &stub,
            &[(".cmdline", self.cmdline.as_bytes()), (".initrd", &initrd), (".linux", &kernel)],
        )
    }
}

fn part(path: &PathBuf) -> Result<Vec<u8>, UkiError> {
    let mut bytes = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_PART + 1).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(UkiError::Read { path: path.clone(), source }),
        Ok(_) if bytes.is_empty() || bytes.len() as u64 > MAX_PART => {
            Err(UkiError::Part { path: path.clone(), size: bytes.len() as u64 })
        }
        Ok(_) => Ok(bytes),
    }
}

/// `program` with further sections behind its own.
fn with_sections(program: &[u8], sections: &[(&str, &[u8])]) -> Result<Vec<u8>, UkiError> {
    let header = Header::of(program).ok_or(UkiError::Stub)?;
    let table = header.table + SECTION * header.sections;
    if header.size_of_headers < table + SECTION * sections.len() {
        return Err(UkiError::Room(sections.len()));
    }
    let mut file = program.to_vec();
    let mut address = header.end_in_memory;
    let mut initialized = 0;
    for (number, (name, content)) in sections.iter().enumerate() {
        address = address.next_multiple_of(PAGE);
        file.resize(file.len().next_multiple_of(header.file_alignment), 0);
        let (offset, raw) = (file.len(), content.len().next_multiple_of(header.file_alignment));
        let mut row = [0; SECTION];
        for (to, from) in row.iter_mut().zip(name.bytes().take(8)) {
            *to = from;
        }
        put(&mut row, 8, content.len())?;
        put(&mut row, 12, address)?;
        put(&mut row, 16, raw)?;
        put(&mut row, 20, offset)?;
        put(&mut row, 36, DATA as usize)?;
        let at = table + SECTION * number;
        file.get_mut(at..at + SECTION).ok_or(UkiError::Stub)?.copy_from_slice(&row);
        file.extend_from_slice(content);
        file.resize(offset + raw, 0);
        address += content.len();
        initialized += raw;
    }
    let count = u16::try_from(header.sections + sections.len()).map_err(|_| UkiError::Size)?;
    file.get_mut(header.coff + 6..header.coff + 8)
        .ok_or(UkiError::Stub)?
        .copy_from_slice(&count.to_le_bytes());
    let before = u32_at(&file, header.optional + 8).ok_or(UkiError::Stub)?;
    put(&mut file, header.optional + 8, before + initialized)?;
    put(&mut file, header.optional + 56, address.next_multiple_of(header.section_alignment))?;
    // No checksum: UEFI does not look at it.
    put(&mut file, header.optional + 64, 0)?;
    Ok(file)
}

/// What has to be known of a program to add to it; all of it checked against the file's length.
struct Header {
    /// Offset of the PE signature.
    coff: usize,
    /// Offset of the optional header.
    optional: usize,
    /// Offset of the section table.
    table: usize,
    sections: usize,
    section_alignment: usize,
    file_alignment: usize,
    size_of_headers: usize,
    /// Where its last section ends in memory.
    end_in_memory: usize,
}

impl Header {
    fn of(program: &[u8]) -> Option<Self> {
        let coff = u32_at(program, LFANEW)?;
        let optional = coff.checked_add(COFF)?;
        let table = optional.checked_add(u16_at(program, coff.checked_add(20)?)?)?;
        let sections = u16_at(program, coff + 6)?;
        let header = Self {
            coff,
            optional,
            table,
            sections,
            section_alignment: u32_at(program, optional + 32)?,
            file_alignment: u32_at(program, optional + 36)?,
            size_of_headers: u32_at(program, optional + 60)?,
            end_in_memory: (0..sections)
                .map(|number| {
                    let row = table + SECTION * number;
                    Some(u32_at(program, row + 12)? + u32_at(program, row + 8)?)
                })
                .try_fold(0, |end, section| Some(end.max(section?)))?,
        };
        let good = program.starts_with(b"MZ")
            && program.get(coff..optional)?.starts_with(b"PE\0\0\x64\x86")
            // PE32+, and room for all the fields that are written.
            && u16_at(program, optional)? == 0x20b
            && table >= optional + 68
            && header.section_alignment.is_power_of_two()
            && header.file_alignment.is_power_of_two()
            && header.file_alignment <= 1 << 16
            && header.size_of_headers <= program.len();
        good.then_some(header)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?)).ok()
}

fn put(bytes: &mut [u8], at: usize, value: usize) -> Result<(), UkiError> {
    let value = u32::try_from(value).map_err(|_| UkiError::Size)?;
    bytes.get_mut(at..at + 4).ok_or(UkiError::Stub)?.copy_from_slice(&value.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A program with one section of 100 bytes and room for headers up to 0x400.
    fn stub() -> Vec<u8> {
        let mut file = vec![0; 0x600];
        file[..2].copy_from_slice(b"MZ");
        file[LFANEW] = 0x80;
        file[0x80..0x86].copy_from_slice(b"PE\0\0\x64\x86");
        file[0x86] = 1;
        file[0x94] = 240;
        file[0x98..0x9a].copy_from_slice(&0x20b_u16.to_le_bytes());
        for (at, value) in [(32, 0x1000), (36, 0x200), (56, 0x2000), (60, 0x400)] {
            put(&mut file, 0x98 + at, value).unwrap();
        }
        let row = 0x98 + 240;
        for (at, value) in [(8, 100), (12, 0x1000), (16, 0x200), (20, 0x400)] {
            put(&mut file, row + at, value).unwrap();
        }
        file
    }

    #[test]
    fn sections_follow_each_other_on_disk_and_in_memory() {
        let initrd = vec![7; 5000];
        let file =
            with_sections(&stub(), &[(".cmdline", b"quiet"), (".initrd", &initrd), (".linux", b"kernel")])
                .unwrap();
        let header = Header::of(&file).unwrap();
        assert_eq!((header.sections, u32_at(&file, 0x98 + 56)), (4, Some(0x6000)));
        let mut end = (0x1000 + 100, 0x600);
        for (number, (name, content)) in
            [(".cmdline", &b"quiet"[..]), (".initrd", &initrd), (".linux", b"kernel")].into_iter().enumerate()
        {
            let row = header.table + SECTION * (number + 1);
            let [size, address, raw, offset] = [8, 12, 16, 20].map(|at| u32_at(&file, row + at).unwrap());
            assert!(file[row..row + 8].starts_with(name.as_bytes()) && size == content.len());
            assert_eq!(&file[offset..offset + size], content, "{name}");
            assert!(
                address >= end.0
                    && address.is_multiple_of(PAGE)
                    && offset >= end.1
                    && raw.is_multiple_of(0x200)
            );
            end = (address + size, offset + raw);
        }
        assert_eq!(file.len(), end.1);
        assert_eq!(file[0x400..0x600], stub()[0x400..0x600], "the stub itself is unchanged");
    }

    #[test]
    fn what_is_no_stub_is_refused() {
        let many: Vec<(&str, &[u8])> = (0..30).map(|_| (".x", &b"x"[..])).collect();
        assert!(matches!(with_sections(&stub(), &many), Err(UkiError::Room(30))));
        for end in 0..0x198 {
            assert!(with_sections(&stub()[..end], &[(".x", b"x")]).is_err(), "{end}");
        }
        assert!(matches!(with_sections(b"MZ", &[]), Err(UkiError::Stub)));
        let missing = Uki {
            stub: "/none".into(),
            kernel: "/none".into(),
            initrd: "/none".into(),
            cmdline: String::new(),
        };
        assert!(missing.build().unwrap_err().to_string().contains("/none"));
    }

    proptest! {
        #[test]
        fn no_damage_panics(at in 0usize..0x200, value in any::<u32>()) {
            let mut file = stub();
            put(&mut file, at, value as usize).unwrap();
            let _ = with_sections(&file, &[(".linux", b"kernel")]);
        }
    }
}
