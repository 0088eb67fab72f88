//! One connection: requests are read, answered in order, and events told.
//!
//! Runs as one task, owned by the server, which wraps the connection first if it has a wrapper. Aborting it closes the connection in the middle of whatever it does.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Buf, BytesMut};
use tokio::time::{timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use super::admission::Ask;
use super::answer::{Answer, Content, FileMeta, content_follows};
use super::body::{BodySender, SendError};
use super::head::{MAX_HEAD, Method, Parsed, Refusal, RequestHead, parse};
use super::shared::Shared;
use super::status::Status;
use super::turns::{self, Turns};
use super::wire::Wire;
use crate::files::{FileError, FileRequest, ServedFile, Service, Slice, content_type_of};
use crate::service_event::{Finished, Outcome, ServiceEvent, Transfer, micros};

/// First size of a connection's buffer: most heads fit, and 1,024 idle connections hold 1 MiB.
const BUFFER: usize = 1024;
/// After the last answer the client's leftovers are read for so long, so that closing does not reset the connection
/// before it has read the answer.
const LINGER: Duration = Duration::from_secs(2);
/// Leftovers read at most.
const LINGER_BYTES: usize = 64 * 1024;

/// Why a connection has no further request.
enum End {
    /// Closed, reset or silent at a moment when nothing was asked: all normal.
    Quiet,
    /// An answer was broken off: what was sent is not what was promised.
    Broken,
    /// The last answer was sent; close after the client had time to read it.
    Answered,
}

/// One client's connection.
pub(super) struct Connection {
    pub(super) wire: Wire,
    pub(super) shared: Arc<Shared>,
    pub(super) client: SocketAddr,
    pub(super) local: SocketAddr,
    /// Answer the first request with 503 and close.
    pub(super) refuse: bool,
    /// Set when the service stops: an idle connection closes, a busy one after its answer.
    pub(super) stop: CancellationToken,
}

impl Connection {
    /// Serves the connection to its end.
    pub(super) async fn run(mut self) {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        loop {
            let end = match self.next_request(&mut buffer).await {
                Ok(Next::Request(head)) => self.respond(&head).await,
                Ok(Next::Refused(refusal)) => self.refuse(&refusal).await,
                Err(end) => Err(end),
            };
            match end {
                Ok(()) => {}
                Err(End::Answered) => return self.linger().await,
                Err(End::Quiet | End::Broken) => return,
            }
        }
    }

    /// The next request, from what is buffered (pipelined) or what arrives.
    async fn next_request(&mut self, buffer: &mut BytesMut) -> Result<Next, End> {
        let mut deadline = None;
        loop {
            if !buffer.is_empty() {
                match parse(buffer) {
                    Parsed::Request { head, consumed } => {
                        buffer.advance(consumed);
                        return Ok(Next::Request(head));
                    }
                    Parsed::Refused(refusal) => return Ok(Next::Refused(refusal)),
                    Parsed::Incomplete => {}
                }
            }
            let config = &self.shared.config;
            let read = if buffer.is_empty() {
                tokio::select! {
                    read = timeout(config.idle, read_some(&mut self.wire, buffer)) => read.map_err(|_| End::Quiet)?,
                    () = self.stop.cancelled() => return Err(End::Quiet),
                }
            } else {
                // A head that has begun has one deadline for all of it, however slowly its bytes trickle.
                let until =
                    *deadline.get_or_insert_with(|| tokio::time::Instant::now() + config.head_deadline);
                match timeout_at(until, read_some(&mut self.wire, buffer)).await {
                    Ok(read) => read,
                    Err(_) => return Ok(Next::Refused(slow_head(config.head_deadline))),
                }
            };
            match read {
                Ok(0) | Err(_) => return Err(End::Quiet),
                Ok(_) => {}
            }
        }
    }

    /// Answers one request. `Ok` if the connection can take the next.
    async fn respond(&mut self, head: &RequestHead) -> Result<(), End> {
        let started = Instant::now();
        let request = FileRequest {
            service: Service::Http,
            name: head.name.clone(),
            query: head.query.clone(),
            bearer: head.bearer.clone(),
            client: self.client,
            local: self.local,
        };
        let keep_alive = head.keep_alive && !self.refuse && !self.stop.is_cancelled();
        let found = if self.refuse {
            Err(FileError::Busy { retry_after: self.shared.config.retry_after })
        } else {
            self.shared.files.open(&request).await
        };
        let (answer, result, sent) = match found {
            Ok(file) => self.send_file(head, &request, &file, keep_alive).await,
            Err(error) => self.send_text(Answer::file_error(&head.name, &error), head, keep_alive).await,
        };
        self.finish(&request, &answer, sent, started, &result);
        match result {
            Ok(()) if keep_alive => Ok(()),
            Ok(()) => Err(End::Answered),
            Err(_) => Err(End::Broken),
        }
    }

    async fn send_file(
        &mut self,
        head: &RequestHead,
        request: &FileRequest,
        file: &ServedFile,
        keep_alive: bool,
    ) -> (Answer, Result<(), SendError>, u64) {
        let meta = FileMeta {
            len: file.body.len(),
            content_type: file.content_type.unwrap_or_else(|| content_type_of(&head.name)),
            etag: file.etag.as_deref(),
        };
        let answer = Answer::file(head, meta);
        let Some(range) = content_follows(&answer, head.method) else {
            return self.send_text(answer, head, keep_alive).await;
        };
        let length = range.end - range.start;
        // The place where large downloads are admitted: a place in the queue is held until the answer is over.
        let ask = Ask::new(self.client.ip(), head.agent, &head.query);
        let admitted = tokio::select! {
            admitted = self.shared.downloads.admit(length, ask) => admitted,
            () = self.stop.cancelled() => Err(FileError::Busy { retry_after: self.shared.config.retry_after }),
        };
        let _place = match admitted {
            Ok(place) => place,
            Err(busy) => {
                return self.send_text(Answer::file_error(&head.name, &busy), head, keep_alive).await;
            }
        };
        let content = match file.body.slice(range.clone()).await {
            Ok(content) => content,
            Err(error) => {
                return self.send_text(Answer::file_error(&head.name, &error), head, keep_alive).await;
            }
        };
        if self.shared.config.events.listening() {
            self.shared.config.events.record(ServiceEvent::Started(Transfer::of(request, range)));
        }
        // What is in memory is small, and what is still arriving would keep its turn while it waits.
        let short = matches!(content, Slice::File { .. }) && Turns::concern(length);
        self.wire.unsent(if short { turns::UNSENT } else { u32::MAX });
        let turn = if short { self.shared.turns.next().await } else { None };
        let active = self.shared.active();
        let mut sender = self.sender();
        let head = answer.encode(false, head.http_1_0, keep_alive);
        let result = {
            let mut sending = pin!(sender.answer(&head, content, length));
            tokio::select! {
                biased;
                result = &mut sending => result,
                () = tokio::time::sleep(turns::HOLD), if turn.is_some() => {
                    drop(turn);
                    sending.await
                }
            }
        };
        drop(active);
        let sent = sender.sent;
        (answer, result, sent)
    }

    async fn send_text(
        &mut self,
        answer: Answer,
        head: &RequestHead,
        keep_alive: bool,
    ) -> (Answer, Result<(), SendError>, u64) {
        let answer = answer.for_agent(head.agent);
        let bytes = answer.encode(head.method == Method::Head, head.http_1_0, keep_alive);
        let result = self.sender().head(&bytes).await;
        (answer, result, 0)
    }

    /// Answers what is no request, and closes.
    async fn refuse(&mut self, refusal: &Refusal) -> Result<(), End> {
        let started = Instant::now();
        let answer = Answer::refusal(refusal);
        let result = self.sender().head(&answer.encode(false, false, false)).await;
        let request = FileRequest {
            service: Service::Http,
            name: String::new(),
            query: String::new(),
            bearer: None,
            client: self.client,
            local: self.local,
        };
        self.finish(&request, &answer, 0, started, &result);
        Err(if result.is_ok() { End::Answered } else { End::Broken })
    }

    fn sender(&mut self) -> BodySender<'_> {
        let shared = &self.shared;
        BodySender::new(&mut self.wire, &shared.counters.bytes, &shared.config)
    }

    fn finish(
        &self,
        request: &FileRequest,
        answer: &Answer,
        sent: u64,
        started: Instant,
        result: &Result<(), SendError>,
    ) {
        let outcome = match result {
            Ok(()) if answer.status.is_success() => Outcome::Complete,
            Ok(()) if answer.status == Status::InternalServerError => Outcome::Failed(text_of(answer)),
            Ok(()) => Outcome::Refused(text_of(answer)),
            Err(error @ (SendError::ClientLeft(_) | SendError::Stalled(_))) => {
                Outcome::ClientLeft(error.to_string())
            }
            Err(error) => Outcome::Failed(error.to_string()),
        };
        self.shared.counters.finished(answer.status, &outcome);
        let config = &self.shared.config;
        if config.events.listening() {
            let range = match &answer.content {
                Content::File { range, .. } => range.clone(),
                Content::None | Content::Text(_) => 0..0,
            };
            config.events.record(ServiceEvent::Finished(Finished {
                transfer: Transfer::of(request, range),
                status: Some(answer.status.code()),
                bytes: sent,
                micros: micros(started.elapsed()),
                outcome,
            }));
        }
    }

    /// Tells the client that nothing follows and reads what it still sends, within bounds.
    async fn linger(mut self) {
        let drain = async {
            if self.wire.shutdown().await.is_err() {
                return;
            }
            let mut buffer = BytesMut::with_capacity(BUFFER);
            let mut left = LINGER_BYTES;
            while let Ok(read @ 1..) = self.wire.read(&mut buffer).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    break;
                }
                buffer.clear();
            }
        };
        let _ = timeout(LINGER, drain).await;
    }
}

enum Next {
    Request(RequestHead),
    Refused(Refusal),
}

/// Reads into `buffer` at most what a head may have.
async fn read_some(wire: &mut Wire, buffer: &mut BytesMut) -> io::Result<usize> {
    let room = MAX_HEAD.saturating_sub(buffer.len()).min(BUFFER.max(buffer.len()));
    buffer.reserve(room);
    wire.read(buffer).await
}

fn slow_head(deadline: Duration) -> Refusal {
    Refusal {
        status: Status::RequestTimeout,
        reason: format!("the request head did not arrive within {} s", deadline.as_secs()),
    }
}

fn text_of(answer: &Answer) -> String {
    match &answer.content {
        Content::Text(text) => text.trim_end().to_owned(),
        Content::None | Content::File { .. } => answer.status.reason().to_owned(),
    }
}
