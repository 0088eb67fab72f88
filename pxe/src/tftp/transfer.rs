//! Drives one transfer: its socket, its clock and its bytes around the [`Sender`] core.
//!
//! One task per transfer, owned by the server. Aborting it loses nothing but the transfer: the client times out.
//! Transfers without windows leave the runtime for a thread of [`super::lockstep`] while there is one.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::task::coop::consume_budget;
use tokio::time::sleep_until;

use super::TftpConfig;
use super::lockstep;
use super::negotiate::{Agreed, Limits, negotiate};
use super::packet::{self, ErrorCode, PACKET_BUFFER, Packet, Request};
use super::reader::Reader;
use super::report::{BEGAN_ANEW, Report};
use super::sender::{Sender, Transmit};
use super::table::TransferState;
use super::wire::TransferSocket;
use crate::files::{BootFiles, FileBody, FileError, FileRequest, Service, boot_file_name};
use crate::service_event::{Finished, Outcome, ServiceEvent, Transfer, micros};

/// One request and what is needed to answer it.
pub(super) struct Job {
    pub(super) listener: Arc<UdpSocket>,
    pub(super) files: Arc<dyn BootFiles>,
    pub(super) config: Arc<TftpConfig>,
    pub(super) client: SocketAddr,
    pub(super) local: IpAddr,
    pub(super) state: TransferState,
    /// The threads for transfers without windows.
    pub(super) lanes: Arc<Semaphore>,
}

impl Job {
    /// Answers the datagram, which holds a read or a write request.
    pub(super) async fn run(self, datagram: &[u8]) -> Report {
        let started = Instant::now();
        let socket = match TransferSocket::open(&self.listener, self.client, self.local, &self.config) {
            Ok(socket) => socket,
            Err(error) => return Report::new(0, Outcome::Failed(format!("cannot open a socket: {error}"))),
        };
        let local = socket.local_addr().unwrap_or_else(|_| SocketAddr::new(self.local, 0));
        let mut request = FileRequest {
            service: Service::Tftp,
            name: String::new(),
            query: String::new(),
            bearer: None,
            client: self.client,
            local,
        };
        let (len, report) = match self.open(&socket, datagram, &mut request).await {
            Ok((body, agreed)) => {
                let len = body.len();
                if self.config.events.listening() {
                    self.config.events.record(ServiceEvent::Started(Transfer::of(&request, 0..len)));
                }
                (len, self.transfer(socket, body, agreed).await)
            }
            Err(Refusal { code, outcome }) => {
                let reason = match &outcome {
                    Outcome::Refused(reason) | Outcome::Failed(reason) => reason,
                    _ => "",
                };
                if let Some(code) = code {
                    // Once, without retransmission: a client that misses it asks again.
                    let _ = socket.send(&packet::error(code, reason)).await;
                }
                (0, Report { bytes: 0, outcome, error: code })
            }
        };
        if self.config.events.listening() {
            self.config.events.record(ServiceEvent::Finished(Finished {
                transfer: Transfer::of(&request, 0..len),
                status: report.error.map(ErrorCode::number),
                bytes: report.bytes,
                micros: micros(started.elapsed()),
                outcome: report.outcome.clone(),
            }));
        }
        report
    }

    /// What is asked for, and how it is to be sent.
    async fn open(
        &self,
        socket: &TransferSocket,
        datagram: &[u8],
        file_request: &mut FileRequest,
    ) -> Result<(Arc<dyn FileBody>, Agreed), Refusal> {
        let Ok(Packet::Rrq(request)) = Packet::parse(datagram) else {
            return Err(Refusal::new(ErrorCode::AccessViolation, "this server is read-only"));
        };
        file_request.name = checked_name(&request)?;
        let file = tokio::select! {
            file = self.files.open(file_request) => file?,
            () = self.state.abort.cancelled() => return Err(Refusal::anew()),
        };
        let limits = Limits {
            blksize: socket.max_blksize(self.client).min(self.config.max_blksize),
            windowsize: self.config.max_windowsize,
        };
        let agreed = negotiate(&request.options, file.body.len(), limits);
        Ok((file.body, agreed))
    }

    async fn transfer(&self, socket: TransferSocket, body: Arc<dyn FileBody>, agreed: Agreed) -> Report {
        let mut reader = Reader::new(Arc::clone(&body), agreed.blksize);
        let lane =
            (agreed.windowsize == 1).then(|| Arc::clone(&self.lanes).try_acquire_owned().ok()).flatten();
        let mut sender = Sender::new(agreed, body.len());
        if let Some(lane) = lane {
            return lockstep::run(socket, sender, reader, self.state.clone(), lane).await;
        }
        tokio::select! {
            report = self.send(&socket, &mut sender, &mut reader) => report,
            () = self.state.abort.cancelled() => Report::client_left(sender.bytes_acked(), &BEGAN_ANEW),
        }
    }

    async fn send(&self, socket: &TransferSocket, sender: &mut Sender, reader: &mut Reader) -> Report {
        let mut buffer = [0; PACKET_BUFFER];
        // Re-armed only when it fires or would be late: a deadline that moves with every ACK costs no timer operation.
        let mut alarm = Box::pin(sleep_until(Instant::now().into()));
        loop {
            let mut silent = true;
            while let Some(transmit) = sender.poll_transmit() {
                silent = false;
                let sent = match transmit {
                    Transmit::Oack(packet) => socket.send(&packet).await,
                    Transmit::Data(blocks) => {
                        if let Err(error) = reader.load(&blocks).await {
                            return read_failed(socket, sender, &error).await;
                        }
                        send_blocks(socket, reader, blocks).await
                    }
                };
                if let Err(error) = sent {
                    return Report::client_left(sender.bytes_acked(), &error);
                }
                sender.sent(Instant::now());
            }
            if let Some(verdict) = sender.verdict() {
                return Report::of(verdict, sender.bytes_acked());
            }
            let received = match silent.then(|| socket.try_receive(&mut buffer)) {
                Some(Ok(Some(len))) => {
                    // A client that floods its own transfer keeps nobody else waiting.
                    consume_budget().await;
                    Ok(Some(len))
                }
                Some(Err(error)) => Err(error),
                Some(Ok(None)) | None => tokio::select! {
                    received = socket.receive(&mut buffer) => received.map(Some),
                    () = &mut alarm => socket.try_receive(&mut buffer),
                },
            };
            let now = Instant::now();
            match received {
                Ok(Some(len)) => sender.on_packet(buffer.get(..len).unwrap_or_default(), now),
                Ok(None) => {}
                // The client's port is closed: ICMP says so.
                Err(error) => return Report::client_left(sender.bytes_acked(), &error),
            }
            sender.on_timeout(now);
            if let Some(deadline) = sender.deadline()
                && (alarm.deadline() > deadline.into() || alarm.is_elapsed())
            {
                alarm.as_mut().reset(deadline.into());
            }
            if sender.answered() {
                self.state.answered.store(true, Ordering::Relaxed);
            }
        }
    }
}

/// Why a request gets no file, and what the client is told: nothing where it should ask again.
struct Refusal {
    code: Option<ErrorCode>,
    outcome: Outcome,
}

impl Refusal {
    fn new(code: ErrorCode, reason: &str) -> Self {
        Self { code: Some(code), outcome: Outcome::Refused(reason.into()) }
    }

    fn anew() -> Self {
        Self { code: None, outcome: Outcome::ClientLeft(BEGAN_ANEW.into()) }
    }
}

impl From<FileError> for Refusal {
    fn from(error: FileError) -> Self {
        let refused = Outcome::Refused(error.to_string());
        match error {
            FileError::NotFound => Self { code: Some(ErrorCode::NotFound), outcome: refused },
            FileError::Forbidden(_) => Self { code: Some(ErrorCode::AccessViolation), outcome: refused },
            // Firmware repeats an unanswered request for some 20 s, and drops the boot at an ERROR.
            FileError::NotHeld | FileError::Busy { .. } => Self { code: None, outcome: refused },
            FileError::Io(reason) => {
                Self { code: Some(ErrorCode::NotDefined), outcome: Outcome::Failed(reason) }
            }
        }
    }
}

fn checked_name(request: &Request<'_>) -> Result<String, Refusal> {
    if !request.mode.eq_ignore_ascii_case(b"octet") {
        return Err(Refusal::new(
            ErrorCode::IllegalOperation,
            "only binary transfers (mode octet) are served",
        ));
    }
    boot_file_name(request.name).map_err(|error| Refusal::new(ErrorCode::AccessViolation, &error.to_string()))
}

async fn send_blocks(
    socket: &TransferSocket,
    reader: &Reader,
    blocks: RangeInclusive<u64>,
) -> std::io::Result<()> {
    for packets in reader.packets(blocks) {
        socket.send_packets(packets, reader.packet_len()).await?;
    }
    Ok(())
}

async fn read_failed(socket: &TransferSocket, sender: &Sender, error: &FileError) -> Report {
    let reason = error.to_string();
    let _ = socket.send(&packet::error(ErrorCode::NotDefined, &reason)).await;
    Report::failed(sender.bytes_acked(), reason)
}
