//! A switch: a network namespace that holds a Linux bridge, and a second one while the switch is split.

use std::sync::{Arc, Mutex, PoisonError};

use serde_json::json;

use crate::netns::Namespace;
use crate::port::{self, Port};
use crate::shared::Shared;
use crate::{Capture, CaptureOptions, Error, Mac, Result};

const BRIDGE: &str = "br0";
/// Where the ports of the other half are while the switch is split.
const OTHER_BRIDGE: &str = "br1";

/// A switch of the lab. Clones are handles to the same switch.
#[derive(Clone)]
pub struct Switch(Arc<Inner>);

struct Inner {
    name: String,
    shared: Arc<Shared>,
    namespace: Namespace,
    /// Interfaces on [`OTHER_BRIDGE`]; `None` while the switch is whole.
    split: Mutex<Option<Vec<String>>>,
}

impl Switch {
    pub(crate) fn create(shared: &Arc<Shared>, name: &str) -> Result<Switch> {
        let namespace = shared.create_namespace(&shared.claim_name(name)?)?;
        let inner =
            Inner { name: name.into(), shared: Arc::clone(shared), namespace, split: Mutex::default() };
        let switch = Switch(Arc::new(inner));
        // The switch only forwards: without this its interfaces would send router solicitations and MLD reports.
        switch.namespace().disable_ipv6()?;
        switch.add_bridge(BRIDGE)?;
        Ok(switch)
    }

    /// The name given to it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Namespace {
        &self.0.namespace
    }

    /// Moves the given ports to a switch of their own: nothing passes between the two halves until [`Switch::heal`].
    ///
    /// # Errors
    /// When the switch is split already, or a port is gone or of another switch.
    pub fn split(&self, away: &[&Port]) -> Result<()> {
        let bad = |problem| Error::Name { name: self.0.name.clone(), problem };
        let mut split = self.0.split.lock().unwrap_or_else(PoisonError::into_inner);
        if split.is_some() {
            return Err(bad("the switch is split already: heal it first"));
        }
        if away.iter().any(|port| !port.belongs_to(self)) {
            return Err(bad("a port to split off belongs to another switch"));
        }
        self.add_bridge(OTHER_BRIDGE)?;
        let moved = split.insert(Vec::new());
        for port in away {
            self.namespace().ip(&["link", "set", port.interface(), "master", OTHER_BRIDGE])?;
            moved.push(port.interface().to_owned());
        }
        drop(split);
        self.note(
            json!({"event": "split", "ports": away.iter().map(|port| port.interface()).collect::<Vec<_>>()}),
        );
        Ok(())
    }

    /// Joins the halves again. Fine when the switch is whole.
    ///
    /// # Errors
    /// When the switch is gone.
    pub fn heal(&self) -> Result<()> {
        let mut split = self.0.split.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(moved) = split.as_ref() else { return Ok(()) };
        let links = self.namespace().ip(&["-brief", "link", "show", "master", OTHER_BRIDGE])?;
        for interface in moved {
            // A node may have been deleted, and its port with it, while the switch was split.
            if links.lines().any(|line| line.split(['@', ' ']).next() == Some(interface)) {
                self.namespace().ip(&["link", "set", interface, "master", BRIDGE])?;
            }
        }
        self.namespace().ip(&["link", "del", OTHER_BRIDGE])?;
        *split = None;
        drop(split);
        self.note(json!({"event": "heal"}));
        Ok(())
    }

    /// Starts to record what passes the switch (its first half while it is split) and returns once it is recording.
    /// `filter` is a pcap-filter(7) expression; empty means everything.
    ///
    /// # Errors
    /// When tcpdump does not start, or refuses the filter.
    pub fn capture(&self, name: &str, filter: &str) -> Result<Capture> {
        self.capture_with(name, &CaptureOptions { filter: filter.into(), ..CaptureOptions::default() })
    }

    /// As [`Switch::capture`], with all options.
    ///
    /// # Errors
    /// As [`Switch::capture`].
    pub fn capture_with(&self, name: &str, options: &CaptureOptions) -> Result<Capture> {
        Capture::start(&self.0.shared, self.namespace(), BRIDGE, name, options)
    }

    /// Runs a cable from a new port to a new interface `far_interface` of the node's namespace.
    pub(crate) fn plug(
        &self,
        node: &str,
        far: &Namespace,
        far_interface: &str,
        mac: Option<Mac>,
    ) -> Result<Port> {
        let interface = self.0.shared.next_port();
        let mac = mac.map(|mac| mac.to_string());
        let mut args = vec!["link", "add", &interface, "type", "veth", "peer", "name", far_interface];
        if let Some(mac) = &mac {
            args.extend(["address", mac]);
        }
        args.extend(["netns", far.name()]);
        self.namespace().ip(&args)?;
        self.namespace().ip(&["link", "set", &interface, "master", BRIDGE, "up"])?;
        far.ip(&["link", "set", far_interface, "up"])?;
        Ok(Port::new(port::Inner {
            node: node.into(),
            switch: self.clone(),
            interface,
            far: far.clone(),
            far_interface: far_interface.into(),
            shaped: Mutex::default(),
        }))
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.0.shared
    }

    pub(crate) fn is_same(&self, other: &Switch) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn add_bridge(&self, name: &str) -> Result<()> {
        add_bridge(self.namespace(), name)
    }

    fn note(&self, value: serde_json::Value) {
        self.0.shared.timeline().note(&self.0.name, value);
    }
}

/// A bridge that forwards at once: no spanning tree and no delay (a port in "learning" eats the first DHCP packets), and
/// no multicast snooping (which drops groups until somebody has reported them).
pub(crate) fn add_bridge(namespace: &Namespace, name: &str) -> Result<()> {
    let kind = ["type", "bridge", "stp_state", "0", "forward_delay", "0", "mcast_snooping", "0"];
    let mut args = vec!["link", "add", name];
    args.extend(kind);
    namespace.ip(&args)?;
    namespace.ip(&["link", "set", name, "up"])?;
    Ok(())
}
