//! Whom a registry's TLS is checked against, and who we are in it: the system's certificates, and those that container tools
//! keep for single registries (containers-certs.d(5)).
//!
//! Owns where both are looked for. A directory `certs.d/HOST[:PORT]` holds certificates of authorities (`*.crt`) and of ourselves
//! (`*.cert`, with the key in a `*.key` of the same name); the first such directory that is there counts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, parse_pem};

use super::registry_error::RegistryError;

/// Where systems keep the certificates that they trust: Debian and its like, Fedora, Alpine, openSUSE.
pub(super) const OF_SYSTEM: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// What is kept for one registry.
#[derive(Debug, Default)]
pub(super) struct OfRegistry {
    /// Authorities that are trusted beside the system's.
    pub(super) authorities: Vec<Certificate<'static>>,
    /// What the registry is shown.
    pub(super) own: Option<ClientCert>,
}

/// Where container tools keep what is for single registries, in the order in which they look.
pub(super) fn directories() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").filter(|home| !home.is_empty());
    let of_user = home.map(|home| Path::new(&home).join(".config/containers/certs.d"));
    of_user.into_iter().chain(["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()]).collect()
}

/// What `directories` keep for the registry `host` (with its port, if it is called by one); `None` if none has a
/// directory of that name.
pub(super) fn of_registry(host: &str, directories: &[PathBuf]) -> Result<Option<OfRegistry>, RegistryError> {
    let Some(directory) = directories.iter().map(|one| one.join(host)).find(|one| one.is_dir()) else {
        return Ok(None);
    };
    let error = |source| wrong(&directory, &source);
    let listed = fs::read_dir(&directory).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(error)?;
    let mut files: Vec<PathBuf> = listed.into_iter().map(|entry| entry.path()).collect();
    files.sort_unstable();
    let mut found = OfRegistry::default();
    for file in files {
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("crt") => found.authorities.extend(authorities(&file)?),
            // Of several the first, as for container tools.
            Some("cert") if found.own.is_none() => found.own = Some(own(&file)?),
            _ => {}
        }
    }
    Ok(Some(found))
}

/// What the system trusts; nothing if no such file can be read.
pub(super) fn of_system() -> Vec<Certificate<'static>> {
    let own = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let mut files = own.into_iter().chain(OF_SYSTEM.iter().map(PathBuf::from));
    files.find_map(|path| fs::read(path).ok()).map_or_else(Vec::new, |bytes| certificates(&bytes))
}

fn authorities(file: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let found = certificates(&fs::read(file).map_err(|error| wrong(file, &error))?);
    if found.is_empty() { Err(wrong(file, &"no certificate is in it (PEM)")) } else { Ok(found) }
}

/// The certificate in `file` and the key beside it.
fn own(file: &Path) -> Result<ClientCert, RegistryError> {
    let beside = file.with_extension("key");
    let chain = authorities(file)?;
    let key = fs::read(&beside).map_err(|error| wrong(&beside, &error))?;
    let fits = PrivateKeyDer::from_pem_slice(&key).map_err(|error| wrong(&beside, &error)).and_then(|key| {
        let chain = chain.iter().map(|one| CertificateDer::from(one.der().to_vec())).collect();
        let made = CertifiedKey::from_der(chain, key, &default_provider());
        made.map_err(|error| wrong(&beside, &format_args!("it is no key of {}: {error}", file.display())))
    });
    fits?;
    let key = PrivateKey::from_pem(&key).map_err(|error| wrong(&beside, &error))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn certificates(bytes: &[u8]) -> Vec<Certificate<'static>> {
    let items = parse_pem(bytes).filter_map(|item| match item {
        Ok(PemItem::Certificate(certificate)) => Some(certificate),
        _ => None,
    });
    items.collect()
}

fn wrong(path: &Path, why: &dyn std::fmt::Display) -> RegistryError {
    RegistryError::Certificate { path: path.to_owned(), why: why.to_string() }
}

#[cfg(test)]
#[path = "certificates_tests.rs"]
mod tests;
