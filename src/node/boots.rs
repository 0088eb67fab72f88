//! The machines that boot from this node, and how far each has come.
//!
//! Reads the node's own events: DHCP tells hardware address, class and address, the file services tell which file went to
//! that address, the swarm tells when it came back as a node. Each step becomes an event that names the machine. Pure
//! bookkeeping: [`boot_steps`](super::boot_steps) takes the events to it.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::status::BootStatus;
use crate::event::Event;

/// Machines remembered: those heard of last. A status of so many is still read by a person with `grep`.
const MAX_BOOTS: usize = 1024;
/// After this silence a machine that asks again boots anew.
const ANEW: Duration = Duration::from_secs(600);

#[derive(Debug, Clone)]
struct Boot {
    class: String,
    address: Option<Ipv4Addr>,
    stage: String,
    bytes: u64,
    began: Instant,
    last: Instant,
}

/// The machines, by hardware address.
#[derive(Debug, Default)]
pub(crate) struct Boots(Mutex<BTreeMap<String, Boot>>);

impl Boots {
    /// Takes in an event; returns the step of a machine's boot that it is, if DHCP's own event does not say it already.
    pub(super) fn take(&self, event: &Event, now: Instant) -> Option<Event> {
        let mut boots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Dhcp { mac, class, stage, address } => {
                if class.is_empty() || class == "plain" && !boots.contains_key(mac) {
                    return None;
                }
                if boots.len() >= MAX_BOOTS && !boots.contains_key(mac) {
                    let oldest = boots.iter().min_by_key(|(_, boot)| boot.last).map(|(mac, _)| mac.clone());
                    oldest.and_then(|mac| boots.remove(&mac));
                }
                let fresh = Boot {
                    class: String::new(),
                    address: None,
                    stage: String::new(),
                    bytes: 0,
                    began: now,
                    last: now,
                };
                let boot = boots.entry(mac.clone()).or_insert_with(|| fresh.clone());
                if now.saturating_duration_since(boot.last) > ANEW
                    || boot.stage == "node" && stage == "discover"
                {
                    *boot = fresh;
                }
                if class != "plain" {
                    class.clone_into(&mut boot.class);
                }
                boot.address = address.or(boot.address);
                stage.clone_into(&mut boot.stage);
                boot.last = now;
                None
            }
            Event::FileServed { client, name, bytes, status, millis, .. } => {
                let address = client.parse::<SocketAddr>().ok()?.ip();
                let stage = stage_of(name);
                let failed = !matches!(status.as_str(), "200" | "206" | "304" | "done" | "probe");
                step(&mut boots, address, now, |boot| {
                    boot.bytes += bytes;
                    boot.stage = if failed { format!("{stage}: {status}") } else { stage.to_owned() };
                    (*bytes, *millis)
                })
            }
            Event::PeerUp { address, .. } => {
                // An address alone, or with a port.
                let ip = address.parse().ok().or_else(|| Some(address.parse::<SocketAddr>().ok()?.ip()))?;
                step(&mut boots, ip, now, |boot| {
                    boot.stage = "node".into();
                    (0, 0)
                })
            }
            _ => None,
        }
    }

    /// The address of a client that `event` shows in the middle of a boot that this node has not seen the beginning of:
    /// another node gave it its address.
    pub(super) fn stranger(&self, event: &Event) -> Option<Ipv4Addr> {
        let Event::FileServed { client, name, .. } = event else { return None };
        let std::net::IpAddr::V4(address) = client.parse::<SocketAddr>().ok()?.ip() else { return None };
        let boots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = boots.values().any(|boot| boot.address == Some(address));
        (!known && stage_of(name) != "file").then_some(address)
    }

    /// The machines, the one heard of last first.
    pub(crate) fn status(&self, now: Instant) -> Vec<BootStatus> {
        let boots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = boots.iter().collect();
        all.sort_by_key(|(_, boot)| std::cmp::Reverse(boot.last));
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        all.into_iter()
            .map(|(mac, boot)| BootStatus {
                mac: mac.clone(),
                class: boot.class.clone(),
                address: boot.address,
                stage: boot.stage.clone(),
                bytes: boot.bytes,
                seconds: boot.last.saturating_duration_since(boot.began).as_secs(),
                idle_seconds: seconds(boot.last),
            })
            .collect()
    }
}

/// Applies `change` to the machine at `address` and returns the event of it.
fn step(
    boots: &mut BTreeMap<String, Boot>,
    address: std::net::IpAddr,
    now: Instant,
    change: impl FnOnce(&mut Boot) -> (u64, u64),
) -> Option<Event> {
    let at = |boot: &Boot| boot.address.is_some_and(|of| address == std::net::IpAddr::V4(of));
    // An address goes from one machine to another over time: the one heard of last has it.
    let (mac, boot) = boots.iter_mut().filter(|(_, boot)| at(boot)).max_by_key(|(_, boot)| boot.last)?;
    let (bytes, millis) = change(boot);
    boot.last = now;
    Some(Event::BootStage {
        mac: mac.clone(),
        class: boot.class.clone(),
        address: boot.address,
        stage: boot.stage.clone(),
        bytes,
        millis,
        since_millis: u64::try_from(now.saturating_duration_since(boot.began).as_millis())
            .unwrap_or(u64::MAX),
    })
}

/// What the file `name` is in a boot.
fn stage_of(name: &str) -> &'static str {
    match name.rsplit('/').next().unwrap_or_default() {
        "boot.ipxe" => "script",
        "kernel" if name.starts_with("boot/") => "kernel",
        "first-stage" if name.starts_with("boot/") => "first-stage",
        file if file.ends_with("pxe") || file.ends_with(".efi") => "loader",
        _ => "file",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: &str = "52:54:00:00:00:01";

    fn dhcp(mac: &str, class: &str, stage: &str, last: u8) -> Event {
        let address = (last > 0).then_some(Ipv4Addr::new(10, 77, 0, last));
        Event::Dhcp { mac: mac.into(), class: class.into(), stage: stage.into(), address }
    }

    fn file(last: u8, name: &str, bytes: u64, status: &str) -> Event {
        Event::FileServed {
            service: "http".into(),
            name: name.into(),
            client: format!("10.77.0.{last}:1025"),
            bytes,
            status: status.into(),
            millis: 7,
        }
    }

    #[test]
    fn each_step_names_its_machine() {
        let (boots, began) = (Boots::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert_eq!(boots.take(&dhcp(MAC, "uefi-pxe-7", "discover", 0), at(0)), None);
        boots.take(&dhcp(MAC, "uefi-pxe-7", "ack", 30), at(1));
        let stages = [
            (file(30, "snponly.efi", 9, "done"), "loader"),
            (file(30, "boot.ipxe", 5, "200"), "script"),
            (file(30, "boot/ab/kernel", 0, "refused: busy"), "kernel: refused: busy"),
            (file(30, "boot/ab/kernel", 100, "200"), "kernel"),
            (file(30, "boot/ab/first-stage", 50, "200"), "first-stage"),
            (Event::PeerUp { node: "n".into(), address: "10.77.0.30".into() }, "node"),
        ];
        for (n, (event, expected)) in stages.into_iter().enumerate() {
            let Some(Event::BootStage { mac, class, address, stage, since_millis, .. }) =
                boots.take(&event, at(2 + n as u64))
            else {
                panic!("{expected} is no step")
            };
            assert_eq!((mac.as_str(), class.as_str(), stage.as_str()), (MAC, "uefi-pxe-7", expected));
            assert_eq!((address, since_millis), (Some([10, 77, 0, 30].into()), 1000 * (2 + n as u64)));
        }
        let status = boots.status(at(17));
        assert_eq!(
            (status.len(), status[0].bytes, status[0].seconds, status[0].idle_seconds),
            (1, 164, 7, 10)
        );
        boots.take(&dhcp(MAC, "uefi-pxe-7", "discover", 0), at(20));
        assert_eq!(boots.status(at(20))[0].seconds, 0, "it boots anew");
    }

    #[test]
    fn strangers_are_no_boots_and_an_address_belongs_to_who_had_it_last() {
        let (boots, now) = (Boots::default(), Instant::now());
        boots.take(&dhcp("52:54:00:00:00:09", "plain", "ack", 9), now);
        let asks = file(9, "boot.ipxe", 1, "200");
        assert_eq!((boots.take(&asks, now), boots.stranger(&asks)), (None, Some([10, 77, 0, 9].into())));
        assert_eq!(boots.stranger(&file(9, "grub.cfg", 1, "200")), None);
        boots.take(&dhcp(MAC, "bios-ipxe", "ack", 30), now);
        let later = now + Duration::from_secs(1);
        boots.take(&dhcp("52:54:00:00:00:02", "bios-ipxe", "ack", 30), later);
        let Some(Event::BootStage { mac, .. }) = boots.take(&file(30, "boot.ipxe", 1, "200"), later) else {
            panic!("no step")
        };
        assert_eq!(mac, "52:54:00:00:00:02");
        // A booted machine renews as a plain client and stays what it was.
        boots.take(&dhcp(MAC, "plain", "ack", 30), later);
        assert!(boots.status(later).iter().all(|boot| boot.class == "bios-ipxe"));
    }

    #[test]
    fn machines_are_bounded() {
        let (boots, now) = (Boots::default(), Instant::now());
        for number in 0..2 * MAX_BOOTS {
            boots.take(
                &dhcp(&format!("{number:012x}"), "bios-pxe", "discover", 0),
                now + Duration::from_millis(number as u64),
            );
        }
        let status = boots.status(now);
        assert_eq!(status.len(), MAX_BOOTS);
        assert_eq!(status[0].mac, format!("{:012x}", 2 * MAX_BOOTS - 1));
    }
}
