//! Heads of HTTP/1.1 messages: the request we write and the answers we accept.
//!
//! Pure: bytes in, verdict out. Strict on purpose: whatever is not exactly the range asked for is an error.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::Duration;

use super::super::source::SourceError;
use crate::id::BlobId;

/// The longest head of an answer. Ours take 200 bytes; more than this is no head.
pub(super) const MAX_HEAD: usize = 8 * 1024;

/// Header lines of an answer that are looked at.
const MAX_HEADERS: usize = 32;

/// How long to leave a peer alone that refuses without saying for how long.
const DEFAULT_RETRY: Duration = Duration::from_secs(1);

/// The longest time that a peer may send us away: beyond it we ask again anyway.
const MAX_RETRY: Duration = Duration::from_secs(30);

/// What all requests to one peer have in common. Has no `Debug`: a token may be in it.
pub(super) struct RequestHead(String);

impl RequestHead {
    /// Requests to `host`, which show `token` if there is one.
    pub(super) fn new(host: SocketAddr, token: Option<&str>) -> Self {
        let shown = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
        Self(format!("Host: {host}\r\n{shown}"))
    }

    /// The head of a request for `bytes` of `blob`.
    pub(super) fn of(&self, blob: &BlobId, bytes: &Range<u64>) -> String {
        let (Self(fields), last) = (self, bytes.end.saturating_sub(1));
        format!("GET /blob/{blob} HTTP/1.1\r\n{fields}Range: bytes={}-{last}\r\n\r\n", bytes.start)
    }
}

/// What the head of an answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    /// Bytes of the head, the blank line included.
    pub(super) head: usize,
    /// Bytes of the body that follows.
    pub(super) body: u64,
    /// Whether the body is the range asked for, or why not.
    pub(super) verdict: Result<(), SourceError>,
    /// Whether the connection can carry on after the body.
    pub(super) keep_alive: bool,
}

/// Reads the head of the answer to a request for `wanted`; `None` while it is incomplete.
///
/// # Errors
/// [`SourceError::Protocol`] if the connection cannot be read any further.
pub(super) fn answer(input: &[u8], wanted: &Range<u64>) -> Result<Option<Answer>, SourceError> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(input) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) if input.len() < MAX_HEAD => return Ok(None),
        Ok(httparse::Status::Partial) => return Err(protocol("a head without an end")),
        Err(error) => return Err(protocol(&format!("no HTTP answer ({error})"))),
    };
    let field = |name: &str| -> Option<&str> {
        let header = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(header.value).ok().map(str::trim)
    };
    if field("transfer-encoding").is_some() {
        return Err(protocol("a body without a length"));
    }
    let status = response.code.unwrap_or_default();
    let Some(body) = field("content-length").and_then(|text| text.parse().ok()) else {
        return Err(protocol(&format!("status {status} without a content length")));
    };
    let close = field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    let verdict = if status == 206 {
        check_range(field("content-range"), body, wanted)
    } else {
        Err(classify_status(status, field("retry-after")))
    };
    Ok(Some(Answer { head, body, verdict, keep_alive: response.version == Some(1) && !close }))
}

/// What a status other than 206 says about the peer (RFC 9110 §15; `retry_after` is that header's value).
///
/// 404, 409, 416 and 425 all mean "not (yet) held here": no such blob, or not these bytes of it. 401 and 403 come from a
/// private fabric's peer that does not know the token any more: it gives a new one when it next connects.
#[must_use]
pub fn classify_status(status: u16, retry_after: Option<&str>) -> SourceError {
    match status {
        404 | 409 | 416 | 425 => SourceError::NotHeld,
        401 | 403 | 429 | 503 => {
            let asked = retry_after.and_then(|text| text.parse().ok()).map(Duration::from_secs);
            SourceError::Refused { retry_after: asked.unwrap_or(DEFAULT_RETRY).min(MAX_RETRY) }
        }
        _ => protocol(&format!("status {status} where 206 was due")),
    }
}

fn check_range(content_range: Option<&str>, body: u64, wanted: &Range<u64>) -> Result<(), SourceError> {
    let given = content_range.and_then(parse_content_range);
    let length = wanted.end.saturating_sub(wanted.start);
    if given.as_ref() == Some(wanted) && body == length {
        return Ok(());
    }
    let named = content_range.unwrap_or("none").chars().take(60).collect::<String>();
    Err(protocol(&format!(
        "asked for bytes {}-{}, got range `{named}` with {body} bytes",
        wanted.start,
        wanted.end.saturating_sub(1)
    )))
}

/// `bytes FIRST-LAST/SIZE` as a half-open range (RFC 9110 §14.4).
fn parse_content_range(text: &str) -> Option<Range<u64>> {
    let (range, _size) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some(first.parse().ok()?..last.parse::<u64>().ok()?.checked_add(1)?)
}

fn protocol(what: &str) -> SourceError {
    SourceError::Protocol(what.into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(head: &str) -> Result<Option<Answer>, SourceError> {
        answer(head.as_bytes(), &(10..20))
    }

    #[test]
    fn a_request_shows_the_token_if_there_is_one() {
        let blob = BlobId(crate::id::Hash::of(b"b"));
        let request = |token| RequestHead::new(([10, 0, 0, 1], 80).into(), token).of(&blob, &(5..9));
        let plain = format!("GET /blob/{blob} HTTP/1.1\r\nHost: 10.0.0.1:80\r\nRange: bytes=5-8\r\n\r\n");
        assert_eq!(request(None), plain);
        let shown = plain.replace("Range", "Authorization: Bearer t\r\nRange");
        assert_eq!(request(Some("t")), shown);
    }

    #[test]
    fn the_exact_range_is_accepted() {
        let head =
            "HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\ncontent-range: bytes 10-19/99\r\n\r\n";
        let answer = read(head).unwrap().unwrap();
        assert_eq!(answer, Answer { head: head.len(), body: 10, verdict: Ok(()), keep_alive: true });
        assert_eq!(read(&head[..head.len() - 1]), Ok(None));
    }

    #[test]
    fn anything_else_is_not() {
        for lying in [
            "HTTP/1.1 206 X\r\nContent-Length: 10\r\nContent-Range: bytes 11-20/99\r\n\r\n",
            "HTTP/1.1 206 X\r\nContent-Length: 11\r\nContent-Range: bytes 10-19/99\r\n\r\n",
            "HTTP/1.1 206 X\r\nContent-Length: 10\r\n\r\n",
            "HTTP/1.1 206 X\r\nContent-Length: 10\r\nContent-Range: bytes 10-18446744073709551615/*\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n",
        ] {
            let verdict = read(lying).unwrap().unwrap().verdict;
            assert!(matches!(verdict, Err(SourceError::Protocol(_))), "{lying}: {verdict:?}");
        }
        for broken in [
            "HTTP/1.1 206 X\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 206 X\r\nContent-Range: bytes 10-19/99\r\n\r\n",
            "SSH-2.0-OpenSSH\r\n",
            &"x".repeat(MAX_HEAD),
        ] {
            assert!(matches!(read(broken), Err(SourceError::Protocol(_))), "{broken}");
        }
    }

    #[test]
    fn statuses_are_classified_once() {
        assert_eq!(classify_status(409, None), SourceError::NotHeld);
        assert_eq!(classify_status(425, None), SourceError::NotHeld);
        assert_eq!(classify_status(503, None), SourceError::Refused { retry_after: DEFAULT_RETRY });
        let patient = SourceError::Refused { retry_after: Duration::from_secs(7) };
        assert_eq!(classify_status(503, Some("7")), patient);
        assert_eq!(classify_status(429, Some("99999999")), SourceError::Refused { retry_after: MAX_RETRY });
        assert_eq!(classify_status(403, None), SourceError::Refused { retry_after: DEFAULT_RETRY });
        assert!(matches!(classify_status(500, None), SourceError::Protocol(_)));
    }

    proptest! {
        #[test]
        fn hostile_heads_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), start: u64, length: u64) {
            let _ = answer(&bytes, &(start..start.saturating_add(length)));
            let mut plausible = b"HTTP/1.1 206 X\r\nContent-Length: ".to_vec();
            plausible.extend(&bytes);
            let _ = answer(&plausible, &(start..start.saturating_add(length)));
        }
    }
}
