//! Which answer a request gets, as a value; and its head as bytes. Never reads a file or a socket.
//!
//! Every answer with content says `Content-Length`; none is chunked, and no header is ever empty: OVMF hangs on the
//! one and firmware of several makers fails on the other.

use std::fmt::Write as _;
use std::ops::Range;

use super::head::{Agent, Method, Refusal, RequestHead};
use super::status::Status;
use crate::files::FileError;

/// What is known about a file before it is sent.
#[derive(Debug, Clone, Copy)]
pub struct FileMeta<'a> {
    /// Length in bytes.
    pub len: u64,
    /// Media type.
    pub content_type: &'a str,
    /// Entity tag without quotes.
    pub etag: Option<&'a str>,
}

/// The content of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// None, and no length either (304).
    None,
    /// A sentence for whoever reads the answer.
    Text(String),
    /// These bytes of the file, of `len` in all.
    File {
        /// The bytes.
        range: Range<u64>,
        /// Length of the whole file.
        len: u64,
    },
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: Status,
    /// The content; a HEAD request gets its length alone.
    pub content: Content,
    content_type: String,
    etag: Option<String>,
    /// `Retry-After` in seconds.
    retry_after: Option<u32>,
    /// `Content-Range` of a 416.
    unsatisfied: Option<u64>,
}

impl Answer {
    /// The answer to `request` for a file that exists.
    #[must_use]
    pub fn file(request: &RequestHead, meta: FileMeta<'_>) -> Self {
        let etag = meta.etag.filter(|etag| is_etag(etag));
        let mut answer = Self {
            status: Status::Ok,
            content: Content::File { range: 0..meta.len, len: meta.len },
            content_type: meta.content_type.to_owned(),
            etag: etag.map(str::to_owned),
            retry_after: None,
            unsatisfied: None,
        };
        if let Some((etag, list)) = etag.zip(request.if_none_match.as_deref())
            && matches_any(list, etag)
        {
            answer.status = Status::NotModified;
            answer.content = Content::None;
            return answer;
        }
        let Some(range) = request.range.filter(|_| range_applies(request.if_range.as_deref(), etag)) else {
            return answer;
        };
        match range.within(meta.len) {
            Some(range) => {
                answer.status = Status::PartialContent;
                answer.content = Content::File { range, len: meta.len };
                answer
            }
            None => Self {
                unsatisfied: Some(meta.len),
                ..Self::error(
                    Status::RangeNotSatisfiable,
                    &format!("the file has {} bytes; ask for a range within it", meta.len),
                )
            },
        }
    }

    /// An answer that says what went wrong, and what to do.
    #[must_use]
    pub fn error(status: Status, text: &str) -> Self {
        Self {
            status,
            content: Content::Text(format!("{} {}: {text}\n", status.code(), status.reason())),
            content_type: "text/plain; charset=utf-8".into(),
            etag: None,
            retry_after: None,
            unsatisfied: None,
        }
    }

    /// The answer to a request that could not be understood.
    #[must_use]
    pub fn refusal(refusal: &Refusal) -> Self {
        Self::error(refusal.status, &refusal.reason)
    }

    /// The same answer without what would keep `agent` from asking another node: iPXE obeys `Retry-After` by itself, and a
    /// boot script never hears of it.
    #[must_use]
    pub fn for_agent(self, agent: Agent) -> Self {
        let retry_after = self.retry_after.filter(|_| agent != Agent::Ipxe);
        Self { retry_after, ..self }
    }

    /// The answer where the file `name` cannot be served.
    #[must_use]
    pub fn file_error(name: &str, error: &FileError) -> Self {
        match error {
            FileError::NotFound => Self::error(Status::NotFound, &format!("no file {name:?} is served here")),
            FileError::Forbidden(reason) => Self::error(Status::Forbidden, reason),
            FileError::NotHeld => {
                Self::error(Status::Conflict, &format!("{name:?} is not held here yet; ask another node"))
            }
            FileError::Busy { retry_after } => Self::busy(*retry_after),
            FileError::Io(reason) => Self::error(
                Status::InternalServerError,
                &format!("cannot read {name:?}: {reason}; ask another node"),
            ),
        }
    }

    /// The answer above a bound: come back after so many seconds.
    #[must_use]
    pub fn busy(retry_after: u32) -> Self {
        let text = format!("this node is busy; ask another node, or this one after {retry_after} s");
        Self { retry_after: Some(retry_after), ..Self::error(Status::ServiceUnavailable, &text) }
    }

    /// The head and, for a text answer to anything but HEAD, the content. `head_only` where the request was HEAD;
    /// `http_1_0` clients are told that the connection stays open, all are told when it does not.
    #[must_use]
    pub fn encode(&self, head_only: bool, http_1_0: bool, keep_alive: bool) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status.code(), self.status.reason());
        self.write_fields(&mut head);
        if !keep_alive {
            head.push_str("Connection: close\r\n");
        } else if http_1_0 {
            head.push_str("Connection: keep-alive\r\n");
        }
        head.push_str("\r\n");
        if let Content::Text(text) = &self.content
            && !head_only
        {
            head.push_str(text);
        }
        head.into_bytes()
    }

    fn write_fields(&self, head: &mut String) {
        // Writing to a String cannot fail.
        if let Some(length) = self.content_length() {
            let _ = write!(head, "Content-Length: {length}\r\nContent-Type: {}\r\n", self.content_type);
        }
        if let Content::File { range, len } = &self.content {
            head.push_str("Accept-Ranges: bytes\r\n");
            if self.status == Status::PartialContent {
                let _ = write!(
                    head,
                    "Content-Range: bytes {}-{}/{len}\r\n",
                    range.start,
                    range.end.saturating_sub(1)
                );
            }
        }
        if let Some(etag) = &self.etag {
            let _ = write!(head, "ETag: \"{etag}\"\r\n");
        }
        if let Some(len) = self.unsatisfied {
            let _ = write!(head, "Content-Range: bytes */{len}\r\n");
        }
        if let Some(seconds) = self.retry_after {
            let _ = write!(head, "Retry-After: {seconds}\r\n");
        }
        if self.status == Status::MethodNotAllowed {
            head.push_str("Allow: GET, HEAD\r\n");
        }
    }

    fn content_length(&self) -> Option<u64> {
        match &self.content {
            Content::None => None,
            Content::Text(text) => Some(text.len() as u64),
            Content::File { range, .. } => Some(range.end.saturating_sub(range.start)),
        }
    }
}

/// Entity tags that can stand in a header (RFC 9110 section 8.8.3).
fn is_etag(etag: &str) -> bool {
    !etag.is_empty() && etag.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"')
}

/// `If-None-Match`: weak comparison with any of the list (RFC 9110 section 13.1.2).
fn matches_any(list: &str, etag: &str) -> bool {
    list.split(',').map(str::trim).any(|item| {
        let item = item.strip_prefix("W/").unwrap_or(item);
        item == "*" || item.strip_prefix('"').and_then(|item| item.strip_suffix('"')) == Some(etag)
    })
}

/// `If-Range`: the range counts only for the same content (strong comparison, RFC 9110 section 13.1.5). A date never
/// matches, because no dates are sent.
fn range_applies(if_range: Option<&str>, etag: Option<&str>) -> bool {
    if_range.is_none_or(|condition| {
        etag.is_some_and(|etag| condition.strip_prefix('"').and_then(|c| c.strip_suffix('"')) == Some(etag))
    })
}

/// Whether the content of `answer` follows its head for a request of `method`.
#[must_use]
pub fn content_follows(answer: &Answer, method: Method) -> Option<Range<u64>> {
    match &answer.content {
        Content::File { range, .. } if method == Method::Get && !range.is_empty() => Some(range.clone()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::head::{Parsed, parse};
    use super::*;

    const META: FileMeta<'static> = FileMeta { len: 100, content_type: "application/efi", etag: Some("e1") };

    fn request(fields: &str) -> RequestHead {
        match parse(format!("GET /f HTTP/1.1\r\nHost: h\r\n{fields}\r\n").as_bytes()) {
            Parsed::Request { head, .. } => head,
            other => panic!("{other:?}"),
        }
    }

    fn text(answer: &Answer) -> String {
        String::from_utf8(answer.encode(false, false, true)).unwrap()
    }

    #[test]
    fn whole_file() {
        assert_eq!(
            text(&Answer::file(&request(""), META)),
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\nContent-Type: application/efi\r\nAccept-Ranges: bytes\r\n\
             ETag: \"e1\"\r\n\r\n"
        );
    }

    #[test]
    fn ranges() {
        let answer = Answer::file(&request("Range: bytes=10-19\r\n"), META);
        assert!(text(&answer).starts_with("HTTP/1.1 206 Partial Content\r\nContent-Length: 10\r\n"));
        assert!(text(&answer).contains("\r\nContent-Range: bytes 10-19/100\r\n"));
        assert_eq!(content_follows(&answer, Method::Get), Some(10..20));
        let answer = Answer::file(&request("Range: bytes=100-\r\n"), META);
        assert!(text(&answer).starts_with("HTTP/1.1 416 "));
        assert!(text(&answer).contains("\r\nContent-Range: bytes */100\r\n"));
        assert_eq!(Answer::file(&request("Range: bytes=0-1,4-5\r\n"), META).status, Status::Ok);
    }

    #[test]
    fn conditions() {
        let status = |fields: &str| Answer::file(&request(fields), META).status;
        assert_eq!(status("If-None-Match: \"e0\", W/\"e1\"\r\n"), Status::NotModified);
        assert_eq!(status("If-None-Match: *\r\n"), Status::NotModified);
        assert_eq!(status("If-None-Match: \"e2\"\r\n"), Status::Ok);
        assert_eq!(status("Range: bytes=0-1\r\nIf-Range: \"e1\"\r\n"), Status::PartialContent);
        assert_eq!(status("Range: bytes=0-1\r\nIf-Range: W/\"e1\"\r\n"), Status::Ok);
        assert_eq!(status("Range: bytes=0-1\r\nIf-Range: Tue, 15 Nov 1994 12:45:26 GMT\r\n"), Status::Ok);
        let not_modified = Answer::file(&request("If-None-Match: \"e1\"\r\n"), META);
        assert_eq!(text(&not_modified), "HTTP/1.1 304 Not Modified\r\nETag: \"e1\"\r\n\r\n");
    }

    #[test]
    fn a_bad_etag_is_left_out() {
        let meta = FileMeta { etag: Some("a\r\nX: y"), ..META };
        assert!(!text(&Answer::file(&request("If-None-Match: *\r\n"), meta)).contains("ETag"));
        let meta = FileMeta { etag: Some(""), ..META };
        assert!(!text(&Answer::file(&request(""), meta)).contains("ETag"));
    }

    #[test]
    fn errors_say_what_to_do() {
        let not_held = text(&Answer::file_error("vmlinuz", &FileError::NotHeld));
        assert!(not_held.starts_with("HTTP/1.1 409 Conflict\r\n") && not_held.contains("ask another node"));
        let busy = text(&Answer::file_error("vmlinuz", &FileError::Busy { retry_after: 7 }));
        assert!(busy.starts_with("HTTP/1.1 503 ") && busy.contains("\r\nRetry-After: 7\r\n"));
        let ipxe = Answer::file_error("vmlinuz", &FileError::Busy { retry_after: 7 }).for_agent(Agent::Ipxe);
        assert!(text(&ipxe).starts_with("HTTP/1.1 503 ") && !text(&ipxe).contains("Retry-After"));
        let close = Answer::error(Status::NotFound, "x").encode(true, true, false);
        assert_eq!(
            String::from_utf8(close).unwrap(),
            "HTTP/1.1 404 Not Found\r\nContent-Length: 17\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Connection: close\r\n\r\n"
        );
    }

    #[test]
    fn h6_no_header_is_empty() {
        for answer in [
            Answer::file(&request(""), FileMeta { etag: None, ..META }),
            Answer::busy(1),
            Answer::error(Status::MethodNotAllowed, "no"),
        ] {
            assert!(
                text(&answer)
                    .lines()
                    .take_while(|line| !line.is_empty())
                    .all(|line| !line.trim().ends_with(':'))
            );
        }
    }
}
