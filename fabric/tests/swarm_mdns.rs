//! Two nodes that were given nobody find each other by mDNS. Needs the right to make network namespaces.

#![expect(clippy::unwrap_used, reason = "a step that fails is a test that fails")]

mod swarm_support;

use std::fs::File;
use std::net::Ipv4Addr;
use std::process::Command;
use std::sync::{Arc, Barrier};
use std::thread;

use fabric::swarm::SwarmEvent;
use nix::sched::{CloneFlags, setns};
use swarm_support::{Node, Spec};

fn ip(arguments: &str) -> bool {
    let status = Command::new("ip").args(arguments.split(' ')).status();
    status.is_ok_and(|status| status.success())
}

/// A network namespace, removed with all that is in it.
struct Namespace(String);

impl Namespace {
    fn new(name: &str) -> Option<Self> {
        let name = format!("bf-mdns-{}-{name}", std::process::id());
        ip(&format!("netns add {name}")).then(|| Self(name))
    }

    /// Moves the calling thread, and those it starts later.
    fn enter(&self) {
        let file = File::open(format!("/run/netns/{}", self.0)).unwrap();
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.0));
    }
}

#[test]
fn two_nodes_alone_find_each_other() {
    let (Some(left), Some(right)) = (Namespace::new("l"), Namespace::new("r")) else {
        eprintln!("skipped: this user may not make network namespaces");
        return;
    };
    assert!(ip(&format!("-n {} link add eth0 type veth peer name eth0 netns {}", left.0, right.0)));
    let addresses = [Ipv4Addr::new(10, 99, 7, 1), Ipv4Addr::new(10, 99, 7, 2)];
    for (namespace, address) in [&left, &right].into_iter().zip(addresses) {
        let name = &namespace.0;
        assert!(ip(&format!("-n {name} addr add {address}/24 dev eth0")));
        assert!(ip(&format!("-n {name} link set lo up")));
        assert!(ip(&format!("-n {name} link set eth0 up")));
    }
    let met = Arc::new(Barrier::new(2));
    let nodes = [left, right].into_iter().zip(addresses).map(|(namespace, address)| {
        let met = met.clone();
        thread::spawn(move || {
            namespace.enter();
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let spec = Spec { listen: (address, 0).into(), address, mdns: true, ..Spec::default() };
                let node = Node::start(spec).await;
                node.until_event("the other node", |event| matches!(event, SwarmEvent::PeerUp(..))).await;
                met.wait();
                node.stop().await;
            });
        })
    });
    for node in nodes.collect::<Vec<_>>() {
        node.join().unwrap();
    }
}
