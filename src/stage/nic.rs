//! Network interfaces as `/sys/class/net` shows them, and the choice of the one to boot over.

use std::fs;
use std::path::Path;

use super::netlink::LinkIndex;
use super::value::Mac;

/// ARPHRD_ETHER (linux/if_arp.h).
const ETHERNET: &str = "1";

/// An Ethernet interface with hardware behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Nic {
    /// Its name: `eth0`.
    pub(super) name: String,
    /// Its index; the order in which the kernel found the interfaces.
    pub(super) index: LinkIndex,
    /// Its hardware address.
    pub(super) mac: Mac,
    /// Whether it sees a link. Always false while it is down.
    pub(super) carrier: bool,
}

/// All wired Ethernet interfaces with hardware behind them, in the kernel's order. `lo`, tunnels, bridges and radios are
/// left out: nothing can have booted over them.
pub(super) fn nics() -> Vec<Nic> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut nics: Vec<Nic> = entries.filter_map(|entry| read(&entry.path())).collect();
    nics.sort_by_key(|nic| nic.index);
    nics
}

fn read(path: &Path) -> Option<Nic> {
    let field = |name: &str| fs::read_to_string(path.join(name)).map(|text| text.trim().to_owned()).ok();
    let wired =
        path.join("device").exists() && !path.join("wireless").exists() && !path.join("phy80211").exists();
    if !wired || field("type")? != ETHERNET {
        return None;
    }
    Some(Nic {
        name: path.file_name()?.to_str()?.to_owned(),
        index: LinkIndex(field("ifindex")?.parse().ok()?),
        mac: field("address")?.parse().ok()?,
        // Reading it fails (EINVAL) while the interface is down.
        carrier: field("carrier").is_some_and(|carrier| carrier == "1"),
    })
}

/// The interface to boot over: the one with the hardware address `wanted`; if none is wanted, the first with a link. `None`:
/// not there yet.
pub(super) fn choose(nics: &[Nic], wanted: Option<Mac>) -> Option<&Nic> {
    candidates(nics, wanted).find(|nic| nic.carrier)
}

/// The interfaces that [`choose`] picks from.
pub(super) fn candidates(nics: &[Nic], wanted: Option<Mac>) -> impl Iterator<Item = &Nic> {
    nics.iter().filter(move |nic| wanted.is_none_or(|mac| mac == nic.mac))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nic(index: u32, carrier: bool) -> Nic {
        Nic {
            name: format!("eth{index}"),
            index: LinkIndex(index),
            mac: format!("52:54:00:00:00:{index:02x}").parse().unwrap(),
            carrier,
        }
    }

    #[test]
    fn the_interface_that_loaded_us_or_the_first_with_a_link() {
        let nics = [nic(2, false), nic(3, true), nic(4, true)];
        assert_eq!(choose(&nics, None), Some(&nics[1]));
        assert_eq!(choose(&nics, Some(nics[2].mac)), Some(&nics[2]));
        // Another interface's link is no reason to leave the one we were loaded over.
        assert_eq!(choose(&nics, Some(nics[0].mac)), None);
        assert_eq!(choose(&[], None), None);
        assert_eq!(candidates(&nics, None).count(), 3);
    }
}
