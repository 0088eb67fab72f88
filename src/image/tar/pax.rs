//! pax extended headers: records of the form `LENGTH KEY=VALUE\n` (POSIX.1-2017, pax, "pax Extended Header").

/// What an extended header says of the member after it, as far as it matters here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Extended {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    /// Seconds since 1970, whole ones; negative before.
    pub(super) mtime: Option<i64>,
    /// Name of a file that is stored in pieces: `path`, before or after it, is then a stand-in.
    pub(super) sparse_name: Option<Vec<u8>>,
    /// Length of such a file.
    pub(super) sparse_size: Option<u64>,
    /// Offsets and lengths of these, in turn.
    pub(super) sparse_numbers: Vec<u64>,
    /// Whether these are at the beginning of the data instead.
    pub(super) sparse_map_in_data: bool,
}

impl Extended {
    /// Reads the records in `data` on top of what is known; `None` if they are malformed.
    pub(super) fn read(&mut self, mut data: &[u8]) -> Option<()> {
        while !data.is_empty() {
            let digits = data.iter().position(|&byte| byte == b' ')?;
            let length: usize = number(data.get(..digits)?)?.try_into().ok()?;
            let (record, rest) = data.split_at_checked(length)?;
            let record = record.get(digits + 1..)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|&byte| byte == b'=')?;
            let (key, value) = (record.get(..equals)?, record.get(equals + 1..)?);
            match key {
                b"path" => self.path = Some(value.to_vec()),
                b"GNU.sparse.name" => self.sparse_name = Some(value.to_vec()),
                b"GNU.sparse.size" | b"GNU.sparse.realsize" => self.sparse_size = Some(number(value)?),
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => self.sparse_numbers.push(number(value)?),
                b"GNU.sparse.map" => {
                    let numbers = value.split(|&byte| byte == b',').filter(|text| !text.is_empty());
                    self.sparse_numbers = numbers.map(number).collect::<Option<_>>()?;
                }
                b"GNU.sparse.major" => self.sparse_map_in_data = value == b"1",
                b"linkpath" => self.link = Some(value.to_vec()),
                b"size" => self.size = Some(number(value)?),
                b"mtime" => self.mtime = Some(seconds(value)?),
                _ => {}
            }
            data = rest;
        }
        Some(())
    }
}

/// The records of `data` but for those that say where and how the member is stored: its name, its size, its pieces.
pub(super) fn without_place(mut data: &[u8]) -> Vec<u8> {
    let mut kept = Vec::new();
    while let Some(digits) = data.iter().position(|&byte| byte == b' ') {
        let length = number(data.get(..digits).unwrap_or_default()).and_then(|length| length.try_into().ok());
        let Some((record, rest)) = length.and_then(|length| data.split_at_checked(length)) else { break };
        let text = record.get(digits + 1..).unwrap_or_default();
        let place = [b"path=".as_slice(), b"linkpath=", b"size=", b"GNU.sparse."];
        if !place.iter().any(|key| text.starts_with(key)) {
            kept.extend_from_slice(record);
        }
        data = rest;
    }
    kept
}

/// One record, its length included.
pub(super) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    // The length counts its own digits.
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn seconds(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn records_round_trip() {
        let records = [
            record(b"path", &[b'x'; 95]),
            record(b"size", b"7"),
            record(b"mtime", b"-3.5"),
            record(b"comment", b""),
        ];
        let mut extended = Extended::default();
        extended.read(&records.concat()).unwrap();
        let expected =
            Extended { path: Some(vec![b'x'; 95]), size: Some(7), mtime: Some(-3), ..Extended::default() };
        assert_eq!(extended, expected);
    }

    #[test]
    fn a_sparse_files_own_name_stands_beside_its_stand_in() {
        let (name, stand_in) = (record(b"GNU.sparse.name", b"x"), record(b"path", b"GNUSparseFile.1/x"));
        let mut either = [Extended::default(), Extended::default()];
        either[0].read(&[name.clone(), stand_in.clone()].concat()).unwrap();
        either[1].read(&[stand_in, name].concat()).unwrap();
        assert!(either.iter().all(|one| one.sparse_name.as_deref() == Some(b"x")));
    }

    #[test]
    fn malformed_records_are_refused() {
        for bad in ["5", "5 a=", "99 a=b\n", "0 a=b\n", "6 ab\n\n", "9 size=x\n", "-1 a=b\n"] {
            assert_eq!(Extended::default().read(bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn lengths_are_right(value in prop::collection::vec(any::<u8>(), 0..1200)) {
            let bytes = record(b"path", &value);
            let mut extended = Extended::default();
            prop_assert_eq!(extended.read(&bytes), Some(()));
            prop_assert_eq!(extended.path, Some(value));
        }

        #[test]
        fn garbage_never_panics(bytes in "[0-9]{0,20} \\PC{0,20}=?\\PC{0,9}\n?") {
            let _ = Extended::default().read(bytes.as_bytes());
        }
    }
}
