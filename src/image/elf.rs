//! What building needs to know of ELF files: how they are linked, with what, and where their loaded part ends.
//!
//! Reads 64-bit little-endian files for x86-64 (System V ABI, chapters 4 and 5). Every offset is checked: a hostile file
//! gives an error, never a panic. Never opens files.

use std::ops::Range;

/// Most entries of a dynamic section that are looked at; real ones have below a hundred.
const MAX_DYNAMIC: usize = 4096;
/// Longest string taken from a file: no path is longer.
const MAX_STRING: usize = 4096;

const HEADER_SIZE: usize = 64;
const PROGRAM_HEADER_SIZE: usize = 56;
const SECTION_HEADER_SIZE: usize = 64;
const I386: u16 = 3;
const X86_64: u16 = 62;

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;

const TAG_NEEDED: u64 = 1;
const TAG_STRINGS: u64 = 5;
const TAG_RPATH: u64 = 15;
const TAG_RUNPATH: u64 = 29;

/// Why bytes are not a program or library that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ElfError {
    /// No ELF file.
    #[error("not an ELF file")]
    NotElf,
    /// For another machine.
    #[error("not for 64-bit x86")]
    OtherMachine,
    /// Damaged, or made to mislead.
    #[error("damaged ELF file: {0}")]
    Damaged(&'static str),
}

/// Bytes of a file that [`foreign_machine`] has to see.
pub(super) const MACHINE_HEAD: usize = 20;

/// What machine the program that begins with `head` is for, if it is a program and not for 64-bit x86 (which runs the
/// 32-bit ones too).
pub(super) fn foreign_machine(head: &[u8]) -> Option<String> {
    let (magic, field) = (head.get(..4)?, <[u8; 2]>::try_from(head.get(18..MACHINE_HEAD)?).ok()?);
    let big_endian = head.get(5) == Some(&2);
    let machine = if big_endian { u16::from_be_bytes(field) } else { u16::from_le_bytes(field) };
    let name = match machine {
        _ if magic != b"\x7fELF" => return None,
        I386 | X86_64 => return None,
        8 => "MIPS",
        20 | 21 => "PowerPC",
        22 => "s390x",
        40 => "32-bit ARM",
        183 => "64-bit ARM",
        243 => "RISC-V",
        258 => "LoongArch",
        other => return Some(format!("ELF machine {other}")),
    };
    Some(name.into())
}

/// The bytes of the section `name`, of whatever kind of 64-bit little-endian file: kernel modules have sections alone (System V ABI,
/// chapter 4, "Section Header").
pub(super) fn section<'a>(file: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let number = |bytes: &[u8], at| u64_at(bytes, at).and_then(|value| usize::try_from(value).ok());
    let table = number(file, 0x28).filter(|_| file.starts_with(b"\x7fELF\x02\x01"))?;
    let size = usize::from(u16_at(file, 0x3a).filter(|size| usize::from(*size) == SECTION_HEADER_SIZE)?);
    let header = |index: u16| {
        let at = table.checked_add(usize::from(index).checked_mul(size)?)?;
        file.get(at..at.checked_add(size)?)
    };
    let content = |header: &[u8]| {
        let start = number(header, 0x18)?;
        file.get(start..start.checked_add(number(header, 0x20)?)?)
    };
    let names = content(header(u16_at(file, 0x3e)?)?)?;
    (0..u16_at(file, 0x3c)?).filter_map(header).find_map(|header| {
        let own = names.get(usize::try_from(u32_at(header, 0)?).ok()?..)?;
        (own.strip_prefix(name)?.first() == Some(&0)).then(|| content(header))?
    })
}

/// How a program or library is linked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Elf {
    /// The dynamic loader that a dynamically linked program asks for.
    pub(super) interpreter: Option<String>,
    /// Libraries, by name.
    pub(super) needed: Vec<String>,
    /// Where it wants them looked for (`DT_RPATH`, `DT_RUNPATH`), `$ORIGIN` not yet replaced.
    pub(super) search: Vec<String>,
    /// End of what is loaded into memory, as an offset in the file.
    loaded_end: usize,
}

impl Elf {
    /// Reads the headers of `file`.
    pub(super) fn parse(file: &[u8]) -> Result<Self, ElfError> {
        let segments = segments(file)?;
        let mut elf = Self { loaded_end: HEADER_SIZE, ..Self::default() };
        for segment in &segments {
            elf.loaded_end = elf.loaded_end.max(segment.file.end).max(segment.header.end);
        }
        if let Some(segment) = segments.iter().find(|segment| segment.kind == INTERPRETER) {
            elf.interpreter = Some(string(file, segment.file.start)?);
        }
        if let Some(segment) = segments.iter().find(|segment| segment.kind == DYNAMIC) {
            elf.read_dynamic(file, &segments, segment)?;
        }
        Ok(elf)
    }

    /// Whether the program runs without a dynamic loader.
    pub(super) fn is_static(&self) -> bool {
        self.interpreter.is_none() && self.needed.is_empty()
    }

    /// `file`, of which this is the description, without what is never loaded: symbols, debug information and the table
    /// of sections.
    pub(super) fn loaded_part(&self, file: &[u8]) -> Vec<u8> {
        let mut part = file.get(..self.loaded_end).unwrap_or(file).to_vec();
        // e_shoff; e_shentsize, e_shnum and e_shstrndx: there is no table of sections any more.
        for field in [0x28..0x30, 0x3a..0x40] {
            if let Some(bytes) = part.get_mut(field) {
                bytes.fill(0);
            }
        }
        part
    }

    fn read_dynamic(&mut self, file: &[u8], segments: &[Segment], dynamic: &Segment) -> Result<(), ElfError> {
        let table = file.get(dynamic.file.clone()).unwrap_or_default();
        let entries = table.chunks_exact(16).take(MAX_DYNAMIC);
        let entries: Vec<_> = entries
            .filter_map(|entry| Some((u64_at(entry, 0)?, u64_at(entry, 8)?)))
            .take_while(|&(tag, _)| tag != 0)
            .collect();
        let Some(&(_, address)) = entries.iter().find(|&&(tag, _)| tag == TAG_STRINGS) else { return Ok(()) };
        let strings =
            file_offset(segments, address).ok_or(ElfError::Damaged("string table is not loaded"))?;
        for (tag, value) in entries {
            if !matches!(tag, TAG_NEEDED | TAG_RPATH | TAG_RUNPATH) {
                continue;
            }
            let at = usize::try_from(value).ok().and_then(|value| strings.checked_add(value));
            let text = string(file, at.ok_or(ElfError::Damaged("string beyond the file"))?)?;
            if tag == TAG_NEEDED {
                self.needed.push(text);
            } else {
                self.search.extend(text.split(':').filter(|dir| !dir.is_empty()).map(str::to_owned));
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Segment {
    kind: u32,
    /// Where the segment's own header is in the file.
    header: Range<usize>,
    /// Where its bytes are in the file.
    file: Range<usize>,
    /// Where they are in memory.
    address: u64,
}

fn segments(file: &[u8]) -> Result<Vec<Segment>, ElfError> {
    if file.get(..4) != Some(b"\x7fELF") {
        return Err(ElfError::NotElf);
    }
    // Class: 64 bits; data: little-endian.
    if file.get(4..6) != Some(&[2, 1]) || u16_at(file, 0x12) != Some(X86_64) {
        return Err(ElfError::OtherMachine);
    }
    let short = ElfError::Damaged("program headers beyond the file");
    let table = u64_at(file, 0x20).and_then(|at| usize::try_from(at).ok()).ok_or(short)?;
    let count = u16_at(file, 0x38).ok_or(short)?;
    if u16_at(file, 0x36).map(usize::from) != Some(PROGRAM_HEADER_SIZE) {
        return Err(ElfError::Damaged("program headers of an unknown size"));
    }
    (0..usize::from(count)).map(|index| segment(file, table, index).ok_or(short)?).collect()
}

fn segment(file: &[u8], table: usize, index: usize) -> Option<Result<Segment, ElfError>> {
    let at = table.checked_add(index.checked_mul(PROGRAM_HEADER_SIZE)?)?;
    let header = at..at.checked_add(PROGRAM_HEADER_SIZE)?;
    let bytes = file.get(header.clone())?;
    let start = usize::try_from(u64_at(bytes, 8)?).ok()?;
    let end = usize::try_from(u64_at(bytes, 32)?).ok().and_then(|size| start.checked_add(size));
    Some(match end {
        Some(end) if end <= file.len() => {
            Ok(Segment { kind: u32_at(bytes, 0)?, header, file: start..end, address: u64_at(bytes, 16)? })
        }
        _ => Err(ElfError::Damaged("a segment beyond the file")),
    })
}

/// The offset in the file of what is loaded at `address`.
fn file_offset(segments: &[Segment], address: u64) -> Option<usize> {
    segments.iter().filter(|segment| segment.kind == LOAD).find_map(|segment| {
        let into = usize::try_from(address.checked_sub(segment.address)?).ok()?;
        (into < segment.file.len()).then(|| segment.file.start + into)
    })
}

/// The NUL-terminated text at `at`.
fn string(file: &[u8], at: usize) -> Result<String, ElfError> {
    let rest = file.get(at..).ok_or(ElfError::Damaged("string beyond the file"))?;
    let end = rest.iter().take(MAX_STRING).position(|&byte| byte == 0);
    let text = end.and_then(|end| rest.get(..end)).ok_or(ElfError::Damaged("string without an end"))?;
    String::from_utf8(text.to_vec()).map_err(|_| ElfError::Damaged("string that is not text"))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_static_and_a_dynamic_program_are_told_apart() {
        let own = Elf::parse(&std::fs::read("/proc/self/exe").unwrap()).unwrap();
        assert_eq!(own.is_static(), cfg!(target_env = "musl"));
        let shell = Elf::parse(&std::fs::read("/bin/sh").unwrap()).unwrap();
        if !shell.is_static() {
            assert!(shell.interpreter.unwrap().contains("ld"));
            assert!(!shell.needed.is_empty());
        }
    }

    #[test]
    fn the_loaded_part_is_smaller_and_runs() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        let part = Elf::parse(&own).unwrap().loaded_part(&own);
        assert!(part.len() < own.len());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("part");
        std::fs::write(&path, part).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        assert!(Command::new(&path).args(["--list", "no-such-test"]).output().unwrap().status.success());
    }

    #[test]
    fn other_files_are_refused() {
        assert_eq!(Elf::parse(b"#!/bin/sh\n"), Err(ElfError::NotElf));
        assert_eq!(Elf::parse(b"\x7fELF"), Err(ElfError::OtherMachine));
        let mut arm = std::fs::read("/proc/self/exe").unwrap();
        arm[0x12] = 183;
        assert_eq!(Elf::parse(&arm), Err(ElfError::OtherMachine));
    }

    /// A small dynamically linked file: one loaded segment over everything, one dynamic segment.
    fn small() -> Vec<u8> {
        let mut file = vec![0; 0x200];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        file[0x12] = 62;
        file[0x20] = 0x40;
        file[0x36] = 56;
        file[0x38] = 2;
        for (at, kind, start, size) in [(0x40, 1u8, 0u8, 0xffu8), (0x78, 2, 0xc0, 0x30)] {
            file[at] = kind;
            file[at + 8] = start;
            file[at + 16] = start;
            file[at + 32] = size;
        }
        for (at, tag, value) in [(0xc0, 5u8, 0xb0u8), (0xd0, 1, 1)] {
            file[at] = tag;
            file[at + 8] = value;
        }
        file[0xb1..0xb5].copy_from_slice(b"libc");
        file
    }

    #[test]
    fn libraries_are_read() {
        assert_eq!(Elf::parse(&small()).unwrap().needed, ["libc"]);
    }

    proptest! {
        #[test]
        fn damage_never_panics(at in 0usize..0x200, value: u8, cut in 0usize..0x200, tail: bool) {
            let mut file = small();
            file[at] = value;
            if tail { file.truncate(cut); }
            if let Ok(elf) = Elf::parse(&file) {
                prop_assert!(elf.loaded_part(&file).len() <= file.len());
            }
        }

        #[test]
        fn garbage_never_panics(rest in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut file = b"\x7fELF\x02\x01".to_vec();
            file.extend(rest);
            if let Some(machine) = file.get_mut(0x12..0x14) { machine.copy_from_slice(&[62, 0]); }
            let _ = Elf::parse(&file);
        }
    }
}
