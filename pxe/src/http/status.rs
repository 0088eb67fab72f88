//! The HTTP statuses this service answers with (RFC 9110 section 15).

/// A status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The whole file.
    Ok,
    /// One range of it.
    PartialContent,
    /// The client's copy is current.
    NotModified,
    /// The request cannot be understood.
    BadRequest,
    /// The file is not for this client.
    Forbidden,
    /// No file of that name.
    NotFound,
    /// A method other than GET and HEAD.
    MethodNotAllowed,
    /// The head did not arrive in time.
    RequestTimeout,
    /// The file exists, these bytes of it are not here (yet): ask another node. Not 404, so that a peer knows the
    /// difference; not 503, which asks to come back to the same node.
    Conflict,
    /// The request has a body.
    ContentTooLarge,
    /// The range lies outside the file.
    RangeNotSatisfiable,
    /// The head is too large.
    HeaderFieldsTooLarge,
    /// Reading failed.
    InternalServerError,
    /// Above a bound; `Retry-After` tells when to come back.
    ServiceUnavailable,
    /// Not HTTP/1.x.
    VersionNotSupported,
}

impl Status {
    /// The number.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::PartialContent => 206,
            Self::NotModified => 304,
            Self::BadRequest => 400,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::RequestTimeout => 408,
            Self::Conflict => 409,
            Self::ContentTooLarge => 413,
            Self::RangeNotSatisfiable => 416,
            Self::HeaderFieldsTooLarge => 431,
            Self::InternalServerError => 500,
            Self::ServiceUnavailable => 503,
            Self::VersionNotSupported => 505,
        }
    }

    /// The reason phrase.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::PartialContent => "Partial Content",
            Self::NotModified => "Not Modified",
            Self::BadRequest => "Bad Request",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::RequestTimeout => "Request Timeout",
            Self::Conflict => "Conflict",
            Self::ContentTooLarge => "Content Too Large",
            Self::RangeNotSatisfiable => "Range Not Satisfiable",
            Self::HeaderFieldsTooLarge => "Request Header Fields Too Large",
            Self::InternalServerError => "Internal Server Error",
            Self::ServiceUnavailable => "Service Unavailable",
            Self::VersionNotSupported => "HTTP Version Not Supported",
        }
    }

    /// Whether the client got what it asked for.
    #[must_use]
    pub fn is_success(self) -> bool {
        self.code() < 400
    }
}
