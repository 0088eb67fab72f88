//! Peers that die without a word are noticed; so are those that vanish with their process.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod swarm_support;

use std::net::{Ipv4Addr, SocketAddr};

use swarm_support::{Node, Spec, nodes_around_one};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

/// Passes one connection on until `freeze`, then neither reads, writes nor closes: what a machine without power looks
/// like.
async fn freezing_proxy(to: SocketAddr, freeze: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(to).await.unwrap();
        tokio::select! {
            _ = copy_bidirectional(&mut near, &mut far) => {}
            () = freeze.cancelled() => std::future::pending().await,
        }
    });
    address
}

#[tokio::test]
async fn a_peer_that_falls_silent_is_noticed() {
    // Neither tells an address, so that they cannot find another way to each other.
    let unknown = Ipv4Addr::UNSPECIFIED;
    let a = Node::start(Spec { address: unknown, ..Spec::default() }).await;
    let freeze = CancellationToken::new();
    let proxy = freezing_proxy(a.address(), freeze.clone()).await;
    let b = Node::start(Spec { address: unknown, ..Spec::knowing([proxy]) }).await;
    a.until_peer(b.id()).await;
    b.until_peer(a.id()).await;
    freeze.cancel();
    a.until_gone(b.id()).await;
    b.until_gone(a.id()).await;
    a.until_members(&[a.id()]).await;
}

#[test]
fn a_peer_whose_process_ends_is_noticed_by_all() {
    let doomed = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let rest = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let nodes = rest.block_on(nodes_around_one(3));
    let victim = doomed.block_on(Node::start(Spec::knowing([nodes[0].address()])));
    for node in &nodes {
        rest.block_on(node.until_peer(victim.id()));
    }
    doomed.shutdown_background();
    let ids: Vec<_> = nodes.iter().map(Node::id).collect();
    for node in &nodes {
        rest.block_on(node.until_gone(victim.id()));
        rest.block_on(node.until_members(&ids));
    }
}
