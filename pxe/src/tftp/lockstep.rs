//! Drives a transfer without windows on a thread of its own: receive, send, receive.
//!
//! Each block of such a transfer waits for the ACK before it, so the way from one packet to the next is all that counts; a
//! thread that waits in `recv(2)` has the shortest. Their number is bounded ([`THREADS`]); further transfers run on the
//! runtime. Owned by the task of the transfer, which waits for it; ends within [`TICK`] once the transfer is aborted.

use std::io::ErrorKind;
use std::net::UdpSocket;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::OwnedSemaphorePermit;

use super::packet::{self, ErrorCode, PACKET_BUFFER};
use super::reader::Reader;
use super::report::{BEGAN_ANEW, Report};
use super::sender::{Sender, Transmit};
use super::table::TransferState;
use super::wire::TransferSocket;
use crate::files::FileError;

/// Threads at once: loaders for a rack of machines powered on together.
pub(super) const THREADS: usize = 16;

/// How late a deadline may be noticed. The shortest usual one is 200 ms.
const TICK: Duration = Duration::from_millis(20);

/// Sends the file to its end. Dropping the future leaves the thread to end by itself when the transfer is aborted.
pub(super) async fn run(
    socket: TransferSocket,
    sender: Sender,
    reader: Reader,
    state: TransferState,
    lane: OwnedSemaphorePermit,
) -> Report {
    let runtime = Handle::current();
    let transfer = move || {
        let _lane = lane;
        match socket.into_blocking(TICK) {
            Ok(socket) => Lockstep { socket, sender, reader, state, runtime }.run(),
            Err(error) => Report::client_left(0, &error),
        }
    };
    tokio::task::spawn_blocking(transfer).await.unwrap_or_else(|error| Report::client_left(0, &error))
}

struct Lockstep {
    socket: UdpSocket,
    sender: Sender,
    reader: Reader,
    state: TransferState,
    runtime: Handle,
}

impl Lockstep {
    fn run(mut self) -> Report {
        let mut buffer = [0; PACKET_BUFFER];
        let mut now = Instant::now();
        loop {
            match self.transmit(now) {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return self.left(&error),
                Err(error) => return self.failed(&error),
            }
            if let Some(verdict) = self.sender.verdict() {
                return Report::of(verdict, self.sender.bytes_acked());
            }
            let received = self.socket.recv(&mut buffer);
            now = Instant::now();
            match received {
                Ok(len) => self.sender.on_packet(buffer.get(..len).unwrap_or_default(), now),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                // The client's port is closed: ICMP says so.
                Err(error) => return self.left(&error),
            }
            self.sender.on_timeout(now);
            if self.state.abort.is_cancelled() {
                return self.left(&BEGAN_ANEW);
            }
            if self.sender.answered() {
                self.state.answered.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Sends what is to be sent now. The outer error is ours, the inner one of the network.
    fn transmit(&mut self, now: Instant) -> Result<std::io::Result<()>, FileError> {
        while let Some(transmit) = self.sender.poll_transmit() {
            let sent = match transmit {
                Transmit::Oack(packet) => self.send(&packet),
                Transmit::Data(blocks) => {
                    if !self.reader.holds(&blocks) {
                        self.runtime.block_on(self.reader.load(&blocks))?;
                    }
                    self.reader.packets(blocks).try_for_each(|packet| self.send(packet))
                }
            };
            if sent.is_err() {
                return Ok(sent);
            }
            self.sender.sent(now);
        }
        Ok(Ok(()))
    }

    fn send(&self, packet: &[u8]) -> std::io::Result<()> {
        match self.socket.send(packet) {
            // A full device queue is a loss like any other: the retransmission timer knows what to do.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOBUFS) => Ok(()),
            sent => sent.map(drop),
        }
    }

    fn left(&self, reason: &impl ToString) -> Report {
        Report::client_left(self.sender.bytes_acked(), reason)
    }

    fn failed(&self, error: &FileError) -> Report {
        let reason = error.to_string();
        let _ = self.send(&packet::error(ErrorCode::NotDefined, &reason));
        Report::failed(self.sender.bytes_acked(), reason)
    }
}
