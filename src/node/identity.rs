//! As what a node answers clients of DHCP.

use std::net::Ipv4Addr;

use pxe::dhcp::config::ProxyStyle;
use pxe::dhcp::probe::FabricId;
use pxe::dhcp::{ClientKey, Config, Mode};

use crate::machines::Machines;

/// As what one node answers: nothing of it changes while it runs.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    pub(crate) mode: Mode,
    pub(crate) proxy_style: ProxyStyle,
    pub(crate) fabric: FabricId,
    pub(crate) own: ClientKey,
    pub(crate) address: Ipv4Addr,
    pub(crate) http_port: u16,
}

impl Identity {
    /// The configuration of the DHCP service, by what is said of machines.
    pub(crate) fn config(&self, machines: &Machines) -> Config {
        Config {
            mode: self.mode,
            proxy_style: self.proxy_style,
            fabric: self.fabric,
            http_port: self.http_port,
            ..machines.dhcp(self.address, self.own)
        }
    }
}
