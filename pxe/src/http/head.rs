//! Request heads (RFC 9112), parsed from whatever has arrived. Never reads a socket.

use super::range::RangeSpec;
use super::status::Status;
use super::target;
use crate::files::Bearer;

/// Longest request line with header fields. Firmware sends 300 bytes, curl 100, a browser 1,500.
pub const MAX_HEAD: usize = 8 * 1024;
/// Most header fields. Firmware sends 5, a browser 20.
pub const MAX_FIELDS: usize = 64;

/// GET or HEAD.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Head and content.
    Get,
    /// The head alone.
    Head,
}

/// What kind of program asks, by its `User-Agent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Agent {
    /// UEFI HTTP boot: it cannot be told to come back.
    Firmware,
    /// iPXE, which waits by itself where it is told `Retry-After` and so never asks another node.
    Ipxe,
    /// Everything else.
    #[default]
    Other,
}

impl Agent {
    fn of(value: &[u8]) -> Self {
        if value.starts_with(b"UefiHttpBoot/") {
            Self::Firmware
        } else if value.starts_with(b"iPXE/") {
            Self::Ipxe
        } else {
            Self::Other
        }
    }
}

/// What a request asks, as far as this service cares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// Name of the file: decoded, without leading slashes, safe ([`crate::files::boot_file_name`]).
    pub name: String,
    /// What follows `?`, undecoded.
    pub query: String,
    /// Whether the client may send another request on this connection.
    pub keep_alive: bool,
    /// HTTP/1.0: it must be told that the connection stays open.
    pub http_1_0: bool,
    /// A single byte range, of a GET.
    pub range: Option<RangeSpec>,
    /// `If-Range`, as sent.
    pub if_range: Option<String>,
    /// `If-None-Match`, as sent.
    pub if_none_match: Option<String>,
    /// The token of `Authorization: Bearer`.
    pub bearer: Option<Bearer>,
    /// Who asks.
    pub agent: Agent,
}

/// A request that gets an error. The connection is closed after it: where the next request begins is not certain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The status to answer with.
    pub status: Status,
    /// One sentence for whoever reads the answer.
    pub reason: String,
}

impl Refusal {
    fn new(status: Status, reason: impl Into<String>) -> Self {
        Self { status, reason: reason.into() }
    }
}

/// Result of looking at the bytes that have arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parsed {
    /// More bytes are needed.
    Incomplete,
    /// The head of a request, `consumed` bytes long. The next request follows it.
    Request {
        /// The head.
        head: RequestHead,
        /// Its length in bytes.
        consumed: usize,
    },
    /// Not a request this service answers.
    Refused(Refusal),
}

/// Parses the request at the beginning of `buffer`.
#[must_use]
pub fn parse(buffer: &[u8]) -> Parsed {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut request = httparse::Request::new(&mut fields);
    let consumed = match request.parse(buffer) {
        Ok(httparse::Status::Complete(consumed)) if consumed <= MAX_HEAD => consumed,
        Ok(httparse::Status::Partial) if buffer.len() < MAX_HEAD => return Parsed::Incomplete,
        Ok(_) => return Parsed::Refused(too_large()),
        Err(error) => return Parsed::Refused(refusal_of(error)),
    };
    match understand(&request) {
        Ok(head) => Parsed::Request { head, consumed },
        Err(refusal) => Parsed::Refused(refusal),
    }
}

fn too_large() -> Refusal {
    Refusal::new(
        Status::HeaderFieldsTooLarge,
        format!("a request head has at most {MAX_HEAD} bytes and {MAX_FIELDS} fields here"),
    )
}

fn refusal_of(error: httparse::Error) -> Refusal {
    match error {
        httparse::Error::TooManyHeaders => too_large(),
        httparse::Error::Version => Refusal::new(Status::VersionNotSupported, "this server speaks HTTP/1.1"),
        other => Refusal::new(Status::BadRequest, format!("not an HTTP request: {other}")),
    }
}

fn understand(request: &httparse::Request<'_, '_>) -> Result<RequestHead, Refusal> {
    let bad = |reason: &str| Refusal::new(Status::BadRequest, reason);
    let method = match request.method {
        Some("GET") => Method::Get,
        Some("HEAD") => Method::Head,
        _ => return Err(Refusal::new(Status::MethodNotAllowed, "only GET and HEAD are served")),
    };
    let http_1_0 = request.version == Some(0);
    let mut head = RequestHead {
        method,
        name: String::new(),
        query: String::new(),
        keep_alive: !http_1_0,
        http_1_0,
        range: None,
        if_range: None,
        if_none_match: None,
        bearer: None,
        agent: Agent::Other,
    };
    let mut hosts = 0;
    for field in request.headers.iter() {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("host") {
            hosts += 1;
        } else if is("connection") {
            let options = String::from_utf8_lossy(field.value).to_ascii_lowercase();
            for option in options.split(',').map(str::trim) {
                match option {
                    "close" => head.keep_alive = false,
                    "keep-alive" if http_1_0 => head.keep_alive = true,
                    _ => {}
                }
            }
        } else if is("content-length") {
            if field.value != b"0" {
                return Err(Refusal::new(Status::ContentTooLarge, "requests with content are not taken"));
            }
        } else if is("transfer-encoding") {
            return Err(bad("requests with content are not taken"));
        } else if is("range") && method == Method::Get {
            head.range = RangeSpec::parse(field.value);
        } else if is("if-range") {
            head.if_range = Some(String::from_utf8_lossy(field.value).trim().to_owned());
        } else if is("user-agent") {
            head.agent = Agent::of(field.value);
        } else if is("authorization") {
            head.bearer = bearer(field.value);
        } else if is("if-none-match") {
            let value = String::from_utf8_lossy(field.value);
            // Several fields are one list (RFC 9110 section 5.3).
            head.if_none_match = Some(
                head.if_none_match.take().map_or_else(|| value.to_string(), |list| format!("{list},{value}")),
            );
        }
    }
    if hosts > 1 || (hosts == 0 && !http_1_0) {
        return Err(bad("exactly one Host field is needed"));
    }
    let target = request.path.unwrap_or_default();
    (head.name, head.query) = target::parse(target).map_err(|error| bad(&error.to_string()))?;
    Ok(head)
}

/// The token of an `Authorization` field (RFC 6750 section 2.1); other schemes show nothing that counts here.
fn bearer(value: &[u8]) -> Option<Bearer> {
    let (scheme, token) = std::str::from_utf8(value).ok()?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Bearer::new(token.trim()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(text: &str) -> RequestHead {
        match parse(text.as_bytes()) {
            Parsed::Request { head, consumed } => {
                assert_eq!(consumed, text.len());
                head
            }
            other => panic!("{text:?}: {other:?}"),
        }
    }

    fn refused(text: &str) -> Status {
        match parse(text.as_bytes()) {
            Parsed::Refused(refusal) => refusal.status,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn reads_what_clients_send() {
        let get = head("GET /a/b.efi?x HTTP/1.1\r\nHost: h\r\nRange: bytes=1-2\r\nIf-Range: \"e\"\r\n\r\n");
        assert_eq!((get.method, get.name.as_str(), get.query.as_str()), (Method::Get, "a/b.efi", "x"));
        assert_eq!(get.range, Some(RangeSpec::Between(1, 2)));
        assert_eq!(get.if_range.as_deref(), Some("\"e\""));
        assert!(get.keep_alive);
        let uefi =
            head("HEAD /uki.efi HTTP/1.1\r\nHost: h\r\nAccept: */*\r\nUser-Agent: UefiHttpBoot/1.0\r\n\r\n");
        assert_eq!(uefi.method, Method::Head);
        assert!(!head("GET / HTTP/1.1\r\nhost:h\r\nCONNECTION: foo, Close\r\n\r\n").keep_alive);
        assert!(!head("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(head("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
        assert_eq!(head("HEAD / HTTP/1.1\r\nHost: h\r\nRange: bytes=1-2\r\n\r\n").range, None);
        let shown = |field: &str| head(&format!("GET / HTTP/1.1\r\nHost: h\r\n{field}\r\n\r\n")).bearer;
        assert_eq!(shown("authorization: bearer t0k"), Some(Bearer::new("t0k")));
        assert_eq!((shown("Authorization: Basic dDprCg=="), shown("Authorization: x")), (None, None));
        assert!(!format!("{:?}", shown("Authorization: Bearer t0k")).contains("t0k"));
        let list = head("GET / HTTP/1.1\r\nHost: h\r\nIf-None-Match: \"a\"\r\nIf-None-Match: \"b\"\r\n\r\n");
        assert_eq!(list.if_none_match.as_deref(), Some("\"a\",\"b\""));
    }

    #[test]
    fn refuses_what_it_does_not_serve() {
        assert_eq!(refused("POST / HTTP/1.1\r\nHost: h\r\n\r\n"), Status::MethodNotAllowed);
        assert_eq!(refused("GET / HTTP/1.1\r\n\r\n"), Status::BadRequest);
        assert_eq!(refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), Status::BadRequest);
        assert_eq!(refused("GET /../x HTTP/1.1\r\nHost: h\r\n\r\n"), Status::BadRequest);
        assert_eq!(
            refused("GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n"),
            Status::ContentTooLarge
        );
        assert_eq!(
            refused("GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"),
            Status::BadRequest
        );
        assert_eq!(refused("\0\0\0"), Status::BadRequest);
        assert_eq!(refused("PRI * HTTP/2.0\r\n\r\n"), Status::VersionNotSupported);
        assert_eq!(
            refused(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(MAX_HEAD))),
            Status::HeaderFieldsTooLarge
        );
        let fields = "a: b\r\n".repeat(MAX_FIELDS + 1);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{fields}\r\n")), Status::HeaderFieldsTooLarge);
    }

    #[test]
    fn waits_for_a_torn_head_and_leaves_the_next() {
        let text = b"GET /a HTTP/1.1\r\nHost: h\r\n\r\nGET /b HTTP/1.1\r\n";
        let end = text.len() - 17;
        for cut in 0..end {
            assert_eq!(parse(&text[..cut]), Parsed::Incomplete, "{cut}");
        }
        assert!(matches!(parse(text), Parsed::Request { consumed, .. } if consumed == end));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn no_fields_panic(target in "[!-~]{1,20}", name in "[a-zA-Z-]{1,16}", value in "[ -~]{0,30}") {
            let _ = parse(format!("GET {target} HTTP/1.1\r\nHost: h\r\n{name}: {value}\r\n\r\n").as_bytes());
        }
    }
}
