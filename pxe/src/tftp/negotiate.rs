//! Which of the asked-for options are granted (RFC 2347, 2348, 2349, 7440). Answers only what was asked: an option
//! in the OACK that the request did not name breaks UEFI clients.

use std::time::Duration;

use super::packet;

/// Block size without the option (RFC 1350).
pub const DEFAULT_BLKSIZE: u16 = 512;
/// Smallest block size (RFC 2348).
pub const MIN_BLKSIZE: u16 = 8;
/// Largest block size (RFC 2348).
pub const MAX_BLKSIZE: u16 = 65_464;

/// What this server grants at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Block size in bytes; derived from the MTU so that no DATA packet is fragmented.
    pub blksize: u16,
    /// Window in blocks.
    pub windowsize: u16,
}

/// What holds for one transfer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Agreed {
    /// Payload bytes of a full block.
    pub blksize: u16,
    /// Blocks sent before an ACK is awaited.
    pub windowsize: u16,
    /// Longest wait before a retransmission, if the client named it.
    pub timeout: Option<Duration>,
    /// The OACK to begin with; `None` where no option was granted and the first DATA is the answer.
    pub oack: Option<Vec<u8>>,
}

/// Grants what `options` ask for a file of `len` bytes. Options that are unknown or have values out of range are left
/// out of the OACK, as RFC 2347 wants; of a repeated option the first counts.
#[must_use]
pub fn negotiate(options: &[(&[u8], &[u8])], len: u64, limits: Limits) -> Agreed {
    let mut agreed = Agreed { blksize: DEFAULT_BLKSIZE, windowsize: 1, timeout: None, oack: None };
    let mut granted: Vec<(&str, u64)> = Vec::new();
    for (name, value) in options {
        let Some((name, value)) = known(name).zip(number(value)) else { continue };
        if granted.iter().any(|(earlier, _)| *earlier == name) {
            continue;
        }
        let answer = match name {
            "blksize" if (u64::from(MIN_BLKSIZE)..=u64::from(MAX_BLKSIZE)).contains(&value) => {
                agreed.blksize = at_most(value, limits.blksize.max(MIN_BLKSIZE));
                u64::from(agreed.blksize)
            }
            "windowsize" if (1..=u64::from(u16::MAX)).contains(&value) => {
                agreed.windowsize = at_most(value, limits.windowsize.max(1));
                u64::from(agreed.windowsize)
            }
            // RFC 2349: the server echoes the value or leaves the option out.
            "timeout" if (1..=255).contains(&value) => {
                agreed.timeout = Some(Duration::from_secs(value));
                value
            }
            "tsize" => len,
            _ => continue,
        };
        granted.push((name, answer));
    }
    agreed.oack = (!granted.is_empty()).then(|| packet::oack(&granted));
    agreed
}

fn at_most(value: u64, limit: u16) -> u16 {
    u16::try_from(value).map_or(limit, |value| value.min(limit))
}

/// Option names are case-insensitive (RFC 2347).
fn known(name: &[u8]) -> Option<&'static str> {
    ["blksize", "windowsize", "timeout", "tsize"]
        .into_iter()
        .find(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

fn number(value: &[u8]) -> Option<u64> {
    let digits = value.iter().all(u8::is_ascii_digit);
    std::str::from_utf8(value).ok().filter(|_| digits)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { blksize: 1468, windowsize: 64 };

    fn grant(options: &[(&str, &str)]) -> Agreed {
        let options: Vec<_> =
            options.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        negotiate(&options, 5_000_000_000, LIMITS)
    }

    #[test]
    fn t2_answers_only_what_was_asked() {
        assert_eq!(grant(&[]), Agreed { blksize: 512, windowsize: 1, timeout: None, oack: None });
        assert_eq!(grant(&[("tsize", "0")]).oack.unwrap(), b"\0\x06tsize\x005000000000\0");
        let edk2 = grant(&[("blksize", "1468"), ("windowsize", "4")]);
        assert_eq!((edk2.blksize, edk2.windowsize), (1468, 4));
        assert_eq!(edk2.oack.unwrap(), b"\0\x06blksize\x001468\0windowsize\x004\0");
    }

    #[test]
    fn t3_t4_caps_what_is_too_much() {
        let agreed = grant(&[("BLKSIZE", "65464"), ("windowsize", "65535"), ("timeout", "3")]);
        assert_eq!(
            (agreed.blksize, agreed.windowsize, agreed.timeout),
            (1468, 64, Some(Duration::from_secs(3)))
        );
        assert_eq!(agreed.oack.unwrap(), b"\0\x06blksize\x001468\0windowsize\x0064\0timeout\x003\0");
    }

    #[test]
    fn leaves_out_what_is_nonsense() {
        for options in [
            [("blksize", "7")],
            [("blksize", "65465")],
            [("windowsize", "0")],
            [("timeout", "0")],
            [("timeout", "256")],
            [("blksize", "+512")],
            [("blksize", "")],
            [("tsize", "99999999999999999999999")],
            [("multicast", "")],
        ] {
            assert_eq!(grant(&options).oack, None, "{options:?}");
        }
        assert_eq!(grant(&[("blksize", "600"), ("blksize", "700")]).blksize, 600);
    }
}
