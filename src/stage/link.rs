//! The phases `link` and `address`: the interface that this machine boots over, up and with its address.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::boot::Boot;
use super::modules::{LoadError, Modules, orphan_nics};
use super::netlink::{self, LinkIndex, NetlinkError};
use super::nic::{Nic, candidates, choose, nics};
use super::phase::PhaseError;
use super::uevent::Uevents;
use super::value::Mac;

/// The loopback interface: the kernel makes it first.
const LOOPBACK: LinkIndex = LinkIndex(1);

/// How often links are looked at; a change of carrier is no device announcement.
const LOOK: Duration = Duration::from_millis(100);

/// How long a machine that starts from its disk waits for a link: with one it asks whether its address is free.
const LOCAL_PATIENCE: Duration = Duration::from_secs(3);

/// There is nothing to boot over.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("no network interface has a driver ({0})")]
    NoDriver(String),
    #[error("no network interface was found")]
    NoInterface,
    #[error("the interface {wanted} that loaded this machine was not found; there is {present}")]
    NotThatOne { wanted: Mac, present: String },
    #[error("no link on {0}")]
    NoCarrier(String),
    #[error("bootfabric.gateway is this machine's own address, {0}")]
    OwnGateway(Ipv4Addr),
    #[error("cannot use {name}")]
    Refused {
        name: String,
        #[source]
        source: NetlinkError,
    },
}

/// Waits for the interface, takes it up and waits for its link.
pub(super) fn link(boot: &mut Boot, deadline: Duration) -> Result<String, PhaseError> {
    netlink::set_up(LOOPBACK, true)?;
    let wanted = boot.line.mac;
    let uevents = Uevents::open();
    let began = Instant::now();
    let mut taken_up: Vec<LinkIndex> = Vec::new();
    loop {
        boot.modules()?.load_for_devices();
        let present = nics();
        for nic in candidates(&present, wanted) {
            if !taken_up.contains(&nic.index) {
                up(nic, true)?;
                taken_up.push(nic.index);
            }
        }
        if let Some(nic) = choose(&present, wanted) {
            // The others may lead into networks that this machine has no business in.
            for other in
                present.iter().filter(|other| other.index != nic.index && taken_up.contains(&other.index))
            {
                up(other, false)?;
            }
            let note = format!("{}  {}", nic.name, nic.mac);
            boot.nic = Some(nic.clone());
            return Ok(note);
        }
        if boot.is_local() && began.elapsed() >= LOCAL_PATIENCE {
            return Ok(without_link(boot, &present));
        }
        if began.elapsed() >= deadline {
            return Err(explain(&present, wanted, boot.modules()?));
        }
        boot.show_waiting("link", began.elapsed(), "a link");
        uevents.wait(LOOK);
    }
}

/// What a machine that starts from its disk does without a link: it is a node as soon as there is one.
fn without_link(boot: &mut Boot, present: &[Nic]) -> String {
    let nic = candidates(present, boot.line.mac).next().or(present.first()).cloned();
    if let Some(nic) = &nic {
        // Refused, the agent will say so; the machine starts.
        let _ = up(nic, true);
    }
    let note = nic
        .as_ref()
        .map_or("no interface".to_owned(), |nic| format!("{}  {}, no link yet", nic.name, nic.mac));
    boot.nic = nic;
    note
}

fn up(nic: &Nic, up: bool) -> Result<(), LinkError> {
    netlink::set_up(nic.index, up).map_err(|source| LinkError::Refused { name: nic.name.clone(), source })
}

/// Says why there is no interface, and what the image lacks if that is the reason.
fn explain(present: &[Nic], wanted: Option<Mac>, modules: &Modules) -> PhaseError {
    let names = |nics: &mut dyn Iterator<Item = &Nic>| {
        nics.map(|nic| format!("{} ({})", nic.name, nic.mac)).collect::<Vec<_>>().join(", ")
    };
    if candidates(present, wanted).next().is_some() {
        let error = LinkError::NoCarrier(names(&mut candidates(present, wanted)));
        return PhaseError::from(error).with_remedy("check the cable and the switch port");
    }
    let orphans = orphan_nics();
    if !orphans.is_empty() {
        let listed: Vec<String> = orphans
            .iter()
            .map(|orphan| match modules.drivers_of(&orphan.modalias).as_slice() {
                [] => format!("{}, {}", orphan.id, orphan.modalias),
                drivers => format!("{}, whose module {} did not take it", orphan.id, drivers.join(" or ")),
            })
            .collect();
        let failed: Vec<String> = modules.failures().iter().map(describe).collect();
        let remedy = if failed.is_empty() {
            "build the image again with the module for this card; on any Linux that drives it `modprobe --resolve-alias` \
             with the text above names it"
                .to_owned()
        } else {
            format!("modules that could not be loaded: {}", failed.join("; "))
        };
        return PhaseError::from(LinkError::NoDriver(listed.join("; "))).with_remedy(remedy);
    }
    match wanted {
        Some(wanted) if !present.is_empty() => {
            PhaseError::from(LinkError::NotThatOne { wanted, present: names(&mut present.iter()) })
                .with_remedy("boot the machine again, so that its firmware names the interface it uses now")
        }
        _ => PhaseError::from(LinkError::NoInterface).with_remedy(
            "connect a wired network card; a card on USB may need its module added to the image",
        ),
    }
}

fn describe(error: &LoadError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// Sets the address and the router that the kernel line names, and the host's name.
pub(super) fn address(boot: &mut Boot, _: Duration) -> Result<String, PhaseError> {
    if boot.line.address.is_none() && boot.disks.store {
        return own_address(boot);
    }
    let address = boot.line.address.ok_or_else(|| {
        PhaseError::message("the kernel line names no address").with_remedy(
            "boot through the fabric's boot script, or add bootfabric.address=ADDRESS/PREFIX to the kernel line",
        )
    })?;
    let nic = boot.nic()?.clone();
    let refused = |source| LinkError::Refused { name: nic.name.clone(), source };
    netlink::add_address(nic.index, address).map_err(refused)?;
    let mut note = address.to_string();
    if let Some(gateway) = boot.line.gateway {
        if gateway == address.ip {
            return Err(LinkError::OwnGateway(gateway).into());
        }
        netlink::set_gateway(nic.index, gateway).map_err(refused)?;
        note.push_str(&format!(" by {gateway}"));
    }
    let name = set_name(boot, &nic)?;
    Ok(format!("{note}  {name}"))
}

/// Without an address on the kernel line: the agent takes one of the pool.
fn own_address(boot: &mut Boot) -> Result<String, PhaseError> {
    let Some(nic) = boot.nic.clone() else { return Ok("none without an interface".to_owned()) };
    let name = set_name(boot, &nic)?;
    Ok(format!("one of the pool's, which the agent takes  {name}"))
}

fn set_name(boot: &mut Boot, nic: &Nic) -> Result<String, PhaseError> {
    let name = boot.line.name.as_ref().map_or_else(|| nic.mac.node_name(), |name| name.as_str().to_owned());
    nix::unistd::sethostname(&name)?;
    boot.set_name(&name);
    Ok(name)
}
