//! What a node serves over TFTP and HTTP, looked up in its store.
//!
//! | name | what |
//! |---|---|
//! | `boot.ipxe` | the boot script, made for the client that asks |
//! | `boot/<release>/kernel`, `boot/<release>/first-stage` | the boot blobs of a release |
//! | `undionly.kpxe`, `snponly.efi`, … | the operator's own files, then the loaders of the current release |
//! | `blob/<id>` | the bytes of a blob: whole, or the ranges that are held |
//! | `status` | what `bootfabric status` shows, as JSON |
//! | `metrics` | counters for Prometheus |
//!
//! Loaders are found under the names that firmware makes of theirs ([`loader_names`]).
//!
//! In a private fabric `blob/` and `status` are closed here: members are given blobs over TLS, by another service. Firmware can show
//! no token, so whatever boots a machine stays open.
//!
//! Boot files that are still arriving are served as they arrive; a range of a `blob/` that is not here is refused at
//! once, because the asking peer has others to ask.

use std::net::{IpAddr, Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use fabric::content::BlobRef;
use fabric::id::{BlobId, ObjectId};
use fabric::store::{Blob, Store};
use fabric::trust::Release;
use pxe::files::{BootFiles, FileBody, FileError, FileRequest, MemoryBody, ServedFile, Slice};

use super::arriving::Arriving;
use super::metrics;
use super::own_files::OwnFiles;
use super::script::{Script, wait_script, who_script};
use super::view::View;
use crate::machines::Machines;

/// Seconds a client waits before it asks for the script again when there is no release yet.
const NO_RELEASE_PAUSE: u32 = 2;

/// What is said of what only members are given.
const CLOSED: &str = "this fabric is private: only its members are given this, and not here; `bootfabric member` admits a machine";

/// Who asks for a script.
enum Machine {
    /// One that the settings name.
    Known(String),
    /// One that they do not name.
    Other,
    /// Only its address is known.
    Unseen,
}

/// The files of one node.
pub(crate) struct NodeFiles {
    store: Store,
    view: Arc<View>,
    private: bool,
    own: Option<OwnFiles>,
}

impl NodeFiles {
    /// Files out of `store`, for the releases that `view` knows, and the operator's `own`.
    pub(crate) fn new(store: Store, view: Arc<View>, own: Option<OwnFiles>) -> Self {
        let private = view.config().private;
        Self { store, view, private, own }
    }

    async fn script(&self, request: &FileRequest) -> String {
        let base = format!("http://{}", request.local);
        let wait = |reason| wait_script(reason, NO_RELEASE_PAUSE, &base);
        let (IpAddr::V4(local), IpAddr::V4(client)) = (request.local.ip(), request.client.ip()) else {
            return wait("this service speaks IPv4 only");
        };
        let known = (self.view.release(), self.view.settings(), self.view.machines());
        let (Some(current), Some(settings), Some(machines)) = known else {
            return wait("no release here yet");
        };
        let machine = match self.machine(&request.query, client, &machines).await {
            Machine::Known(name) => Some(name),
            Machine::Other => None,
            Machine::Unseen => return who_script(&base),
        };
        let me = SocketAddrV4::new(local, request.local.port());
        let mut peers = vec![me];
        peers.extend(self.view.boot_peers(client).into_iter().filter(|peer| *peer != me));
        let Release { name, version, generation, .. } = &current.release;
        Script {
            release: current.id,
            title: format!("{name} {version} (generation {generation})"),
            cmdline: &current.release.cmdline,
            more_args: machines.kernel_args(machine.as_deref()),
            name: machine.as_deref(),
            client,
            prefix: machines.prefix_of(client),
            gateway: machines.gateway_of(client, machine.as_deref()),
            peers,
            swarm_port: settings.swarm_port,
        }
        .render()
    }

    /// Which machine asks for the script: by what it says of itself, else by the lease of its address.
    async fn machine(&self, query: &str, client: Ipv4Addr, machines: &Machines) -> Machine {
        if !machines.tells_machines_apart() {
            return Machine::Other;
        }
        let said = |name: &str| {
            query
                .split('&')
                .find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
                .map(|value| value.replace("%3A", ":"))
        };
        if let Some(mac) = said("mac") {
            let uuid = said("uuid").and_then(|uuid| uuid.parse().ok());
            return machines
                .name_of(mac.parse().ok(), uuid)
                .map_or(Machine::Other, |name| Machine::Known(name.to_owned()));
        }
        let seen = match self.view.dhcp() {
            Some(dhcp) => dhcp.client_at(client).await.ok().flatten(),
            None => None,
        };
        seen.map_or(Machine::Unseen, |seen| seen.name.map_or(Machine::Other, Machine::Known))
    }

    fn boot_file(&self, path: &str) -> Result<ServedFile, FileError> {
        let (release, file) = path.split_once('/').ok_or(FileError::NotFound)?;
        let id: ObjectId = release.parse().map_err(|_| FileError::NotFound)?;
        let release = self.view.release_by_id(id).ok_or(FileError::NotFound)?;
        match file {
            "kernel" => self.boot_blob(&release.kernel),
            "first-stage" => self.boot_blob(&release.first_stage),
            _ => Err(FileError::NotFound),
        }
    }

    async fn loader(&self, name: &str) -> Result<ServedFile, FileError> {
        let current = self.view.release();
        for name in loader_names(name) {
            if let Some(own) = &self.own
                && let Some(file) = own.open(name).await?
            {
                return Ok(file);
            }
            let loaders = current.iter().flat_map(|current| &current.release.loaders);
            if let Some(loader) = loaders.into_iter().find(|loader| loader.name == name) {
                return self.boot_blob(&loader.blob);
            }
        }
        Err(FileError::NotFound)
    }

    /// A file that firmware waits for: what is not here yet is served as it arrives.
    fn boot_blob(&self, reference: &BlobRef) -> Result<ServedFile, FileError> {
        let blob = self.store.blob(&reference.blob).ok_or(FileError::NotHeld)?;
        Ok(served(&blob, Arc::new(StoredBlob { blob: Arc::clone(&blob), wait: true })))
    }
}

/// What a client may mean by `name`, most exact first: some proxy servers append `.0` to the names of BIOS loaders, iPXE
/// builds and EDK2 forks put the hardware address before it, and a Raspberry Pi its serial number.
fn loader_names(name: &str) -> impl Iterator<Item = &str> {
    let bare = name.split_once('/').filter(|(first, _)| is_machine(first)).map(|(_, bare)| bare);
    let short = [Some(name), bare].into_iter().flatten().filter_map(|name| name.strip_suffix(".0"));
    [Some(name), bare].into_iter().flatten().chain(short)
}

/// Whether a directory is a hardware address, `52:54:00:…` or `01-52-54-00-…`, or a serial number of eight digits.
fn is_machine(directory: &str) -> bool {
    let bytes: Vec<_> = directory.split([':', '-']).collect();
    let all_hex = bytes.iter().all(|byte| !byte.is_empty() && byte.bytes().all(|c| c.is_ascii_hexdigit()));
    all_hex
        && match bytes.len() {
            1 => directory.len() == 8,
            6 | 7 => bytes.iter().all(|byte| byte.len() == 2),
            _ => false,
        }
}

/// The blob `id` of `store` for a peer: what is not here is refused.
pub(crate) fn blob_for_peer(store: &Store, id: &str) -> Result<ServedFile, FileError> {
    let id: BlobId = id.parse().map_err(|_| FileError::NotFound)?;
    let blob = store.blob(&id).ok_or(FileError::NotHeld)?;
    Ok(served(&blob, Arc::new(StoredBlob { blob: Arc::clone(&blob), wait: false })))
}

fn served(blob: &Blob, body: Arc<dyn FileBody>) -> ServedFile {
    ServedFile { content_type: None, etag: Some(blob.index().blob().to_string()), body }
}

fn generated(content_type: &'static str, text: impl Into<Bytes>) -> ServedFile {
    ServedFile { content_type: Some(content_type), etag: None, body: Arc::new(MemoryBody(text.into())) }
}

#[async_trait]
impl BootFiles for NodeFiles {
    async fn open(&self, request: &FileRequest) -> Result<ServedFile, FileError> {
        let name = request.name.as_str();
        match name.split_once('/') {
            Some(("blob", _)) if self.private => Err(FileError::Forbidden(CLOSED.into())),
            None if name == "status" && self.private => Err(FileError::Forbidden(CLOSED.into())),
            Some(("blob", id)) => blob_for_peer(&self.store, id),
            Some(("boot", path)) => self.boot_file(path),
            None if name == "boot.ipxe" => Ok(generated("text/plain", self.script(request).await)),
            None if name == "status" => Ok(generated("application/json", self.view.status_json().await)),
            None if name == "metrics" => Ok(generated(metrics::CONTENT_TYPE, metrics::of(&self.view).await)),
            _ => self.loader(name).await,
        }
    }
}

/// A blob of the store as the body of a file.
struct StoredBlob {
    blob: Arc<Blob>,
    /// Whether a reader waits for chunks that are still arriving.
    wait: bool,
}

#[async_trait]
impl FileBody for StoredBlob {
    fn len(&self) -> u64 {
        self.blob.index().size()
    }

    async fn slice(&self, range: Range<u64>) -> Result<Slice, FileError> {
        if let Some(file) = self.blob.held_file(range.clone()) {
            Ok(Slice::File { file, range })
        } else if self.wait {
            Ok(Slice::Stream(Arriving::stream(Arc::clone(&self.blob), range)))
        } else {
            Err(FileError::NotHeld)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(name: &str) -> Vec<&str> {
        loader_names(name).collect()
    }

    #[test]
    fn d36_bios_loaders_are_found_with_and_without_the_ending_that_proxies_append() {
        assert_eq!(names("undionly.kpxe.0"), ["undionly.kpxe.0", "undionly.kpxe"]);
        assert_eq!(names("pxelinux.0"), ["pxelinux.0", "pxelinux"]);
    }

    #[test]
    fn t8_names_behind_a_machine_are_those_of_the_loader() {
        for machine in ["52:54:00:aa:bb:cc", "01-52-54-00-aa-bb-cc", "52-54-00-AA-BB-CC", "1a2b3c4d"] {
            let name = format!("{machine}/snponly.efi");
            assert_eq!(names(&name), [&name, "snponly.efi"], "{machine}");
        }
        for other in
            ["boot/snponly.efi", "52:54:00:aa:bb/x", "zz:54:00:aa:bb:cc/x", "1a2b3c4/x", "snponly.efi", ""]
        {
            assert_eq!(names(other), [other]);
        }
        assert_eq!(names("52:54:00:aa:bb:cc/undionly.kpxe.0").last(), Some(&"undionly.kpxe"));
    }
}
