//! The DHCP service on a switch of network namespaces, asked by real clients: `dhclient` and `busybox udhcpc`.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "helpers of tests fail by panicking"
)]

mod dhcp_lab;

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddrV6};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dhcp_lab::{Host, INTERFACE, Lab};
use pxe::dhcp::driver::{self, DhcpHandle, DriverError, Replication};
use pxe::dhcp::event::Counters;
use pxe::dhcp::{LeaseRecord, LeaseState, MemberId, Stage, arp, interface::Interface};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// How long anything here may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(20);

/// A node's service, running in its namespace.
struct Node {
    host: Host,
    address: Ipv4Addr,
    calls: mpsc::Sender<Call>,
    thread: std::thread::JoinHandle<()>,
}

enum Call {
    Members(Vec<MemberId>, oneshot::Sender<()>),
    Merge(Vec<LeaseRecord>),
    Counters(oneshot::Sender<Counters>),
    Leases(oneshot::Sender<Vec<LeaseRecord>>),
    Responder(pxe::dhcp::ClientKey, oneshot::Sender<MemberId>),
    Event(Stage, oneshot::Sender<Option<Ipv4Addr>>),
    Stop,
}

/// Where a node's records go.
type Peers = Arc<std::sync::Mutex<Vec<mpsc::Sender<Call>>>>;

impl Node {
    fn start(host: Host, address: Ipv4Addr, peers: Peers) -> Self {
        host.add_address(address);
        let (calls, mut inbox) = mpsc::channel(64);
        let (ready, started) = std::sync::mpsc::channel();
        let inside = host.clone();
        let thread = host.run(move || async move {
            let cancel = CancellationToken::new();
            let started = driver::start(INTERFACE, inside.config(address), inside.member(), None, &cancel);
            let (handle, replication) = started.unwrap();
            let forwarding = tokio::spawn(forward(replication, peers));
            ready.send(()).unwrap();
            let mut events = handle.events();
            while let Some(call) = inbox.recv().await {
                match call {
                    Call::Members(members, done) => {
                        handle.set_members(members).await.unwrap();
                        // The next answer proves that the command was carried out.
                        handle.counters().await.unwrap();
                        done.send(()).unwrap();
                    }
                    Call::Merge(records) => handle.merge(records).await.unwrap(),
                    Call::Counters(answer) => answer.send(handle.counters().await.unwrap()).unwrap(),
                    Call::Leases(answer) => answer.send(handle.leases().await.unwrap()).unwrap(),
                    Call::Responder(key, answer) => {
                        answer.send(handle.responder(key).await.unwrap()).unwrap();
                    }
                    Call::Event(stage, answer) => {
                        let found = async {
                            loop {
                                let event = events.recv().await.unwrap();
                                if event.stage == stage {
                                    return event.address;
                                }
                            }
                        };
                        answer
                            .send(tokio::time::timeout(PATIENCE, found).await.expect("no such event"))
                            .unwrap();
                    }
                    Call::Stop => break,
                }
            }
            stop(handle, forwarding).await;
        });
        started.recv_timeout(PATIENCE).expect("the service starts");
        Self { host, address, calls, thread }
    }

    fn ask<T>(&self, call: impl FnOnce(oneshot::Sender<T>) -> Call) -> T {
        let (answer, reply) = oneshot::channel();
        self.calls.blocking_send(call(answer)).unwrap();
        reply.blocking_recv().unwrap()
    }

    fn counters(&self) -> Counters {
        self.ask(Call::Counters)
    }

    fn stop(self) {
        self.calls.blocking_send(Call::Stop).unwrap();
        self.thread.join().unwrap();
    }
}

async fn stop(handle: DhcpHandle, forwarding: tokio::task::JoinHandle<()>) {
    handle.stop().await;
    // The task's end closes the channel, and that ends the forwarding.
    forwarding.await.unwrap();
}

async fn forward(mut replication: Replication, peers: Peers) {
    while let Some(batch) = replication.recv().await {
        let peers = peers.lock().unwrap().clone();
        for peer in peers {
            // A peer that has stopped is no error.
            let _ = peer.send(Call::Merge(batch.clone())).await;
        }
    }
}

/// Nodes that know each other and replicate.
fn nodes(lab: &mut Lab, count: u8) -> Vec<Node> {
    let peers: Vec<Peers> = (0..count).map(|_| Peers::default()).collect();
    let nodes: Vec<_> = (0..count)
        .map(|n| {
            let host = lab.add_host(&format!("node{n}"), n + 1);
            Node::start(host, Ipv4Addr::new(10, 9, 0, n + 1), peers[usize::from(n)].clone())
        })
        .collect();
    let members: Vec<_> = nodes.iter().map(|node| node.host.member()).collect();
    for (index, node) in nodes.iter().enumerate() {
        let others = nodes.iter().enumerate().filter(|&(other, _)| other != index);
        peers[index].lock().unwrap().extend(others.map(|(_, other)| other.calls.clone()));
        node.ask(|done| Call::Members(members.clone(), done));
    }
    nodes
}

#[test]
fn udhcpc_gets_a_lease_and_gives_it_back() {
    let Some(mut lab) = Lab::new() else { return };
    let node = nodes(&mut lab, 1).remove(0);
    let client = lab.add_host("client", 50);
    let told = client.udhcpc(&["-R"]);
    let address = told.address("ip");
    assert!((100..200).contains(&address.octets()[3]), "{address}");
    assert_eq!(told.address("serverid"), node.address);
    assert_eq!(told.get("mask"), Some("24"), "{}", told.output);
    assert_eq!(told.get("lease"), Some("3600"));
    assert_eq!(told.get("router"), None, "a bare switch has no router");
    assert_eq!(told.get("boot_file"), None, "no boot file for an operating system");
    node.stop();
}

#[test]
fn a_boot_client_is_told_its_loader() {
    let Some(mut lab) = Lab::new() else { return };
    let node = nodes(&mut lab, 1).remove(0);
    let client = lab.add_host("client", 50);
    let told = client.udhcpc(&[
        "-V",
        "PXEClient:Arch:00007:UNDI:003000",
        "-x",
        "0x5d:0007",
        "-O",
        "bootfile",
        "-O",
        "tftp",
    ]);
    assert_eq!(told.get("bootfile"), Some("snponly.efi"), "{}", told.output);
    assert_eq!(told.address("siaddr"), node.address);
    assert_eq!(told.get("lease"), Some("240"));
    node.stop();
}

#[test]
fn dhclient_gets_the_same_address_again_and_releases_it() {
    let Some(mut lab) = Lab::new() else { return };
    let node = nodes(&mut lab, 1).remove(0);
    let client = lab.add_host("client", 50);
    let told = client.dhclient(&[]);
    let first = told.address("new_ip_address");
    client.end_dhclient();
    // It remembers its lease: INIT-REBOOT.
    assert_eq!(client.dhclient(&[]).address("new_ip_address"), first);
    client.end_dhclient();
    client.add_address(first);
    client.dhclient(&["-r"]);
    assert_eq!(node.ask(|answer| Call::Event(Stage::Release, answer)), Some(first));
    let released = node.ask(Call::Leases).into_iter().find(|lease| lease.address == first);
    assert_eq!(released.map(|lease| lease.state), Some(LeaseState::Released));
    node.stop();
}

#[test]
fn several_nodes_give_one_offer() {
    let Some(mut lab) = Lab::new() else { return };
    let nodes = nodes(&mut lab, 3);
    let clients: Vec<_> = (0..6).map(|n| lab.add_host(&format!("client{n}"), 50 + n)).collect();
    let mut addresses: Vec<_> = clients.iter().map(|client| client.udhcpc(&[]).address("ip")).collect();
    let counters: Vec<_> = nodes.iter().map(Node::counters).collect();
    let offers: u64 = counters.iter().map(|counters| counters.offers).sum();
    for seen in &counters {
        assert_eq!(seen.discovers, offers, "one offer per DISCOVER: {counters:?}");
    }
    addresses.sort_unstable();
    addresses.dedup();
    assert_eq!(addresses.len(), clients.len());
    nodes.into_iter().for_each(Node::stop);
}

#[test]
fn another_node_takes_over_with_the_same_address() {
    let Some(mut lab) = Lab::new() else { return };
    let mut nodes = nodes(&mut lab, 2);
    let client = lab.add_host("client", 50);
    let first = client.udhcpc(&[]).address("ip");
    let responder = nodes[0].ask(|answer| Call::Responder(client.key(), answer));
    let index = nodes.iter().position(|node| node.host.member() == responder).unwrap();
    nodes.remove(index).stop();
    // The other one still believes that the responder is alive: it answers as a standby.
    let told = client.udhcpc(&[]);
    assert_eq!(told.address("ip"), first);
    assert_eq!(told.address("serverid"), nodes[0].address);
    assert!(nodes[0].counters().standby_answers >= 1);
    nodes.remove(0).stop();
}

#[test]
fn a_port_in_use_names_its_owner_and_sockets_are_handed_over() {
    let Some(mut lab) = Lab::new() else { return };
    let host = lab.add_host("node0", 1);
    let client = lab.add_host("client", 50);
    let (address, inside) = (Ipv4Addr::new(10, 9, 0, 1), host.clone());
    // No address yet: binding must work all the same.
    let (served, wait) = std::sync::mpsc::channel();
    let (end, ended) = oneshot::channel::<()>();
    let node = host.run(move || async move {
        let cancel = CancellationToken::new();
        let config = inside.config(address);
        let start = |sockets| driver::start(INTERFACE, config.clone(), inside.member(), sockets, &cancel);
        let (first, _records) = start(None).unwrap();
        let error = start(None).map(|_| ()).unwrap_err();
        let DriverError::PortInUse { port: 67, owner: Some(owner) } = &error else { panic!("{error:?}") };
        assert_eq!(owner.pid, std::process::id());
        assert!(error.to_string().contains(&format!("(pid {})", owner.pid)), "{error}");

        let sockets = first.sockets().unwrap().try_clone().unwrap();
        first.stop().await;
        let (second, _records) = start(Some(sockets)).unwrap();
        inside.add_address(address);
        served.send(()).unwrap();
        ended.await.unwrap();
        second.stop().await;
    });
    wait.recv_timeout(PATIENCE).unwrap();
    assert_eq!(client.udhcpc(&[]).address("serverid"), address);
    end.send(()).unwrap();
    node.join().unwrap();
}

/// Solicits until an advertisement comes, as iPXE does.
fn solicit() -> Vec<u8> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
    socket.bind_device(Some(INTERFACE.as_bytes())).unwrap();
    socket.set_multicast_hops_v6(255).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let index = Interface::find(INTERFACE).unwrap().index;
    let routers = SocketAddrV6::new("ff02::2".parse().unwrap(), 0, 0, index);
    let end = Instant::now() + PATIENCE;
    let mut buffer = [0; 1500];
    while Instant::now() < end {
        // Fails until the interface has its link-local address.
        let _ = socket.send_to(&[133, 0, 0, 0, 0, 0, 0, 0], &routers.into());
        while let Ok(length) = (&socket).read(&mut buffer) {
            if buffer[0] == 134 {
                return buffer[..length].to_vec();
            }
        }
    }
    panic!("no router advertisement");
}

#[test]
fn a_booting_client_is_told_that_there_is_no_router() {
    let Some(mut lab) = Lab::new() else { return };
    let node = nodes(&mut lab, 1).remove(0);
    let client = lab.add_host("client", 50);
    client.udhcpc(&["-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000"]).address("ip");
    let advertisement = client.run(|| async { solicit() }).join().unwrap();
    assert_eq!(advertisement.len(), 16, "no prefix and no other option");
    assert_eq!(advertisement[4..], [0; 12], "no flags, no lifetime");
    node.stop();
}

#[test]
fn arp_tells_used_addresses_from_free_ones() {
    let Some(mut lab) = Lab::new() else { return };
    let (one, other) = (lab.add_host("one", 1), lab.add_host("other", 2));
    let used = Ipv4Addr::new(10, 9, 0, 2);
    other.add_address(used);
    let found = one.run(move || async move {
        let interface = Interface::find(INTERFACE).unwrap();
        let free = Ipv4Addr::new(10, 9, 0, 3);
        // The port may need a moment until it forwards.
        let search = async { while !arp::probe(&interface, used, arp::PROBE_TIME).await.unwrap() {} };
        tokio::time::timeout(PATIENCE, search).await.expect("the used address is found");
        arp::probe(&interface, free, arp::PROBE_TIME).await.unwrap()
    });
    assert!(!found.join().unwrap());
}
