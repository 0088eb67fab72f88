//! The task behind one [`HttpSource`](super::HttpSource): one connection, answers read in the order of the requests.
//!
//! Owns the socket. A broken connection fails the request whose answer was due; those written behind it are written
//! again on the next connection, once.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use bytes::BufMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use super::head::{self, Answer, MAX_HEAD, RequestHead};
use super::watermark::Watermark;
use super::{ByteStream, HttpTimeouts, PIPELINE, Private};
use crate::exchange::source::SourceError;
use crate::id::BlobId;

/// The longest body of a refusal that is read to keep the connection: about a page of text.
const MAX_REFUSAL_BODY: u64 = 64 * 1024;

/// Buffers are multiples of this, so that one fits the next request of about the same length too.
const BUFFER_STEP: usize = 64 * 1024;

/// What comes back of a request: the buffer, and how it went.
pub(super) type Answered = (Vec<u8>, Result<(), SourceError>);

/// One range to fetch and where its bytes go.
#[derive(Debug)]
pub(super) struct Request {
    blob: BlobId,
    bytes: Range<u64>,
    buffer: Vec<u8>,
    reply: oneshot::Sender<Answered>,
    /// Written before on a connection that broke without answering it.
    retried: bool,
}

impl Request {
    pub(super) fn new(
        blob: BlobId,
        bytes: Range<u64>,
        buffer: Vec<u8>,
        reply: oneshot::Sender<Answered>,
    ) -> Self {
        Self { blob, bytes, buffer, reply, retried: false }
    }

    fn length(&self) -> usize {
        usize::try_from(self.bytes.end.saturating_sub(self.bytes.start)).unwrap_or(usize::MAX)
    }

    fn finish(self, result: Result<(), SourceError>) {
        // A closed channel means that the caller gave up: nobody is there to tell.
        let _ = self.reply.send((self.buffer, result));
    }
}

/// What a connection was doing when it ended.
struct Broken {
    error: SourceError,
    /// The connection had answered before and broke before a byte of the next answer: the peer closed it while idle.
    stale: bool,
}

/// Serves requests until the source is dropped. `abandoned` tells that somebody gave a request up.
pub(super) async fn serve(
    address: SocketAddr,
    private: Option<Private>,
    timeouts: HttpTimeouts,
    mut queue: mpsc::Receiver<Request>,
    abandoned: Arc<Notify>,
) {
    let head = RequestHead::new(address, private.as_ref().map(|private| private.token.as_str()));
    let mut waiting: VecDeque<Request> = VecDeque::new();
    loop {
        waiting.retain(|request| !request.reply.is_closed());
        while waiting.is_empty() {
            match queue.recv().await {
                // A connection only for those who gave up would keep the others waiting.
                Some(request) if request.reply.is_closed() => {}
                Some(request) => waiting.push_back(request),
                None => return,
            }
        }
        let stream = match connect(address, private.as_ref(), &timeouts).await {
            Ok(stream) => stream,
            Err(error) => {
                // All who came meanwhile waited for this connection: another attempt for each would add up.
                waiting.extend(std::iter::from_fn(|| queue.try_recv().ok()));
                waiting.drain(..).for_each(|request| request.finish(Err(error.clone())));
                continue;
            }
        };
        let mut connection = Connection::new(stream, &head, timeouts);
        match connection.run(&mut waiting, &mut queue, &abandoned).await {
            Ok(Next::Reconnect) => {}
            Ok(Next::Shutdown) => return,
            Err(Broken { error, stale }) => {
                if let Some(mut first) = waiting.pop_front() {
                    if stale && !first.retried {
                        first.retried = true;
                        waiting.push_front(first);
                    } else {
                        first.finish(Err(error));
                    }
                }
            }
        }
        // What came of answers that will not be finished is asked for again from its beginning.
        waiting.iter_mut().for_each(|request| request.buffer.clear());
    }
}

async fn connect(
    address: SocketAddr,
    private: Option<&Private>,
    timeouts: &HttpTimeouts,
) -> Result<Box<dyn ByteStream>, SourceError> {
    let unreachable = |cause: String| SourceError::Unreachable(format!("{address}: {cause}"));
    let stream = timeout(timeouts.connect, TcpStream::connect(address))
        .await
        .map_err(|_| unreachable("no answer to the connection request".into()))?
        .map_err(|error| unreachable(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| unreachable(error.to_string()))?;
    let Some(private) = private else { return Ok(Box::new(stream)) };
    timeout(timeouts.connect, private.secure.secure(stream))
        .await
        .map_err(|_| unreachable("no end of the handshake".into()))?
        .map_err(|error| unreachable(error.to_string()))
}

/// Why a connection ended in order.
enum Next {
    /// Idle, or the peer said that it closes.
    Reconnect,
    /// The source was dropped.
    Shutdown,
}

struct Connection<'a> {
    stream: Box<dyn ByteStream>,
    request_head: &'a RequestHead,
    timeouts: HttpTimeouts,
    /// Bytes read beyond the current answer's body: the beginning of the next answer.
    ahead: Vec<u8>,
    /// The answer that is coming in, once its head is complete.
    current: Option<Current>,
    /// Requests at the front of the queue that have been written.
    written: usize,
    answered: bool,
    /// End of the stall window and the bytes that came in it.
    window: (Instant, u64),
    watermark: Watermark,
}

impl<'a> Connection<'a> {
    fn new(stream: Box<dyn ByteStream>, request_head: &'a RequestHead, timeouts: HttpTimeouts) -> Self {
        let window = (Instant::now() + timeouts.stall, 0);
        Self {
            stream,
            request_head,
            timeouts,
            ahead: Vec::new(),
            current: None,
            written: 0,
            answered: false,
            window,
            watermark: Watermark::new(),
        }
    }

    /// Writes and reads until the connection ends. Requests not answered stay in `waiting`, the current one first.
    async fn run(
        &mut self,
        waiting: &mut VecDeque<Request>,
        queue: &mut mpsc::Receiver<Request>,
        abandoned: &Notify,
    ) -> Result<Next, Broken> {
        loop {
            self.forget_unwritten(waiting);
            if waiting.front().is_some_and(|request| request.reply.is_closed()) {
                // Not finished with a request nobody waits for: its bytes would come all the same.
                waiting.pop_front();
                return Ok(Next::Reconnect);
            }
            self.write_ahead(waiting).await?;
            if waiting.is_empty() {
                match timeout(self.timeouts.idle, queue.recv()).await {
                    Ok(Some(request)) => waiting.push_back(request),
                    Ok(None) => return Ok(Next::Shutdown),
                    Err(_) => return Ok(Next::Reconnect),
                }
                self.window = (Instant::now() + self.timeouts.stall, 0);
                continue;
            }
            self.watermark.expect(self.stream.plain(), self.in_one_piece(waiting));
            let lower = self.watermark.deadline().filter(|&at| at < self.window.0);
            tokio::select! {
                request = queue.recv(), if waiting.len() < PIPELINE => match request {
                    Some(request) => waiting.push_back(request),
                    None => return Ok(Next::Shutdown),
                },
                // A connection that brings nothing is left with the request that it did not answer.
                () = abandoned.notified() => {}
                () = sleep_until(lower.unwrap_or(self.window.0)), if lower.is_some() => self.watermark.lower(self.stream.plain()),
                read = timeout_at(self.window.0, read_some(&mut self.stream, &mut self.ahead, self.current.as_ref(), waiting)) => {
                    self.received(read)?;
                    if !self.advance(waiting)? {
                        return Ok(Next::Reconnect);
                    }
                }
            }
        }
    }

    /// Bytes of the current answer that are still to come; nothing is known of an answer whose head has not come.
    fn in_one_piece(&self, waiting: &VecDeque<Request>) -> usize {
        match (&self.current, waiting.front()) {
            (Some(current), Some(request)) if self.ahead.is_empty() => current.due(request),
            _ => 1,
        }
    }

    /// Drops requests that were given up before they were written: the peer need not know of them.
    fn forget_unwritten(&self, waiting: &mut VecDeque<Request>) {
        let mut written = (0..waiting.len()).map(|at| at < self.written);
        waiting.retain(|request| written.next().unwrap_or_default() || !request.reply.is_closed());
    }

    async fn write_ahead(&mut self, waiting: &VecDeque<Request>) -> Result<(), Broken> {
        let mut heads = String::new();
        for request in waiting.iter().take(PIPELINE).skip(self.written) {
            heads.push_str(&self.request_head.of(&request.blob, &request.bytes));
            self.written += 1;
        }
        if heads.is_empty() {
            return Ok(());
        }
        let write = async {
            self.stream.write_all(heads.as_bytes()).await?;
            self.stream.flush().await
        };
        match timeout(self.timeouts.stall, write).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.broken(SourceError::Unreachable(error.to_string()))),
            Err(_) => Err(self.broken(SourceError::Stalled { bytes: 0, window: self.timeouts.stall })),
        }
    }

    fn received(
        &mut self,
        read: Result<std::io::Result<usize>, tokio::time::error::Elapsed>,
    ) -> Result<(), Broken> {
        match read {
            Ok(Ok(0)) => Err(self.broken(SourceError::Unreachable("the peer closed the connection".into()))),
            Ok(Ok(count)) => {
                self.window.1 += count as u64;
                self.watermark.came();
                Ok(())
            }
            Ok(Err(error)) => Err(self.broken(SourceError::Unreachable(error.to_string()))),
            Err(_) if self.window.1 >= self.timeouts.min_progress => {
                self.window = (Instant::now() + self.timeouts.stall, 0);
                Ok(())
            }
            Err(_) => {
                let error = SourceError::Stalled { bytes: self.window.1, window: self.timeouts.stall };
                Err(Broken { error, stale: false })
            }
        }
    }

    fn broken(&self, error: SourceError) -> Broken {
        Broken { error, stale: self.answered && self.current.is_none() && self.ahead.is_empty() }
    }

    /// Takes in what was read: heads, bodies, ends of answers. False if the connection must not be used further.
    fn advance(&mut self, waiting: &mut VecDeque<Request>) -> Result<bool, Broken> {
        while let Some(request) = waiting.front_mut() {
            let current = match &mut self.current {
                Some(current) => current,
                None => {
                    let fatal = |error| Broken { error, stale: false };
                    let Some(answer) = head::answer(&self.ahead, &request.bytes).map_err(fatal)? else {
                        return Ok(true);
                    };
                    if let (Err(refusal), true) = (&answer.verdict, answer.body > MAX_REFUSAL_BODY) {
                        return Err(fatal(refusal.clone()));
                    }
                    self.ahead.drain(..answer.head);
                    self.current.insert(Current::new(answer, request))
                }
            };
            let take = current.due(request).min(self.ahead.len());
            match &mut current.skip {
                Some(skip) => *skip -= take,
                None => request.buffer.extend_from_slice(self.ahead.get(..take).unwrap_or_default()),
            }
            self.ahead.drain(..take);
            if current.due(request) > 0 {
                return Ok(true);
            }
            let (verdict, keep_alive) = (current.answer.verdict.clone(), current.answer.keep_alive);
            self.current = None;
            self.answered = true;
            self.written = self.written.saturating_sub(1);
            self.window = (Instant::now() + self.timeouts.stall, 0);
            if let Some(request) = waiting.pop_front() {
                request.finish(verdict);
            }
            if !keep_alive {
                return Ok(false);
            }
        }
        // Bytes that nobody asked for: the peer cannot be followed any further on this connection.
        Ok(self.ahead.is_empty())
    }
}

/// The answer that is coming in.
struct Current {
    answer: Answer,
    /// Bytes of a refusal's body still to be read and forgotten; `None` for the range asked for.
    skip: Option<usize>,
}

impl Current {
    fn new(answer: Answer, request: &mut Request) -> Self {
        let skip = answer.verdict.is_err().then(|| usize::try_from(answer.body).unwrap_or(usize::MAX));
        if skip.is_none() {
            // The head was checked against the range asked for: the peer does not choose this length.
            let length = request.length();
            if request.buffer.capacity() < length {
                request.buffer.reserve_exact(length.next_multiple_of(BUFFER_STEP));
            }
        }
        Self { answer, skip }
    }

    /// Bytes of the body that have not come yet.
    fn due(&self, request: &Request) -> usize {
        self.skip.unwrap_or_else(|| request.length().saturating_sub(request.buffer.len()))
    }
}

/// One read: straight into the request's buffer while its body comes in, else into `ahead`. Cancel safe.
async fn read_some(
    stream: &mut Box<dyn ByteStream>,
    ahead: &mut Vec<u8>,
    current: Option<&Current>,
    waiting: &mut VecDeque<Request>,
) -> std::io::Result<usize> {
    match (current, waiting.front_mut()) {
        (Some(current), Some(request)) if current.skip.is_none() && ahead.is_empty() => {
            let due = current.due(request);
            stream.read_buf(&mut (&mut request.buffer).limit(due)).await
        }
        _ => {
            ahead.reserve(MAX_HEAD);
            stream.read_buf(&mut ahead.limit(MAX_HEAD)).await
        }
    }
}
