//! Changes that an operator makes to a store: by this process where nobody else has it open, else by the node that has.
//!
//! Owns what such a change is and what came of it, as they travel over the node's control socket.

use std::path::PathBuf;

use fabric::exchange::ExchangeHandle;
use fabric::store::{GcReport, Pin, Store, StoreError};
use serde::{Deserialize, Serialize};

/// A change of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Change {
    /// Remove what nothing names.
    Collect,
    /// Keep something.
    Pin(Pin),
    /// Keep it no longer.
    Unpin {
        /// Name of the pin.
        name: String,
    },
    /// Bound the store.
    Limit {
        /// The most bytes that it may hold.
        bytes: Option<u64>,
    },
}

/// What came of a change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Done {
    /// What was removed and what is kept.
    Collected(GcReport),
    /// It is kept.
    Pinned,
    /// It is kept no longer; false if there was no such pin.
    Unpinned(bool),
    /// The limit is set.
    Limited,
}

/// A change asked of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The store's directory as the asker sees it, without symbolic links.
    pub store: PathBuf,
    /// What to do.
    pub change: Change,
}

/// A node's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// It did that.
    Done(Done),
    /// It could not, for this reason.
    Failed(String),
}

/// Makes the change. Blocks.
///
/// # Errors
/// [`StoreError`] of what was to be done.
pub(crate) fn apply(store: &Store, change: Change) -> Result<Done, StoreError> {
    match change {
        Change::Collect => store.gc().map(Done::Collected),
        Change::Pin(pin) => store.pin(&pin).map(|()| Done::Pinned),
        Change::Unpin { name } => store.unpin(&name).map(Done::Unpinned),
        Change::Limit { bytes } => store.set_limit(bytes).map(|()| Done::Limited),
    }
}

/// Makes the change in a running node, which stops serving what is removed.
pub(crate) async fn answer(store: Store, exchange: &ExchangeHandle, asked: Asked) -> Answer {
    let done = tokio::task::spawn_blocking(move || {
        anyhow::ensure!(
            std::fs::canonicalize(store.path()).is_ok_and(|path| path == asked.store),
            "the node that answers has the store {}, not {}: name its own directory with --state",
            store.path().display(),
            asked.store.display()
        );
        Ok(apply(&store, asked.change)?)
    });
    match done.await.map_err(Into::into).and_then(|done| done) {
        Ok(done) => {
            if let Done::Collected(report) = &done {
                for blob in report.freed_blobs() {
                    exchange.forget(blob).await;
                }
            }
            Answer::Done(done)
        }
        Err(error) => Answer::Failed(format!("{error:#}")),
    }
}

#[cfg(test)]
mod tests {
    use fabric::exchange::{Exchange, ExchangeConfig};
    use fabric::store::{Item, StoreOptions};

    use super::*;
    use crate::node::control::{self, Request, ask_line, socket_path};

    /// Asks over a real control socket.
    async fn ask(state: &std::path::Path, store: PathBuf, change: Change) -> Answer {
        let request = Request::Store(Asked { store, change });
        serde_json::from_str(&ask_line(&socket_path(state), &request).await.unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_node_changes_its_store_and_stops_serving_what_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("store");
        let (kept, garbage) = {
            let store = Store::open(&home, StoreOptions::default()).unwrap();
            (store.add_bytes(b"kept").unwrap(), store.add_bytes(b"garbage").unwrap())
        };
        let store = Store::open(&home, StoreOptions::default()).unwrap();
        let (exchange, _messages) = Exchange::start(store.clone(), ExchangeConfig { seed: 1 });
        for blob in [kept, garbage] {
            assert!(exchange.seed(&blob.blob).await.unwrap());
        }
        let mut requests = control::listen(control::bind(&socket_path(dir.path())).unwrap());
        let node = tokio::spawn({
            let (store, exchange) = (store.clone(), exchange.clone());
            async move {
                while let Some(mut asked) = requests.recv().await {
                    let Request::Store(change) = asked.request else { panic!("{:?}", asked.request) };
                    let answer = answer(store.clone(), &exchange, change).await;
                    control::answer(&mut asked.stream, &answer).await.unwrap();
                }
            }
        });

        let path = std::fs::canonicalize(&home).unwrap();
        let pin = Pin { name: "kept".into(), item: Item::Blob(kept.blob), reason: "a reason".into() };
        let answered = ask(dir.path(), path.clone(), Change::Pin(pin.clone())).await;
        assert_eq!(answered, Answer::Done(Done::Pinned));
        assert_eq!(store.pins().unwrap(), [pin]);
        let answered = ask(dir.path(), path.clone(), Change::Limit { bytes: Some(1000) }).await;
        assert_eq!((answered, store.limit()), (Answer::Done(Done::Limited), Some(1000)));
        let Answer::Done(Done::Collected(report)) = ask(dir.path(), path.clone(), Change::Collect).await
        else {
            panic!("nothing collected")
        };
        assert!(report.freed_blobs().eq([garbage.blob]));
        let served = exchange.report().await.unwrap().blobs;
        assert_eq!(served.iter().map(|blob| blob.blob).collect::<Vec<_>>(), [kept.blob]);
        let unpin = Change::Unpin { name: "kept".into() };
        assert_eq!(ask(dir.path(), path, unpin.clone()).await, Answer::Done(Done::Unpinned(true)));

        let elsewhere = dir.path().to_path_buf();
        let Answer::Failed(why) = ask(dir.path(), elsewhere, unpin).await else { panic!("another store") };
        assert!(why.contains("--state"), "{why}");
        node.abort();
    }
}
