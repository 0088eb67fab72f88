//! The talk at the gate: three messages over a connection that Noise has set up and nothing else uses yet.
//!
//! ```text
//! dialler                        listener
//!    ── Show ─────────────────────►        my membership, yours if I know it; or who I am
//!    ◄───────────────────── Verdict ──     welcome: my membership, yours, a token; or why not
//!    ── Verdict ──────────────────►        likewise
//! ```
//!
//! Each message is its length (16 bit, big endian) and its body in the crate's one encoding. The caller sets the deadline.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use futures::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::Refusal;
use super::desk::{Gate, Other, Tie};
use super::message::{Show, Verdict};
use crate::codec::{self, CodecError};
use crate::trust::{Membership, Signed};

/// Longest message: two memberships and some forty bytes, or a newcomer.
const MAX_MESSAGE: usize = 2 * Signed::<Membership>::MAX_BYTES + 256;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TalkError {
    #[error("the connection broke at the gate")]
    Io(#[from] io::Error),
    #[error("the other end does not keep to the protocol of the gate")]
    Malformed(#[from] CodecError),
    #[error("a message of {len} bytes at the gate, {MAX_MESSAGE} are the most")]
    TooLong { len: usize },
    #[error("the other end turned us away ({0:?})")]
    TurnedAway(Refusal),
    #[error("the other end is no member of this fabric ({0:?})")]
    Stranger(Refusal),
    #[error("the system gives no random bytes for a token")]
    Random(#[from] getrandom::Error),
}

/// Talks as the one who dialled.
pub(crate) async fn dial(
    gate: &Arc<Gate>,
    other: Other,
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Tie, TalkError> {
    write(io, &gate.show(other.node)).await?;
    let answer: Verdict = read(io).await?;
    let refused = matches!(answer, Verdict::Refused { .. });
    let (closing, outcome) = gate.close(other, answer, Instant::now())?;
    if let Some(closing) = closing {
        write(io, &closing).await?;
    }
    outcome.map_err(if refused { TalkError::TurnedAway } else { TalkError::Stranger })
}

/// Talks as the one who was dialled.
pub(crate) async fn listen(
    gate: &Arc<Gate>,
    other: Other,
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
) -> Result<Tie, TalkError> {
    let show: Show = read(io).await?;
    let (verdict, tie) = gate.answer(other, show, Instant::now())?;
    write(io, &verdict).await?;
    match (verdict, tie) {
        (Verdict::Welcome(_), Some(tie)) => {
            let closing = read(io).await?;
            gate.closed(other, closing, Instant::now()).map_err(TalkError::TurnedAway)?;
            Ok(tie)
        }
        (Verdict::Refused { why, .. }, _) => Err(TalkError::Stranger(why)),
        (Verdict::Welcome(_), None) => Err(TalkError::Stranger(Refusal::NotAdmitted)),
    }
}

async fn write(io: &mut (impl AsyncWrite + Unpin), message: &impl Serialize) -> Result<(), TalkError> {
    let body = codec::encode("message of the gate", message)?;
    let len = u16::try_from(body.len()).map_err(|_| TalkError::TooLong { len: body.len() })?;
    io.write_all(&[&len.to_be_bytes(), body.as_slice()].concat()).await?;
    Ok(io.flush().await?)
}

async fn read<T: DeserializeOwned>(io: &mut (impl AsyncRead + Unpin)) -> Result<T, TalkError> {
    let mut len = [0; 2];
    io.read_exact(&mut len).await?;
    let len = usize::from(u16::from_be_bytes(len));
    if len > MAX_MESSAGE {
        return Err(TalkError::TooLong { len });
    }
    let mut body = vec![0; len];
    io.read_exact(&mut body).await?;
    Ok(codec::decode("message of the gate", &body)?)
}
