//! Events: what a node says of itself to programs.
//!
//! One JSON object a line, with fixed names and fields; the lab, the tests and `bootfabric events` read these, never
//! log text. Owns the vocabulary, and by [`Events`] the writing; what happens is decided elsewhere.

mod events;

use std::net::Ipv4Addr;

use fabric::exchange::Route;
use serde::{Deserialize, Serialize};

pub use events::{Events, Record};

/// What happened. Field names are an interface: add, never rename.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// A phase of the first stage began.
    PhaseStarted {
        /// Name of the phase.
        phase: String,
    },
    /// A phase of the first stage is done.
    PhaseDone {
        /// Name of the phase.
        phase: String,
        /// How long it took.
        millis: u64,
    },
    /// A phase failed; the first stage retries it unless a shell was asked for.
    PhaseFailed {
        /// Name of the phase.
        phase: String,
        /// What went wrong, the chain of causes included.
        error: String,
        /// What a person can do about it.
        remedy: String,
    },
    /// The node's services are up.
    NodeStarted {
        /// The node's id in the swarm.
        node: String,
        /// Its name.
        name: String,
        /// Its address on the boot link.
        address: Ipv4Addr,
        /// Port of its HTTP service.
        http_port: u16,
    },
    /// The node took an address of the pool for itself, as nobody gave it one.
    AddressTaken {
        /// The address.
        address: Ipv4Addr,
    },
    /// Newer settings of the fabric hold here.
    MachinesSet {
        /// Generation of the settings.
        generation: u64,
        /// How many machines they name.
        nodes: usize,
    },
    /// What newer settings say of machines cannot be understood.
    MachinesRefused {
        /// Generation of the settings.
        generation: u64,
        /// Why: each line and field.
        error: String,
    },
    /// A neighbour joined.
    PeerUp {
        /// Its id.
        node: String,
        /// Its address.
        address: String,
    },
    /// A neighbour is gone.
    PeerDown {
        /// Its id.
        node: String,
    },
    /// A peer of another fabric, or of a version that this one cannot talk to, was seen on the switch.
    Incompatible {
        /// Who.
        peer: String,
        /// Why.
        reason: String,
    },
    /// A machine asks a member of a private fabric to be admitted. Said once while it goes on asking.
    MemberWaiting {
        /// Its id.
        node: String,
        /// What it calls itself.
        name: String,
        /// The hardware address that it says it has; empty if it says none.
        mac: String,
        /// Its address.
        address: String,
    },
    /// A private fabric turns this node away.
    NotAdmitted {
        /// This node's id.
        node: String,
        /// Why.
        reason: String,
    },
    /// A DHCP exchange of a client moved on.
    Dhcp {
        /// Hardware address of the client.
        mac: String,
        /// Client class.
        class: String,
        /// Stage: discover, offer, request, ack, nak, …
        stage: String,
        /// The address concerned.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Ipv4Addr>,
    },
    /// A machine that boots from this node came a step further than DHCP.
    BootStage {
        /// Its hardware address.
        mac: String,
        /// Its class when it last asked DHCP; `elsewhere` where another node answered it.
        class: String,
        /// Its address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<Ipv4Addr>,
        /// `loader`, `script`, `kernel`, `first-stage`, `file`, with the reason behind a colon where it failed; `node` once
        /// it takes part in the swarm.
        stage: String,
        /// Bytes sent in this step.
        bytes: u64,
        /// How long this step took.
        millis: u64,
        /// Time since its first DHCP packet.
        since_millis: u64,
    },
    /// A boot file went out (or failed to).
    FileServed {
        /// `tftp` or `http`.
        service: String,
        /// Name of the file.
        name: String,
        /// The client.
        client: String,
        /// Bytes sent.
        bytes: u64,
        /// Outcome in the service's words: an HTTP status, `done`, `aborted`.
        status: String,
        /// How long it took.
        millis: u64,
    },
    /// A release's signature was checked against the trust root.
    ReleaseVerified {
        /// Object id of the signed release.
        release: String,
        /// Name of the image.
        name: String,
        /// Version of the image.
        version: String,
        /// Generation number.
        generation: u64,
        /// How nodes hold its root: `overlay`, `zram`, `tmpfs`.
        #[serde(default)]
        root_mode: String,
    },
    /// The memory the root needs was compared with what the machine has.
    MemoryChecked {
        /// MiB needed.
        needed_mib: u64,
        /// MiB available.
        available_mib: u64,
    },
    /// All boot blobs are held: this node can boot the next machine from now on.
    BootBlobsHeld {
        /// Bytes of all boot blobs.
        bytes: u64,
    },
    /// A download moved on.
    Progress {
        /// What it is: `kernel`, `first-stage`, `root`, a loader's name.
        role: String,
        /// Bytes verified so far.
        bytes: u64,
        /// Bytes in all.
        total: u64,
        /// Peers that are sending.
        peers: usize,
    },
    /// A blob is complete and verified.
    BlobComplete {
        /// What it is.
        role: String,
        /// The blob's id.
        blob: String,
        /// Its size in bytes.
        bytes: u64,
        /// How much came from whom.
        sources: Vec<Source>,
        /// Bytes that were copied from other blobs of the store, such as those of an earlier version.
        #[serde(default)]
        reused: u64,
    },
    /// A peer did not answer a request for chunks; somebody else is asked.
    RequestFailed {
        /// The peer's id.
        node: String,
        /// How it failed, in words.
        why: String,
    },
    /// A file is served until the program is stopped.
    Seeding {
        /// What `bootfabric fetch` is given.
        ticket: String,
        /// The file.
        file: String,
        /// Its blob's id.
        blob: String,
        /// Its size in bytes.
        bytes: u64,
        /// How long reading and hashing it took.
        index_millis: u64,
    },
    /// Every chunk of a blob has been seen at a neighbour: the swarm has it even if this node dies now.
    FirstCopyOut {
        /// The blob's id.
        blob: String,
    },
    /// A file is complete, verified and at its place.
    Done {
        /// The file.
        file: String,
        /// Its size in bytes.
        bytes: u64,
        /// Milliseconds since the program began.
        millis: u64,
    },
    /// A peer sent bytes that are not the chunk they should be.
    BadChunk {
        /// The peer.
        node: String,
        /// The peer's address.
        address: String,
        /// The blob.
        blob: String,
        /// Number of the chunk.
        chunk: u32,
        /// The hash that the blob's index gives.
        #[serde(default)]
        expected: String,
        /// The hash of what the peer sent.
        #[serde(default)]
        got: String,
    },
    /// A peer is not asked for chunks any more.
    PeerBanned {
        /// Its id.
        node: String,
        /// Its address.
        address: String,
        /// What it did.
        why: String,
    },
    /// A peer's chunks come on another way than before.
    PeerRoute {
        /// Its id.
        node: String,
        /// Its address.
        address: String,
        /// `http`, or `swarm` while its HTTP service cannot be reached.
        route: Route,
        /// What made it change.
        why: String,
    },
    /// The root is mounted.
    RootMounted {
        /// The device that holds the blob.
        device: String,
        /// Root mode.
        mode: String,
    },
    /// The mounted device was read whole and hashed.
    RootHashed {
        /// What was computed.
        computed: String,
        /// What the release says.
        expected: String,
        /// Whether they agree.
        matches: bool,
    },
    /// The agent knows what the arriving root holds.
    RootListed {
        /// Bytes of its files, in whole pages.
        bytes: u64,
        /// Files, directories and all else.
        files: u64,
    },
    /// The agent filled the directory that PID 1 made for it with the root.
    RootFilled {
        /// How long it took, the waiting for chunks included.
        millis: u64,
        /// Of the time that passed, what processors worked on it, all together.
        worked_millis: u64,
    },
    /// The root was unpacked into memory.
    RootUnpacked {
        /// Root mode.
        mode: String,
        /// The kernel's name of the compressor; empty for plain memory.
        compression: String,
        /// Bytes of its files, in whole pages.
        original: u64,
        /// Bytes of memory that they take.
        used: u64,
        /// Bytes of the blob, which is in memory a second time unless it is given back.
        blob: u64,
        /// How long it took.
        millis: u64,
    },
    /// The root's blob was given back, as the node does not keep it for others.
    RootDropped {
        /// The blob.
        blob: String,
        /// Its size in bytes.
        bytes: u64,
    },
    /// The node keeps a share of the root's blob; said when that begins and whenever the share has changed.
    RootShared {
        /// The blob.
        blob: String,
        /// Its size in bytes.
        bytes: u64,
        /// Bytes of it that are held.
        held: u64,
        /// How many nodes share it, as far as this one sees, itself included.
        sharers: u32,
        /// How many of them are to hold each chunk.
        copies: u8,
        /// Bytes that this node ought to hold and lacks.
        lacking: u64,
        /// Bytes of these for which it has no memory.
        no_room: u64,
    },
    /// A disk was installed; the machine starts from it without a network from now on.
    DiskInstalled {
        /// Its node.
        disk: String,
        /// UUID of the root's filesystem; empty if the root stays in memory.
        root: String,
        /// UUID of the store's filesystem.
        store: String,
        /// How long the work on it took, aside from what came meanwhile.
        millis: u64,
    },
    /// The agent moved into the new root, as PID 1 told it to; PID 1 does not go on before.
    Entered {
        /// Where the new root was mounted.
        root: String,
    },
    /// PID 1 becomes the root's own init.
    HandedOver {
        /// Path of that init.
        init: String,
    },
    /// The agent of the booted system took the sockets, the identity and the store over.
    TookOver {
        /// Bytes that had to be fetched again: always zero when the store was intact.
        fetched: u64,
    },
}

/// How much of a blob one peer delivered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// The peer's id.
    pub node: String,
    /// Its address.
    pub address: String,
    /// Verified bytes it sent.
    pub bytes: u64,
}
