//! The file services of a node: HTTP and TFTP over the same files, their sockets, and their events.
//!
//! Sockets are bound here or inherited from the agent before; a duplicate of each is kept, so that the next agent can
//! inherit it in turn. Firmware's requests become events; peers' requests for runs are only counted.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use pxe::bind::{self, BindError, BindOptions};
use pxe::dhcp::driver::Sockets as DhcpSockets;
use pxe::dhcp::interface::Interface;
use pxe::files::{BootFiles, Service};
use pxe::http::{HttpConfig, HttpServer, UploadLimit, Wrapper};
use pxe::service_event::{EventSink, Finished, Outcome, ServiceEvent};
use pxe::tftp::{TftpConfig, TftpServer};
use tokio::net::{TcpListener, UdpSocket, UnixListener};
use tokio_util::sync::CancellationToken;

use super::config::{DhcpMode, NodeConfig};
use super::control::{self, SocketRole};
use crate::event::{Event, Events};
use crate::limits::Limits;

/// Port of TFTP (RFC 1350).
const TFTP_PORT: u16 = 69;

/// The sockets of the services, for as long as this agent owns them.
#[derive(Default)]
pub(crate) struct Sockets {
    inherited: Vec<(SocketRole, OwnedFd)>,
    kept: Vec<(SocketRole, OwnedFd)>,
}

impl Sockets {
    /// Sockets that the agent before left.
    pub(crate) fn inherited(sockets: Vec<(SocketRole, OwnedFd)>) -> Self {
        Self { inherited: sockets, kept: Vec::new() }
    }

    fn take(&mut self, role: SocketRole) -> Option<OwnedFd> {
        let position = self.inherited.iter().position(|(kind, _)| *kind == role)?;
        Some(self.inherited.swap_remove(position).1)
    }

    /// Binds the boot services' sockets now, to be used when they start.
    pub(crate) fn bind_boot(&mut self, config: &NodeConfig) -> anyhow::Result<()> {
        if config.dhcp != DhcpMode::Off && !self.has(SocketRole::Dhcp) {
            let DhcpSockets { server, boot } = DhcpSockets::bind(&Interface::find(&config.interface)?)?;
            self.inherited.push((SocketRole::Dhcp, server.into()));
            self.inherited.extend(boot.map(|boot| (SocketRole::DhcpBoot, boot.into())));
        }
        if !self.has(SocketRole::Tftp) {
            self.inherited.push((SocketRole::Tftp, bind_tftp(&config.interface)?.into_std()?.into()));
        }
        Ok(())
    }

    fn has(&self, role: SocketRole) -> bool {
        self.inherited.iter().any(|(kind, _)| *kind == role)
    }

    /// The inherited sockets of the DHCP service, if there are any.
    pub(crate) fn take_dhcp(&mut self) -> Option<DhcpSockets> {
        let server = self.take(SocketRole::Dhcp)?;
        Some(DhcpSockets::from_fds(server, self.take(SocketRole::DhcpBoot)))
    }

    /// Keeps a duplicate of `socket` for the agent after this one.
    pub(crate) fn keep(&mut self, role: SocketRole, socket: &impl AsFd) -> std::io::Result<()> {
        self.kept.push((role, socket.as_fd().try_clone_to_owned()?));
        Ok(())
    }

    /// The socket for `role`: adopted if one was inherited, else made by `bind`.
    fn obtain<S: AsFd>(
        &mut self,
        role: SocketRole,
        adopt: impl FnOnce(OwnedFd) -> std::io::Result<S>,
        bind: impl FnOnce() -> Result<S, BindError>,
    ) -> anyhow::Result<S> {
        let socket = match self.take(role) {
            Some(socket) => adopt(socket).context("cannot use an inherited socket")?,
            None => bind()?,
        };
        self.keep(role, &socket).context("cannot duplicate a socket")?;
        Ok(socket)
    }

    /// The control socket at `path`: the predecessor's, or a new one, which replaces that of a predecessor that is gone.
    pub(crate) fn control(&mut self, path: &Path, takes_over: bool) -> anyhow::Result<UnixListener> {
        let listener = match self.take(SocketRole::Control) {
            Some(socket) => control::adopt(socket)?,
            None if takes_over => control::bind_fresh(path)?,
            None => control::bind(path)?,
        };
        self.keep(SocketRole::Control, &listener).context("cannot duplicate a socket")?;
        Ok(listener)
    }

    /// All sockets, in use or not yet, for the agent after this one.
    pub(crate) fn bequeath(self) -> (Vec<SocketRole>, Vec<OwnedFd>) {
        self.kept.into_iter().chain(self.inherited).unzip()
    }
}

/// What an HTTP service may take and give.
pub(crate) struct Bounds {
    /// Connections and downloads at once.
    pub(crate) limits: Limits,
    /// What leaves counts against it, whoever sends it.
    pub(crate) upload: Option<Arc<UploadLimit>>,
}

/// What an HTTP service is started with.
pub(crate) struct Http {
    /// Which of the sockets it has.
    pub(crate) role: SocketRole,
    /// Where it listens.
    pub(crate) at: SocketAddrV4,
    /// What it serves.
    pub(crate) files: Arc<dyn BootFiles>,
    /// What comes between TCP and HTTP.
    pub(crate) wrapper: Option<Arc<dyn Wrapper>>,
}

impl Http {
    /// Starts it.
    pub(crate) fn start(
        self,
        sockets: &mut Sockets,
        bounds: &Bounds,
        events: &Events,
        stop: CancellationToken,
    ) -> anyhow::Result<HttpServer> {
        let listener = sockets.obtain(
            self.role,
            |socket| TcpListener::from_std(socket.into()),
            || bind::tcp(self.at.into(), &BindOptions::default()),
        )?;
        let usual = HttpConfig::default();
        let bound = |limit: Option<u32>| limit.map(|limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let config = HttpConfig {
            max_connections: bound(bounds.limits.max_connections).unwrap_or(usual.max_connections),
            max_downloads: bound(bounds.limits.max_downloads).or(usual.max_downloads),
            upload_limit: bounds.upload.clone(),
            events: Arc::new(Served(events.clone())),
            wrapper: self.wrapper,
            ..usual
        };
        HttpServer::serve(listener, self.files, config, stop).context("cannot start the HTTP service")
    }
}

/// Starts TFTP on `interface`.
pub(crate) fn start_tftp(
    sockets: &mut Sockets,
    interface: &str,
    files: Arc<dyn BootFiles>,
    events: &Events,
    stop: CancellationToken,
) -> anyhow::Result<TftpServer> {
    let adopt = |socket: OwnedFd| UdpSocket::from_std(socket.into());
    let socket = sockets.obtain(SocketRole::Tftp, adopt, || bind_tftp(interface))?;
    let config = TftpConfig { events: Arc::new(Served(events.clone())), ..TftpConfig::default() };
    TftpServer::serve(socket, files, config, stop).context("cannot start the TFTP service")
}

fn bind_tftp(interface: &str) -> Result<UdpSocket, BindError> {
    let options = BindOptions { device: Some(interface.to_owned()), ..BindOptions::default() };
    bind::udp(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, TFTP_PORT).into(), &options)
}

/// Turns what the services tell into the node's events.
struct Served(Events);

impl EventSink for Served {
    fn listening(&self) -> bool {
        true
    }

    fn record(&self, event: ServiceEvent) {
        let ServiceEvent::Finished(Finished { transfer, status, bytes, micros, outcome }) = event else {
            return;
        };
        // Runs of blobs go to peers by the hundred: they are counted, not told one by one.
        if transfer.name.starts_with("blob/") || transfer.name == "status" {
            return;
        }
        let status = match (outcome, status) {
            (Outcome::Complete, Some(status)) => status.to_string(),
            (Outcome::Complete, None) => "done".to_owned(),
            (Outcome::Probe, _) => "probe".to_owned(),
            (Outcome::ClientLeft(reason), _) => format!("client left: {reason}"),
            (Outcome::Refused(reason), _) => format!("refused: {reason}"),
            (Outcome::Failed(reason), _) => format!("failed: {reason}"),
        };
        self.0.emit(Event::FileServed {
            service: match transfer.service {
                Service::Tftp => "tftp".into(),
                Service::Http => "http".into(),
            },
            name: transfer.name,
            client: transfer.client.to_string(),
            bytes,
            status,
            millis: micros / 1000,
        });
    }
}
