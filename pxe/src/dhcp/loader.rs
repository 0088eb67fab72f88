//! One table from client class to what it loads first.
//!
//! Owns names and transports of loaders. Never looks at a packet and never knows whether the file exists.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;

use super::class::{Arch, ClientClass};

/// A boot file: how it is fetched and under which name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loader {
    /// By TFTP from the answering node.
    Tftp(String),
    /// By HTTP from the answering node: the path without leading slash.
    Http(String),
    /// A complete URL, anywhere.
    Url(String),
    /// None: an address and no boot file, whatever the table for all says.
    Nothing,
}

impl Loader {
    /// What goes into option 67 and the `file` field: a bare name for TFTP, an absolute URL with an address and no
    /// name to resolve otherwise. Port 80 is left out.
    #[must_use]
    pub fn boot_file(&self, server: Ipv4Addr, http_port: u16) -> Option<String> {
        match self {
            Self::Tftp(name) => Some(name.clone()),
            Self::Http(path) if http_port == 80 => Some(format!("http://{server}/{path}")),
            Self::Http(path) => Some(format!("http://{server}:{http_port}/{path}")),
            Self::Url(url) => Some(url.clone()),
            Self::Nothing => None,
        }
    }
}

impl FromStr for Loader {
    type Err = BadLoader;

    /// Reads `tftp:NAME`, `http:PATH`, a URL, or `none`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let named = |name: &str| (!name.is_empty()).then(|| name.to_owned()).ok_or(BadLoader);
        match text.split_once(':') {
            _ if text == "none" => Ok(Self::Nothing),
            _ if text.contains("://") => Ok(Self::Url(text.to_owned())),
            Some(("tftp", name)) => named(name).map(Self::Tftp),
            Some(("http", path)) => named(path.trim_start_matches('/')).map(Self::Http),
            _ => Err(BadLoader),
        }
    }
}

/// The text names no loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a loader: write tftp:NAME, http:PATH, a whole URL, or none")]
pub struct BadLoader;

/// From class to loader. Classes without an entry get an address and no boot file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoaderTable(BTreeMap<ClientClass, Loader>);

impl Default for LoaderTable {
    /// Plain PXE ROMs and x86-64 UEFI get an iPXE that uses the firmware's own network driver; every iPXE gets the
    /// boot script.
    fn default() -> Self {
        let tftp = |name: &str| Loader::Tftp(name.into());
        let http = |path: &str| Loader::Http(path.into());
        Self(BTreeMap::from([
            (ClientClass::BiosPxe, tftp("undionly.kpxe")),
            (ClientClass::BiosIpxe, http("boot.ipxe")),
            (ClientClass::UefiPxe { arch: Arch::X64 }, tftp("snponly.efi")),
            (ClientClass::UefiHttp { arch: Arch::X64_HTTP }, http("snponly.efi")),
            (ClientClass::UefiIpxe, http("boot.ipxe")),
        ]))
    }
}

impl LoaderTable {
    /// A table without entries.
    #[must_use]
    pub fn empty() -> Self {
        Self(BTreeMap::new())
    }

    /// Sets what a class loads.
    pub fn set(&mut self, class: ClientClass, loader: Loader) {
        self.0.insert(canonical(class), loader);
    }

    /// Sets what `other` sets.
    pub fn extend(&mut self, other: &Self) {
        self.0.extend(other.0.clone());
    }

    /// What a class loads.
    #[must_use]
    pub fn get(&self, class: ClientClass) -> Option<&Loader> {
        self.0.get(&canonical(class))
    }
}

fn canonical(class: ClientClass) -> ClientClass {
    match class {
        ClientClass::UefiPxe { arch } => ClientClass::UefiPxe { arch: arch.canonical() },
        ClientClass::UefiHttp { arch } if arch.canonical() == Arch::X64 => {
            ClientClass::UefiHttp { arch: Arch::X64_HTTP }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_x64_codes_load_the_same() {
        let table = LoaderTable::default();
        let nine = table.get(ClientClass::UefiPxe { arch: Arch::EBC });
        assert_eq!(nine, table.get(ClientClass::UefiPxe { arch: Arch::X64 }));
        assert!(nine.is_some());
        assert_eq!(table.get(ClientClass::Plain), None);
    }

    #[test]
    fn loaders_are_read() {
        assert_eq!("tftp:grubx64.efi".parse(), Ok(Loader::Tftp("grubx64.efi".into())));
        assert_eq!("http:/uki.efi".parse(), Ok(Loader::Http("uki.efi".into())));
        assert_eq!("https://a/b".parse(), Ok(Loader::Url("https://a/b".into())));
        assert_eq!("none".parse(), Ok(Loader::Nothing));
        for bad in ["", "grub", "tftp:", "ftp:x"] {
            assert!(bad.parse::<Loader>().is_err(), "{bad}");
        }
    }

    #[test]
    fn urls_name_addresses_and_only_unusual_ports() {
        let server = Ipv4Addr::new(10, 0, 0, 1);
        let script = Loader::Http("boot.ipxe".into());
        assert_eq!(script.boot_file(server, 80), Some("http://10.0.0.1/boot.ipxe".into()));
        assert_eq!(script.boot_file(server, 8080), Some("http://10.0.0.1:8080/boot.ipxe".into()));
    }
}
