//! One cable between a node and a switch, seen from the switch: a veth pair whose far end is the node's.
//!
//! Hosts and machines are plugged in the same way, so that every cable can be cut, shaped and counted alike. A machine's
//! tap cannot be shaped in both directions itself (a token bucket works on what leaves an interface), which is why a
//! machine too sits behind a veth pair.

use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;
use serde_json::json;

use crate::events::Timeline;
use crate::netns::Namespace;
use crate::{Capture, CaptureOptions, Error, LinkShape, Result};

/// A port of a [`crate::Switch`] with the cable in it. Clones are handles to the same port.
#[derive(Clone)]
pub struct Port(Arc<Inner>);

pub(crate) struct Inner {
    /// The node at the far end, for the timeline.
    pub(crate) node: String,
    pub(crate) switch: crate::Switch,
    /// The interface in the switch's namespace.
    pub(crate) interface: String,
    pub(crate) far: Namespace,
    /// The interface in the node's namespace.
    pub(crate) far_interface: String,
    /// What is set: to the node, from the node.
    pub(crate) shaped: Mutex<(Option<LinkShape>, Option<LinkShape>)>,
}

/// Frames of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Traffic {
    /// Bytes, Ethernet headers included. TCP hands large segments to a cable in one piece, so on a cable without a shape
    /// the headers of the frames they would become are not in it (about 3 %).
    pub bytes: u64,
    /// Frames.
    pub packets: u64,
    /// Frames thrown away, for example because the shaped link's queue was full.
    pub dropped: u64,
}

/// What went through a port since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Sent by the node.
    pub from_node: Traffic,
    /// Sent to the node.
    pub to_node: Traffic,
}

impl Port {
    pub(crate) fn new(inner: Inner) -> Port {
        Port(Arc::new(inner))
    }

    /// The interface in the switch's namespace.
    #[must_use]
    pub fn interface(&self) -> &str {
        &self.0.interface
    }

    /// Cuts the cable: no frame passes in either direction until [`Port::up`].
    ///
    /// # Errors
    /// When the port is gone.
    pub fn down(&self) -> Result<()> {
        self.switch_namespace().ip(&["link", "set", self.interface(), "down"])?;
        self.timeline().note(&self.0.node, json!({"event": "port-down"}));
        Ok(())
    }

    /// Restores the cable.
    ///
    /// # Errors
    /// When the port is gone.
    pub fn up(&self) -> Result<()> {
        self.switch_namespace().ip(&["link", "set", self.interface(), "up"])?;
        self.timeline().note(&self.0.node, json!({"event": "port-up"}));
        Ok(())
    }

    /// Gives both directions the same rate, from now on.
    ///
    /// # Errors
    /// When the port is gone or the kernel refuses the values.
    pub fn shape(&self, shape: LinkShape) -> Result<()> {
        self.shape_each(Some(shape), Some(shape))
    }

    /// Takes the limits away.
    ///
    /// # Errors
    /// When the port is gone.
    pub fn unshape(&self) -> Result<()> {
        self.shape_each(None, None)
    }

    /// Gives each direction its own rate or none.
    ///
    /// # Errors
    /// When the port is gone or the kernel refuses the values.
    pub fn shape_each(&self, to_node: Option<LinkShape>, from_node: Option<LinkShape>) -> Result<()> {
        let mut shaped = self.0.shaped.lock().unwrap_or_else(PoisonError::into_inner);
        set_shape(self.switch_namespace(), self.interface(), shaped.0, to_node)?;
        shaped.0 = to_node;
        set_shape(&self.0.far, &self.0.far_interface, shaped.1, from_node)?;
        shaped.1 = from_node;
        drop(shaped);
        let rate = |shape: Option<LinkShape>| shape.map(|shape| shape.rate_bit);
        let value = json!({"event": "port-shape", "to_node": rate(to_node), "from_node": rate(from_node)});
        self.timeline().note(&self.0.node, value);
        Ok(())
    }

    /// Bytes, frames and drops of both directions since the port was made. A shaped queue's drops are not among them.
    ///
    /// # Errors
    /// When the port is gone.
    pub fn counters(&self) -> Result<Counters> {
        let args = ["-json", "-statistics", "link", "show", "dev", self.interface()];
        let shown = self.switch_namespace().ip(&args)?;
        parse_counters(&shown)
            .ok_or_else(|| Error::Output { command: format!("ip {}", args.join(" ")), problem: shown })
    }

    /// Captures what passes this cable only.
    ///
    /// # Errors
    /// As [`crate::Switch::capture`].
    pub fn capture(&self, name: &str, filter: &str) -> Result<Capture> {
        let options = CaptureOptions { filter: filter.into(), ..CaptureOptions::default() };
        Capture::start(self.0.switch.shared(), self.switch_namespace(), self.interface(), name, &options)
    }

    /// Pulls the cable out for good. Fine when it is gone already.
    pub(crate) fn unplug(&self) -> Result<()> {
        if self.switch_namespace().exists() {
            let gone = |error: &Error| matches!(error, Error::Tool { stderr, .. } if stderr.contains("Cannot find device"));
            match self.switch_namespace().ip(&["link", "del", self.interface()]) {
                Err(error) if !gone(&error) => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn belongs_to(&self, switch: &crate::Switch) -> bool {
        self.0.switch.is_same(switch)
    }

    fn switch_namespace(&self) -> &Namespace {
        self.0.switch.namespace()
    }

    fn timeline(&self) -> &Timeline {
        self.0.switch.shared().timeline()
    }
}

fn set_shape(
    namespace: &Namespace,
    interface: &str,
    old: Option<LinkShape>,
    new: Option<LinkShape>,
) -> Result<()> {
    match (old, new) {
        (old, Some(new)) if old != Some(new) => {
            let words = new.words();
            let mut args = vec!["qdisc", "replace", "dev", interface];
            args.extend(words.iter().map(String::as_str));
            namespace.tc(&args)?;
        }
        (Some(_), None) => {
            namespace.tc(&["qdisc", "del", "dev", interface, "root"])?;
        }
        _ => {}
    }
    Ok(())
}

/// The output of `ip -json -statistics link show`. The switch receives what the node sends.
fn parse_counters(json: &str) -> Option<Counters> {
    #[derive(Deserialize)]
    struct Link {
        stats64: Stats,
    }
    #[derive(Deserialize)]
    struct Stats {
        rx: Traffic,
        tx: Traffic,
    }
    let links: Vec<Link> = serde_json::from_str(json).ok()?;
    let stats = links.into_iter().next()?.stats64;
    Some(Counters { from_node: stats.rx, to_node: stats.tx })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_from_json() {
        let json = r#"[{"ifname":"p1","stats64":{"rx":{"bytes":10,"packets":1,"errors":0,"dropped":0,"over_errors":0,
            "multicast":0},"tx":{"bytes":20,"packets":2,"errors":0,"dropped":3,"carrier_errors":0,"collisions":0}}}]"#;
        let counters = parse_counters(json).unwrap();
        assert_eq!(counters.from_node, Traffic { bytes: 10, packets: 1, dropped: 0 });
        assert_eq!(counters.to_node, Traffic { bytes: 20, packets: 2, dropped: 3 });
        assert_eq!(parse_counters("[{}]"), None);
        assert_eq!(parse_counters("[]"), None);
        assert_eq!(parse_counters(""), None);
    }
}
