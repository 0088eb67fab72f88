//! Images in a registry (OCI distribution specification, "Pull"; token authentication as Docker's registry documents it).
//!
//! Owns the requests, who asks (a token once the registry wants one) and the files that layers become. Content goes through its
//! digest while it is written. Nothing is waited for longer than [`PATIENCE`]. Proxies as `HTTPS_PROXY` and its like name them.

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio_rustls::rustls::crypto::ring::default_provider;
use ureq::http::{Response, Uri};
use ureq::tls::{RootCerts, TlsConfig};
use ureq::{Agent, Body, Timeout};

use super::credentials::Credentials;
use super::document::Descriptor;
use super::registry_error::RegistryError;
use super::source::{Reference, Version, is_local};
use super::{Blobs, ImportError, MAX_DOCUMENT, certificates, layout};
use crate::image::progress::Progress;

/// What may come for a manifest.
const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";

/// To connect.
const CONNECT: Duration = Duration::from_secs(15);
/// For the head of an answer, and between any two pieces of its body. Registries that fetch from elsewhere first take their time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest explanation of a registry that an error repeats, in bytes.
const MAX_WORDS: u64 = 400;

/// An image in a registry.
pub(super) struct Registry<'a> {
    agent: Agent,
    reference: Reference,
    /// Whether the registry is spoken to without TLS.
    plain: bool,
    /// Whether the operator said so.
    plain_http: bool,
    patience: Duration,
    /// `http://HOST/v2/REPOSITORY`, or with https.
    base: String,
    credentials: Option<Credentials>,
    /// The header that the registry let us in with.
    authorization: RefCell<Option<String>>,
    scratch: &'a Path,
}

/// A token, in one of its two names.
#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl<'a> Registry<'a> {
    pub(super) fn new(
        reference: Reference,
        credentials: Option<Credentials>,
        plain_http: bool,
        scratch: &'a Path,
    ) -> Result<Self, RegistryError> {
        let kept = certificates::of_registry(&reference.host, &certificates::directories())?;
        // Who keeps certificates for a registry on this machine means TLS.
        let plain = plain_http || (is_local(&reference.host) && kept.is_none());
        let kept = kept.unwrap_or_default();
        let authorities: Vec<_> = kept.authorities.into_iter().chain(certificates::of_system()).collect();
        if authorities.is_empty() && !plain {
            return Err(RegistryError::NoCertificates { looked: &certificates::OF_SYSTEM });
        }
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(default_provider()))
            // Without TLS as well: the registry may send us to a place that has it.
            .root_certs(RootCerts::Specific(Arc::new(authorities)))
            .client_cert(kept.own.filter(|_| !plain))
            .build();
        let scheme = if plain { "http" } else { "https" };
        let base = format!("{scheme}://{}/v2/{}", reference.server(), reference.repository);
        let registry = Self {
            agent: agent(&tls, plain, PATIENCE),
            reference,
            plain,
            plain_http,
            patience: PATIENCE,
            base,
            credentials,
            authorization: RefCell::default(),
            scratch,
        };
        Ok(registry)
    }

    /// Gets what is at `path` of the repository; `what` names it in errors.
    fn get(&self, path: &str, what: &str) -> Result<Response<Body>, RegistryError> {
        let url = format!("{}/{path}", self.base);
        let mut answer = self.ask(&url)?;
        if answer.status() == 401 {
            let challenge = answer.headers().get("www-authenticate").and_then(|value| value.to_str().ok());
            let authorization = self.authorize(challenge.unwrap_or_default())?;
            if let Some(authorization) = authorization {
                self.authorization.replace(Some(authorization));
                answer = self.ask(&url)?;
            }
        }
        let host = || self.reference.host.clone();
        match answer.status().as_u16() {
            200 => Ok(answer),
            404 => Err(RegistryError::NotFound { host: host(), what: what.to_owned() }),
            status @ (401 | 403) => {
                let shown = self.credentials.is_some();
                Err(RegistryError::Denied { host: host(), what: what.to_owned(), status, shown })
            }
            status => {
                let mut words = String::new();
                drop(answer.into_body().into_reader().take(MAX_WORDS).read_to_string(&mut words));
                Err(RegistryError::Status { url, status, words: words.trim().to_owned() })
            }
        }
    }

    fn ask(&self, url: &str) -> Result<Response<Body>, RegistryError> {
        let mut request = self.agent.get(url).header("Accept", ACCEPT);
        if let Some(authorization) = &*self.authorization.borrow() {
            request = request.header("Authorization", authorization);
        }
        request.call().map_err(|source| self.http(url, source))
    }

    /// Why there is no answer from `url`.
    fn http(&self, url: &str, source: ureq::Error) -> RegistryError {
        let url = url.to_owned();
        match source {
            ureq::Error::Timeout(Timeout::PerRead | Timeout::PerWrite | Timeout::RecvResponse) => {
                RegistryError::Silent { url, patience: self.patience }
            }
            source => RegistryError::Http { url, plain: self.plain, source: Box::new(source) },
        }
    }

    /// Why the answer from `url` is not whole.
    fn broken_off(&self, url: &str, source: io::Error) -> RegistryError {
        match self.http(url, source.into()) {
            RegistryError::Http { url, source, .. } => RegistryError::BrokenOff { url, source },
            silent => silent,
        }
    }

    /// Whether `realm` may be shown what is kept for the registry, which goes nowhere in the open but where the operator says so
    /// and to this machine.
    fn may_be_shown(&self, realm: &str) -> bool {
        let Ok(realm) = realm.parse::<Uri>() else { return false };
        match (realm.scheme_str(), realm.authority()) {
            (Some("https"), Some(_)) => true,
            (Some("http"), Some(host)) => self.plain && (self.plain_http || is_local(host.host())),
            _ => false,
        }
    }

    /// What to show after `challenge` (RFC 9110 section 11.6.1); none if there is nothing to show.
    fn authorize(&self, challenge: &str) -> Result<Option<String>, RegistryError> {
        let refused = || RegistryError::Challenge {
            host: self.reference.host.clone(),
            challenge: challenge.to_owned(),
        };
        let (scheme, parameters) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return match &self.credentials {
                Some(Credentials::Basic(basic)) => Ok(Some(format!("Basic {basic}"))),
                Some(Credentials::Identity(_)) => Err(refused()),
                None => Ok(None),
            };
        }
        let realm = parameter(parameters, "realm").filter(|_| scheme.eq_ignore_ascii_case("bearer"));
        let realm = realm.filter(|realm| self.may_be_shown(realm)).ok_or_else(refused)?;
        let service = parameter(parameters, "service").unwrap_or_default();
        let scope = parameter(parameters, "scope")
            .unwrap_or_else(|| format!("repository:{}:pull", self.reference.repository));
        let answer = if let Some(Credentials::Identity(token)) = &self.credentials {
            let form = [
                ("grant_type", "refresh_token"),
                ("client_id", "bootfabric"),
                ("service", &service),
                ("scope", &scope),
                ("refresh_token", token),
            ];
            self.agent.post(&realm).send_form(form)
        } else {
            let mut request = self.agent.get(&realm).query("service", &service).query("scope", &scope);
            if let Some(Credentials::Basic(basic)) = &self.credentials {
                request = request.header("Authorization", format!("Basic {basic}"));
            }
            request.call()
        };
        let answer = answer.map_err(|source| self.http(&realm, source))?;
        if answer.status() != 200 {
            return Ok(None);
        }
        let token: Token =
            serde_json::from_slice(&self.read_document(answer, &realm)?).map_err(|_| refused())?;
        let token = token.token.or(token.access_token).ok_or_else(refused)?;
        Ok(Some(format!("Bearer {token}")))
    }

    fn get_document(&self, path: &str, what: &str) -> Result<Vec<u8>, RegistryError> {
        let answer = self.get(path, what)?;
        self.read_document(answer, &format!("{}/{path}", self.base))
    }

    fn read_document(&self, answer: Response<Body>, url: &str) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::new();
        let read = answer.into_body().into_reader().take(MAX_DOCUMENT).read_to_end(&mut bytes);
        read.map_err(|source| self.broken_off(url, source))?;
        Ok(bytes)
    }
}

impl Blobs for Registry<'_> {
    fn first(&self) -> Result<Vec<u8>, ImportError> {
        let version = match &self.reference.version {
            Version::Tag(tag) => tag.clone(),
            Version::Digest(digest) => digest.to_string(),
        };
        let bytes = self.get_document(&format!("manifests/{version}"), &self.reference.to_string())?;
        if let Version::Digest(digest) = &self.reference.version {
            digest.check(&bytes, "its manifest")?;
        }
        Ok(bytes)
    }

    fn document(&self, descriptor: &Descriptor, what: &'static str) -> Result<Vec<u8>, ImportError> {
        let digest = &descriptor.digest;
        let kind = if what == "manifest" { "manifests" } else { "blobs" };
        let bytes = self.get_document(&format!("{kind}/{digest}"), &format!("{what} {digest}"))?;
        digest.check(&bytes, &format!("its {what}"))?;
        Ok(bytes)
    }

    fn layer(&self, descriptor: &Descriptor, progress: &dyn Progress) -> Result<PathBuf, ImportError> {
        let digest = &descriptor.digest;
        let path = self.scratch.join(digest.to_string().replace(':', "-"));
        if path.exists() {
            // The same layer twice: it was checked the first time.
            return Ok(path);
        }
        let part = path.with_extension("part");
        let write = |source| ImportError::Write { path: part.clone(), source };
        let mut file = File::create(&part).map_err(write)?;
        let what = format!("the layer {digest}");
        let url = format!("blobs/{digest}");
        // One byte more than there should be is enough to know.
        let limit = descriptor.size.saturating_add(1);
        let body = self.get(&url, &what)?.into_body().into_reader().take(limit);
        let (mut checker, mut found, mut written) = (digest.checker(), 0, Ok(()));
        let read = layout::pieces(body, |piece| {
            checker.update(piece);
            found += piece.len() as u64;
            progress.advance(piece.len() as u64);
            if written.is_ok() {
                written = file.write_all(piece);
            }
        });
        read.map_err(|source| self.broken_off(&format!("{}/{url}", self.base), source))?;
        written.map_err(write)?;
        if found != descriptor.size {
            return Err(ImportError::Size { what, expected: descriptor.size, found });
        }
        checker.finish(&what)?;
        std::fs::rename(&part, &path).map_err(write)?;
        Ok(path)
    }
}

fn agent(tls: &TlsConfig, plain: bool, patience: Duration) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .https_only(!plain)
        .timeout_connect(Some(CONNECT))
        .timeout_recv_response(Some(patience))
        .timeout_per_read(Some(patience))
        .timeout_per_write(Some(patience))
        .user_agent(concat!("bootfabric/", env!("CARGO_PKG_VERSION")))
        .tls_config(tls.clone())
        .build()
        .into()
}

/// The value of a parameter of a challenge: `name="value"`, with commas between them.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, next) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        if key.trim_matches([' ', ',']).eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = next;
    }
}

#[cfg(test)]
#[path = "registry_tests.rs"]
mod tests;
