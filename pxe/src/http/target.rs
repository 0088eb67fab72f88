//! Request targets (RFC 9112 section 3.2) as names of boot files.

use crate::files::{NameError, boot_file_name};

/// Why a target names no file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Neither `/path` nor `http://host/path`.
    #[error("the request target is no path")]
    NotAPath,
    /// A `%` without two hexadecimal digits behind it.
    #[error("the request target has a bad percent escape")]
    BadEscape,
    /// The decoded name is not served.
    #[error(transparent)]
    Name(#[from] NameError),
}

/// The file name (decoded, without leading slashes) and the query (undecoded, without `?`) of a target.
///
/// # Errors
/// [`TargetError`]
pub fn parse(target: &str) -> Result<(String, String), TargetError> {
    let path = origin_form(target).ok_or(TargetError::NotAPath)?;
    let path = path.split('#').next().unwrap_or(path);
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let name = boot_file_name(&percent_decode(path).ok_or(TargetError::BadEscape)?)?;
    Ok((name, query.to_owned()))
}

/// `/path?query` of a target in origin form or absolute form; servers must accept both.
fn origin_form(target: &str) -> Option<&str> {
    if target.starts_with('/') {
        return Some(target);
    }
    let (scheme, rest) = target.split_once("://")?;
    if !scheme.eq_ignore_ascii_case("http") {
        return None;
    }
    Some(rest.find(['/', '?']).and_then(|path| rest.get(path..)).unwrap_or("/"))
}

fn percent_decode(path: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(path.len());
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
                high << 4 | low
            }
            byte => byte,
        });
    }
    Some(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ok(name: &str, query: &str) -> Result<(String, String), TargetError> {
        Ok((name.into(), query.into()))
    }

    #[test]
    fn names_and_queries() {
        assert_eq!(parse("/boot.ipxe?mac=52:54&x=%20"), ok("boot.ipxe", "mac=52:54&x=%20"));
        assert_eq!(parse("//a%20b/c+d"), ok("a b/c+d", ""));
        assert_eq!(parse("http://192.0.2.1:80/vmlinuz"), ok("vmlinuz", ""));
        assert_eq!(parse("HTTP://host"), ok("", ""));
        assert_eq!(parse("http://host?q"), ok("", "q"));
        assert_eq!(parse("/"), ok("", ""));
    }

    #[test]
    fn what_names_nothing() {
        assert_eq!(parse("*"), Err(TargetError::NotAPath));
        assert_eq!(parse("ftp://host/a"), Err(TargetError::NotAPath));
        assert_eq!(parse("/a%2"), Err(TargetError::BadEscape));
        assert_eq!(parse("/a%zz"), Err(TargetError::BadEscape));
        for target in ["/../x", "/a/%2e%2E/x", "/a%00", "/a%5cb", "/a%0d%0aX: y", "/..%2fx"] {
            assert_eq!(parse(target), Err(TargetError::Name(NameError::Unsafe)), "{target}");
        }
        assert_eq!(parse("/%ff"), Err(TargetError::Name(NameError::NotText)));
    }

    proptest! {
        #[test]
        fn no_target_panics(target in "\\PC{0,40}") {
            let _ = parse(&target);
        }
    }
}
