//! A small object from whoever has it: asked for again when there are other peers, or the same may have it by then.

use std::time::Duration;

use bytes::Bytes;
use fabric::id::ObjectId;
use fabric::swarm::{ObjectError, SwarmHandle};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How long nobody may give an object, counted from the last change among the peers: the first that answer may be others that
/// fetch, and the one that has it is busy with them.
const PATIENCE: Duration = Duration::from_secs(5);

/// How soon the same peers are asked again: one that is fetching too may have it by then.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Asks the swarm for the object `id` until somebody gives it; `peers` tells how many there are.
///
/// # Errors
/// [`ObjectError::NotFound`] if nobody has given it for five seconds in which no peer came or went, or at `deadline`;
/// [`ObjectError::NoPeers`] if there is nobody at `deadline`.
pub(crate) async fn from_anybody(
    swarm: &SwarmHandle,
    id: ObjectId,
    mut peers: watch::Receiver<usize>,
    deadline: Instant,
) -> Result<Bytes, ObjectError> {
    let mut give_up = None;
    loop {
        if timeout_at(deadline, peers.wait_for(|count| *count > 0)).await.is_err() {
            return Err(ObjectError::NoPeers(id));
        }
        let error = match swarm.object(id, None).await {
            Err(error @ (ObjectError::NoPeers(_) | ObjectError::NotFound { .. })) => error,
            other => return other,
        };
        let now = Instant::now();
        let until = match error {
            // The connection was one of two, and is gone again: the other is there in a moment.
            ObjectError::NoPeers(_) => deadline,
            _ => deadline.min(*give_up.get_or_insert(now + PATIENCE)),
        };
        if now >= until {
            return Err(error);
        }
        if timeout_at(until.min(now + ASK_AGAIN), peers.changed()).await.is_ok() {
            give_up = None;
        }
    }
}
