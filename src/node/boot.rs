//! Booting others: DHCP (with its router advertisements) and TFTP, started once the boot blobs are held.
//!
//! Glue between the DHCP service and the swarm: lease records travel as the swarm's records, members rank as the
//! service's responders, stages become events.
//!
//! Tasks: one that passes lease records on to the swarm, one that turns stages into events. Both end with the service.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fabric::codec;
use fabric::id::NodeId;
use fabric::swarm::{NewRecord, Record, SwarmHandle};
use pxe::dhcp::driver::{self, DhcpHandle, Replication, Sockets as DhcpSockets};
use pxe::dhcp::{Config, LeaseRecord, MemberId};
use tokio_util::sync::CancellationToken;

use super::control::SocketRole;
use super::services::Sockets;
use super::view::Member;
use crate::event::{Event, Events};

/// Topic of lease records among the swarm's records.
pub(crate) const LEASES: u8 = 1;
/// What lease records are called in errors.
const LEASE: &str = "lease record";

/// A node as the DHCP ranks know it.
pub(crate) fn member_id(node: NodeId) -> MemberId {
    MemberId::new(*node.0.as_bytes())
}

/// What the DHCP service of one node is started with.
pub(crate) struct Dhcp<'a> {
    pub(crate) interface: &'a str,
    pub(crate) config: Config,
    pub(crate) swarm: SwarmHandle,
    pub(crate) events: Events,
}

impl Dhcp<'_> {
    /// Starts the service; it knows the leases that the swarm knows already.
    pub(crate) async fn start(
        self,
        sockets: &mut Sockets,
        stop: &CancellationToken,
    ) -> anyhow::Result<Arc<DhcpHandle>> {
        let inherited = sockets.take_dhcp();
        let me = member_id(self.swarm.node());
        let (mut handle, replication) = driver::start(self.interface, self.config, me, inherited, stop)?;
        if let Some(bound) = handle.sockets() {
            keep(sockets, bound).context("cannot duplicate a socket")?;
        }
        tokio::spawn(tell(handle.events_from_start(), self.events));
        let handle = Arc::new(handle);
        let known = leases(&self.swarm.records(LEASES).await);
        handle.merge(known).await?;
        tokio::spawn(replicate(replication, self.swarm.clone()));
        Ok(handle)
    }
}

fn keep(sockets: &mut Sockets, bound: &DhcpSockets) -> std::io::Result<()> {
    sockets.keep(SocketRole::Dhcp, &bound.server)?;
    match &bound.boot {
        Some(boot) => sockets.keep(SocketRole::DhcpBoot, boot),
        None => Ok(()),
    }
}

/// The live members that answer DHCP, in the service's terms.
pub(crate) fn responders(members: &[Member]) -> Vec<MemberId> {
    members.iter().filter(|member| member.info.boots).map(|member| member_id(member.info.node)).collect()
}

/// The lease records among the swarm's `records`. What cannot be read is another version's or a lie, and is left out.
pub(crate) fn leases(records: &[Record]) -> Vec<LeaseRecord> {
    let leases = records.iter().filter(|record| record.topic == LEASES);
    leases
        .filter_map(|record| {
            let mut lease: LeaseRecord = codec::decode(LEASE, &record.value).ok()?;
            // Time passed while it was on its way.
            let age = u32::try_from(record.age.as_millis()).unwrap_or(u32::MAX);
            lease.remaining_ms = lease.remaining_ms.saturating_sub(age);
            Some(lease)
        })
        .collect()
}

/// What lease records wait for company on their way to the swarm, which gathers for a few milliseconds itself: a standby
/// waits ten times as long. Without it every packet of a storm would wake the swarm.
const GATHER: Duration = Duration::from_millis(2);
/// What stages wait for company on their way to whoever listens.
const GATHER_STAGES: Duration = Duration::from_millis(5);

async fn replicate(mut replication: Replication, swarm: SwarmHandle) {
    while let Some(mut leases) = replication.recv().await {
        tokio::time::sleep(GATHER).await;
        while let Ok(more) = replication.try_recv() {
            leases.extend(more);
        }
        let records = leases.iter().filter_map(new_record).collect();
        if let Err(error) = swarm.put_records(records).await {
            tracing::debug!(%error, "leases were not replicated");
        }
    }
}

fn new_record(lease: &LeaseRecord) -> Option<NewRecord> {
    let key = codec::encode(LEASE, &lease.holder).ok()?;
    let value = codec::encode(LEASE, lease).ok()?;
    Some(NewRecord { topic: LEASES, key, counter: lease.counter, value })
}

async fn tell(mut stages: tokio::sync::broadcast::Receiver<pxe::dhcp::BootEvent>, events: Events) {
    use tokio::sync::broadcast::error::{RecvError, TryRecvError};
    loop {
        match stages.recv().await {
            Ok(stage) => events.emit(event(&stage)),
            Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => return,
        }
        loop {
            match stages.try_recv() {
                Ok(stage) => events.emit(event(&stage)),
                Err(TryRecvError::Lagged(_)) => {}
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        tokio::time::sleep(GATHER_STAGES).await;
    }
}

fn event(stage: &pxe::dhcp::BootEvent) -> Event {
    Event::Dhcp {
        mac: stage.client.to_string(),
        class: stage.class.map(|class| class.to_string()).unwrap_or_default(),
        stage: name(&stage.stage),
        address: stage.address,
    }
}

/// The name under which a fieldless value appears in JSON.
pub(crate) fn name(value: &impl serde::Serialize) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(serde_json::Value::Object(fields)) => fields.keys().next().cloned().unwrap_or_default(),
        _ => String::new(),
    }
}
