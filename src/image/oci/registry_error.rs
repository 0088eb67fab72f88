//! Why a registry gives no image, and what may be done about it.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why a registry gives no image.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It cannot be reached.
    #[error("cannot get `{url}`{}", hint(*.plain, source))]
    Http {
        /// What was asked for.
        url: String,
        /// Whether without TLS.
        plain: bool,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// It says nothing, or no more.
    #[error(
        "the registry has been silent for {} s in the middle of `{url}`: try again; if it stays so, look at the registry, and at proxies and firewalls on the way to it", .patience.as_secs_f32()
    )]
    Silent {
        /// What was asked for.
        url: String,
        /// How long was waited.
        patience: Duration,
    },
    /// It begins an answer and does not end it.
    #[error("the registry breaks off in the middle of `{url}`: try again")]
    BrokenOff {
        /// What was asked for.
        url: String,
        /// Why.
        source: Box<ureq::Error>,
    },
    /// There is no such image.
    #[error("the registry {host} has no `{what}`")]
    NotFound {
        /// The registry.
        host: String,
        /// Image or layer.
        what: String,
    },
    /// It wants to know who asks, or to know better.
    #[error(
        "the registry {host} refuses `{what}` ({status}; {}): log in with `skopeo login {host}`, `podman login {host}` or `docker login {host}`",
        if *.shown { "the credentials kept for it were shown" } else { "no credentials are kept for it" }
    )]
    Denied {
        /// The registry.
        host: String,
        /// Image or layer.
        what: String,
        /// HTTP status.
        status: u16,
        /// Whether credentials were shown.
        shown: bool,
    },
    /// It answers something else.
    #[error("the registry answers `{url}` with status {status}: {words}")]
    Status {
        /// What was asked for.
        url: String,
        /// HTTP status.
        status: u16,
        /// The beginning of what it said.
        words: String,
    },
    /// It wants to be shown something that is not known here, or at a place where others could read it.
    #[error("the registry {host} wants `{challenge}`, which cannot be done")]
    Challenge {
        /// The registry.
        host: String,
        /// Its header.
        challenge: String,
    },
    /// A file with credentials that makes no sense.
    #[error("the credentials in `{}` are malformed", path.display())]
    AuthFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A program that keeps credentials.
    #[error("cannot ask `{name}` for credentials")]
    Helper {
        /// The program.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// A certificate that is kept for the registry.
    #[error("cannot use `{}`, which is kept for the registry: {why}", path.display())]
    Certificate {
        /// Its file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Nobody to trust.
    #[error("there are no certificates to check registries with (looked for {}): install them (Debian: apt install ca-certificates), or name their file in SSL_CERT_FILE", .looked.join(", "))]
    NoCertificates {
        /// Where they would be.
        looked: &'static [&'static str],
    },
}

/// What may be done about it.
fn hint<'a>(plain: bool, error: &'a ureq::Error) -> &'static str {
    use tokio_rustls::rustls::{AlertDescription, CertificateError, Error};
    let of_io = |error: &'a io::Error| error.get_ref().and_then(|inner| inner.downcast_ref());
    let of_tls: Option<&Error> = match error {
        ureq::Error::Rustls(error) => Some(error),
        ureq::Error::Io(error) => of_io(error),
        _ => None,
    };
    match of_tls {
        None | Some(Error::InvalidMessage(_)) if !plain => " (--plain-http is for registries without TLS)",
        Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            " (its authority is not known here: put its certificate as NAME.crt into /etc/containers/certs.d/HOST[:PORT])"
        }
        Some(Error::InvalidCertificate(CertificateError::Other(why)))
            if format!("{why:?}").contains("CaUsedAsEndEntity") =>
        {
            " (a certificate that is itself an authority, CA:TRUE, cannot be a registry's own: make one with CA:FALSE)"
        }
        Some(Error::AlertReceived(
            AlertDescription::CertificateRequired | AlertDescription::BadCertificate,
        )) => {
            " (it wants a certificate of ours: put it and its key as NAME.cert and NAME.key into /etc/containers/certs.d/HOST[:PORT])"
        }
        _ => "",
    }
}
