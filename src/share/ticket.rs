//! A ticket: what to fetch and whom to ask first, as one word that survives a shell and a chat.

use std::fmt;
use std::net::SocketAddrV4;
use std::str::FromStr;

use fabric::content::BlobRef;

/// First addresses in a ticket: a host rarely has more, and a line of text stays a line.
pub const MAX_PEERS: usize = 16;

/// What a ticket begins with; the number is the version of its form.
const HEAD: &str = "bootfabric1";

/// Characters of a wrong ticket that an error repeats.
const SHOWN: usize = 40;

/// Names a blob, its index, and nodes that have it.
///
/// Text form: `bootfabric1-BLOB-INDEX-SIZE-A.B.C.D:PORT,A.B.C.D:PORT`, hashes in hexadecimal, the size in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The blob, its index and its size.
    pub blob: BlobRef,
    /// Where to join the swarm, at most [`MAX_PEERS`].
    pub peers: Vec<SocketAddrV4>,
}

/// The text is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{shown}` is no ticket ({why}): copy the whole first line that `bootfabric seed` prints")]
pub struct MalformedTicket {
    shown: String,
    why: &'static str,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{HEAD}-{}-{}-{}-", self.blob.blob, self.blob.index, self.blob.size)?;
        for (number, peer) in self.peers.iter().enumerate() {
            write!(f, "{}{peer}", if number == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for Ticket {
    type Err = MalformedTicket;

    fn from_str(text: &str) -> Result<Self, MalformedTicket> {
        parse(text.trim()).map_err(|why| MalformedTicket { shown: text.chars().take(SHOWN).collect(), why })
    }
}

fn parse(text: &str) -> Result<Ticket, &'static str> {
    let mut parts = text.split('-');
    let mut next = |why| parts.next().ok_or(why);
    if next("it is empty")? != HEAD {
        return Err("it does not begin with `bootfabric1-`");
    }
    let blob = next("the blob is missing")?.parse().map_err(|_| "the blob is no hash")?;
    let index = next("the index is missing")?.parse().map_err(|_| "the index is no hash")?;
    let size = next("the size is missing")?.parse().map_err(|_| "the size is no number")?;
    let peers = next("the addresses are missing")?;
    if parts.next().is_some() {
        return Err("something follows the addresses");
    }
    let peers: Vec<SocketAddrV4> = match peers {
        "" => Vec::new(),
        list => {
            list.split(',').map(str::parse).collect::<Result<_, _>>().map_err(|_| "an address is none")?
        }
    };
    if peers.len() > MAX_PEERS {
        return Err("it has too many addresses");
    }
    Ok(Ticket { blob: BlobRef { blob, index, size }, peers })
}

#[cfg(test)]
mod tests {
    use fabric::id::{BlobId, Hash, ObjectId};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_is_written_is_read(
            seed: u64,
            size: u64,
            peers in prop::collection::vec((any::<[u8; 4]>(), 1_u16..), 0..=MAX_PEERS),
        ) {
            let blob = BlobRef {
                blob: BlobId(Hash::of(&seed.to_le_bytes())),
                index: ObjectId(Hash::of(&seed.to_be_bytes())),
                size,
            };
            let peers = peers.into_iter().map(|(ip, port)| SocketAddrV4::new(ip.into(), port)).collect();
            let ticket = Ticket { blob, peers };
            prop_assert_eq!(format!(" {ticket}\n").parse(), Ok(ticket));
        }

        #[test]
        fn any_text_is_a_ticket_or_an_error(text in ".{0,300}", cut in 0_usize..200) {
            let _ = text.parse::<Ticket>();
            let whole = format!("{HEAD}-{}-{}-5-1.2.3.4:5", "a".repeat(64), "b".repeat(64));
            prop_assert!(whole.parse::<Ticket>().is_ok());
            let part: String = whole.chars().take(cut.min(whole.len() - 1)).collect();
            if !part.ends_with("1.2.3.4:") && part.len() < whole.len() - 9 {
                prop_assert!(part.parse::<Ticket>().is_err());
            }
        }
    }

    #[test]
    fn an_error_says_what_to_do() {
        let error = "http://example".parse::<Ticket>().unwrap_err().to_string();
        assert!(error.contains("bootfabric seed") && error.contains("http://example"), "{error}");
    }
}
