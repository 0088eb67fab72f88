//! What the loopback tests of both file services share.

#![allow(dead_code, reason = "each test program uses its part")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use pxe::files::{BootFiles, DiskBody, FileError, FileRequest, MemoryBody, ServedFile};
use pxe::service_event::{Finished, ServiceEvent};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::sync::broadcast;

/// Longest wait for anything: generous, because the machine may be busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// What one name is answered with.
pub(crate) enum Entry {
    File(ServedFile),
    Error(FileError),
    /// The request itself as text: what a page made on the fly sees.
    Echo,
}

/// Boot files in a table.
#[derive(Default)]
pub(crate) struct TestFiles {
    entries: HashMap<String, Entry>,
    pub(crate) requests: Mutex<Vec<FileRequest>>,
}

impl TestFiles {
    pub(crate) fn with(mut self, name: &str, entry: Entry) -> Self {
        self.entries.insert(name.to_owned(), entry);
        self
    }

    pub(crate) fn memory(self, name: &str, bytes: impl Into<Bytes>) -> Self {
        let body = Arc::new(MemoryBody(bytes.into()));
        self.with(
            name,
            Entry::File(ServedFile { content_type: None, etag: Some(format!("tag-of-{name}")), body }),
        )
    }

    pub(crate) fn disk(self, name: &str, bytes: &[u8]) -> Self {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, bytes).unwrap();
        let body = Arc::new(DiskBody::new(Arc::new(file)).unwrap());
        self.with(name, Entry::File(ServedFile { content_type: None, etag: None, body }))
    }
}

#[async_trait]
impl BootFiles for TestFiles {
    async fn open(&self, request: &FileRequest) -> Result<ServedFile, FileError> {
        self.requests.lock().unwrap().push(request.clone());
        match self.entries.get(&request.name) {
            Some(Entry::File(file)) => Ok(file.clone()),
            Some(Entry::Error(error)) => Err(error.clone()),
            Some(Entry::Echo) => {
                let text = format!(
                    "{}?{} from {} to {}",
                    request.name, request.query, request.client, request.local
                );
                Ok(ServedFile::memory("text/plain", text))
            }
            None => Err(FileError::NotFound),
        }
    }
}

/// Bytes that show every misplaced block: no period shorter than the whole.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let words = (0u64..).flat_map(|index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
    words.take(len).collect()
}

/// Waits for `future`, or fails the test.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("nothing happened before the deadline")
}

/// The next finished answer.
pub(crate) async fn finished(events: &mut broadcast::Receiver<Arc<ServiceEvent>>) -> Finished {
    loop {
        if let ServiceEvent::Finished(finished) = &*soon(events.recv()).await.unwrap() {
            return finished.clone();
        }
    }
}

/// A client program, or `None` with the reason printed where it is not installed.
pub(crate) fn program(name: &str) -> Option<Command> {
    let found = std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(name).exists()));
    if !found {
        eprintln!("skipped: the program {name} is not installed");
        return None;
    }
    let mut command = Command::new(name);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Some(command)
}

/// Runs a client to its end; returns what it printed, and whether it was content.
pub(crate) async fn run(command: &mut Command) -> (bool, Vec<u8>, String) {
    let output = soon(command.output()).await.unwrap();
    (output.status.success(), output.stdout, String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The content of a file a client wrote.
pub(crate) async fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    tokio::fs::File::open(path).await.unwrap().read_to_end(&mut bytes).await.unwrap();
    bytes
}
