//! Matching a device's modalias against the patterns of `modules.alias`.
//!
//! The patterns are those of `fnmatch(3)` without flags. A matcher that backtracks over each `*` takes exponential time on
//! hostile patterns; this one remembers only the last `*`, which is enough as a later star can always take what an
//! earlier one could have: pattern length times text length at worst.

/// Whether `pattern` matches all of `text`. `-` and `_` are the same, as for module names.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where to go on after a mismatch: behind the last star, one byte further in the text.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(&byte) = text.get(t) {
        if pattern.get(p) == Some(&b'*') {
            p += 1;
            retry = Some((p, t));
        } else if let Some(next) = pattern.get(p..).and_then(|rest| one(rest, byte)) {
            p += next;
            t += 1;
        } else if let Some((after_star, taken)) = retry {
            p = after_star;
            t = taken + 1;
            retry = Some((after_star, t));
        } else {
            return false;
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|&byte| byte == b'*'))
}

/// Matches one byte against the single-byte pattern that `pattern` begins with; returns the pattern's length.
fn one(pattern: &[u8], byte: u8) -> Option<usize> {
    match pattern {
        [b'?', ..] => Some(1),
        [b'[', set @ ..] => match class(set, byte) {
            Some((true, length)) => Some(1 + length),
            Some((false, _)) => None,
            // Without its `]` a bracket is a character like any other.
            None => (byte == b'[').then_some(1),
        },
        [b'\\', literal, ..] => same(*literal, byte).then_some(2),
        [literal, ..] => same(*literal, byte).then_some(1),
        [] => None,
    }
}

/// Reads a set (what follows `[`): whether `byte` is in it, and how long it is with its `]`. `None` if it never ends.
fn class(set: &[u8], byte: u8) -> Option<(bool, usize)> {
    let negated = matches!(set.first(), Some(b'!' | b'^'));
    let start = usize::from(negated);
    let mut found = false;
    let mut at = start;
    loop {
        let low = *set.get(at)?;
        if low == b']' && at > start {
            return Some((found != negated, at + 1));
        }
        match (set.get(at + 1), set.get(at + 2)) {
            (Some(b'-'), Some(&high)) if high != b']' => {
                found |= (low..=high).contains(&byte);
                at += 3;
            }
            _ => {
                found |= low == byte;
                at += 1;
            }
        }
    }
}

fn same(a: u8, b: u8) -> bool {
    let canonical = |byte| if byte == b'-' { b'_' } else { byte };
    canonical(a) == canonical(b)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The obvious definition, exponential in the number of stars.
    fn oracle(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern, text) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => oracle(rest, text) || (!text.is_empty() && oracle(pattern, &text[1..])),
            (_, [byte, after @ ..]) => {
                one(pattern, *byte).is_some_and(|length| oracle(&pattern[length..], after))
            }
            _ => false,
        }
    }

    #[test]
    fn aliases_of_real_drivers() {
        let cases = [
            ("virtio:d00000001v*", "virtio:d00000001v00001AF4", true),
            ("virtio:d00000001v*", "virtio:d00000002v00001AF4", false),
            (
                "pci:v00008086d0000100Esv*sd*bc*sc*i*",
                "pci:v00008086d0000100Esv00001AF4sd00001100bc02sc00i00",
                true,
            ),
            ("pci:v*d*sv*sd*bc0Csc03i30*", "pci:v00001B36d0000000Dsv00001AF4sd00001100bc0Csc03i30", true),
            ("usb:v0BDAp8153d[0-9a-f]*dc*", "usb:v0BDAp8153d3000dc00", true),
            ("usb:v0BDAp8153d[!0-9]*", "usb:v0BDAp8153d3000dc00", false),
            ("fs-squashfs", "fs_squashfs", true),
            ("crypto-zstd", "crypto-zstd", true),
            ("acpi*:PNP0501:*", "acpi:PNP0501:", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn odd_sets() {
        assert!(matches("[]]", "]"));
        assert!(matches("[!]]", "x"));
        assert!(!matches("[!]]", "]"));
        assert!(matches("[a-]", "-"));
        assert!(matches("[", "["));
        assert!(matches("[abc", "[abc"));
        assert!(!matches("[z-a]", "m"));
        assert!(matches("\\*", "*"));
        assert!(!matches("\\*", "x"));
    }

    #[test]
    fn many_stars_take_no_time() {
        assert!(!matches(&"*a".repeat(2000), &"a".repeat(1999)));
        assert!(matches(&"*a".repeat(2000), &"a".repeat(2000)));
    }

    proptest! {
        #[test]
        fn agrees_with_the_oracle(pattern in "[ab*?\\[\\]!^\\\\-]{0,9}", text in "[ab\\[\\]_-]{0,9}") {
            prop_assert_eq!(matches(&pattern, &text), oracle(pattern.as_bytes(), text.as_bytes()));
        }

        #[test]
        fn never_panics(pattern in "\\PC*", text in "\\PC*") {
            matches(&pattern, &text);
        }
    }
}
