//! A thousand machines that become servers themselves, in virtual time: what the order and the bound on downloads come to together
//! with the boot script.
//!
//! The admission is the real one. The rest is a model: a server's link carries its downloads in turn, piece by piece; a client
//! does what the boot script says (`src/node/script.rs`), and serves when it has booted.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use super::super::MAX_DOWNLOADS;
use super::{Ask, Downloads, LONGEST_WAIT};
use crate::http::head::Agent;

/// 1 Gbit/s.
const LINK: u64 = 125_000_000;
const KERNEL: u64 = 8_000_000;
const FIRST_STAGE: u64 = 22_000_000;
/// From the last byte until the machine serves.
const BOOT: Duration = Duration::from_secs(8);
/// What a link carries of one download before it turns to the next.
const PIECE: u64 = 250_000;
/// Of the boot script: peers in it, and rounds over them before it asks for a new one.
const SCRIPT_PEERS: usize = 5;
const ROUNDS: u32 = 2;

struct Server {
    downloads: Downloads,
    link: Mutex<()>,
}

impl Server {
    fn new() -> Arc<Self> {
        Arc::new(Self { downloads: Downloads::new(Some(MAX_DOWNLOADS), 5), link: Mutex::default() })
    }

    /// Whether the file came, after a wait of at most `patience`.
    async fn download(&self, client: u32, length: u64, patience: Duration) -> bool {
        let ask = Ask { client: std::net::Ipv4Addr::from(client).into(), agent: Agent::Ipxe, patience };
        let Ok(_place) = self.downloads.admit(length, ask).await else { return false };
        for _ in 0..length / PIECE {
            let _turn = self.link.lock().await;
            sleep(Duration::from_secs(1) * u32::try_from(PIECE).unwrap() / u32::try_from(LINK).unwrap())
                .await;
        }
        true
    }
}

type Servers = Arc<Mutex<Vec<Arc<Server>>>>;

/// xorshift: the same run each time.
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// The peers of a script: who made it, then others.
async fn script(servers: &Servers, maker: &Arc<Server>, state: &mut u64) -> Vec<Arc<Server>> {
    let mut others = servers.lock().await.clone();
    others.retain(|server| !Arc::ptr_eq(server, maker));
    let mut peers = vec![Arc::clone(maker)];
    while peers.len() < SCRIPT_PEERS && !others.is_empty() {
        let at = usize::try_from(random(state) % others.len() as u64).unwrap();
        peers.push(others.swap_remove(at));
    }
    peers
}

async fn boot(servers: Servers, client: u32) {
    let mut state = 0x9e37_79b9_7f4a_7c15 ^ u64::from(client + 1) << 20;
    sleep(Duration::from_millis(random(&mut state) % 1000)).await;
    let mut maker = Arc::clone(&servers.lock().await[0]);
    loop {
        let peers = script(&servers, &maker, &mut state).await;
        for round in 0..ROUNDS {
            let patience = if round == 0 { Duration::ZERO } else { LONGEST_WAIT };
            for peer in &peers {
                if peer.download(client, KERNEL, patience).await
                    && peer.download(client, FIRST_STAGE, LONGEST_WAIT).await
                {
                    sleep(BOOT).await;
                    return servers.lock().await.push(Server::new());
                }
            }
        }
        sleep(Duration::from_secs(1 + random(&mut state) % 2)).await;
        maker = Arc::clone(&peers[0]);
    }
}

/// Each generation multiplies the servers by one more than they have places.
fn bound(machines: u32) -> Duration {
    let generations = (f64::from(machines).ln() / (1.0 + MAX_DOWNLOADS as f64).ln()).ceil();
    let download = (MAX_DOWNLOADS as u64 * (KERNEL + FIRST_STAGE)) as f64 / LINK as f64;
    Duration::from_secs_f64(generations * (download + BOOT.as_secs_f64()))
}

#[tokio::test(start_paused = true)]
async fn a_thousand_machines_boot_in_little_more_than_their_generations_take() {
    const MACHINES: u32 = 1000;
    let servers: Servers = Arc::new(Mutex::new(vec![Server::new()]));
    let began = Instant::now();
    let boots: Vec<_> =
        (0..MACHINES).map(|client| tokio::spawn(boot(Arc::clone(&servers), client))).collect();

    for boot in boots {
        boot.await.unwrap();
    }
    let (took, bound) = (began.elapsed(), bound(MACHINES));
    println!(
        "{MACHINES} machines in {took:.1?}: {:.2} of the bound, {bound:.1?}",
        took.as_secs_f64() / bound.as_secs_f64()
    );
    assert!(took <= bound.mul_f64(1.3), "{took:?}, {bound:?}");
}
