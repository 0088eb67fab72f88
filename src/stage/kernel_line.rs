//! The kernel command line: what the boot script (or a person) tells this machine.
//!
//! Owns the `bootfabric.*` vocabulary (`docs/kernel-line.md`) and its checking. What is missing is the business of the
//! phase that needs it; what is there but wrong is reported here, and never guessed at. The trust root is not part of
//! this vocabulary and never will be: the line is not authenticated.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use fabric::trust::RootMode;

use crate::disk::DiskName;
use crate::limits::Limits;

use super::disk::options::{DiskOptions, DiskRoot, uuid};
use super::root::options::{RootOptions, Seed};
use super::value::{Address, Mac, NodeName, ReleaseId, ValueError, gateway};

/// The longest line that is read; x86 kernels pass on at most 2048 bytes, others up to 4096.
pub(super) const MAX_LINE: usize = 16 * 1024;

/// Peers that are taken from the line: the first ones only serve to find the others.
const MAX_PEERS: usize = 16;

/// Break points that are taken from the line: there are not more phases.
const MAX_BREAKS: usize = 32;

/// Port of the nodes' HTTP service unless the line names another.
const HTTP_PORT: u16 = 80;

/// Port of the swarm unless the line names another.
const SWARM_PORT: u16 = 7744;

/// What the line says, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KernelLine {
    /// `bootfabric.release`: the signed release to boot.
    pub(super) release: Option<ReleaseId>,
    /// `bootfabric.address`: this machine's address and prefix.
    pub(super) address: Option<Address>,
    /// `bootfabric.gateway`: the router of the machine's network.
    pub(super) gateway: Option<Ipv4Addr>,
    /// `bootfabric.mac`: the interface that loaded the first stage.
    pub(super) mac: Option<Mac>,
    /// `bootfabric.peers`: first peers, best first.
    pub(super) peers: Vec<Ipv4Addr>,
    /// `bootfabric.swarm-port`.
    pub(super) swarm_port: u16,
    /// `bootfabric.http-port`.
    pub(super) http_port: u16,
    /// `bootfabric.upload-limit`, `bootfabric.max-connections`, `bootfabric.max-downloads`.
    pub(super) limits: Limits,
    /// `bootfabric.root`, `bootfabric.root-size`, `bootfabric.zram`, `bootfabric.seed`: how the root is held.
    pub(super) root: RootOptions,
    /// `bootfabric.root=disk`, `bootfabric.disk`, `bootfabric.disk-wipe`, `bootfabric.store`.
    pub(super) disk: DiskOptions,
    /// `bootfabric.break`: phases before which a shell is opened.
    pub(super) breaks: Vec<String>,
    /// `bootfabric.name`: the node's name.
    pub(super) name: Option<NodeName>,
    /// `bootfabric.events`: a device that gets the event lines.
    pub(super) events: Option<PathBuf>,
    /// `bootfabric.shell`: a shell on failure.
    pub(super) shell: bool,
    /// `bootfabric.hash`: whether the root's blob is hashed once more before the hand-over, if somebody says so.
    pub(super) hash: Option<bool>,
    /// `init`: the root's own init, if not the usual one.
    pub(super) init: Option<PathBuf>,
}

impl Default for KernelLine {
    fn default() -> Self {
        Self {
            release: None,
            address: None,
            gateway: None,
            mac: None,
            peers: Vec::new(),
            swarm_port: SWARM_PORT,
            http_port: HTTP_PORT,
            limits: Limits::default(),
            root: RootOptions::default(),
            disk: DiskOptions::default(),
            breaks: Vec::new(),
            name: None,
            events: None,
            shell: false,
            hash: None,
            init: None,
        }
    }
}

/// A line as read: what could be understood, what is wrong, and what is unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Parsed {
    /// All values that are right.
    pub(super) line: KernelLine,
    /// All values that are wrong.
    pub(super) errors: Vec<LineError>,
    /// `bootfabric.*` keys that this version does not know.
    pub(super) unknown: Vec<String>,
}

/// A value on the kernel line that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}={value}` on the kernel line")]
pub(super) struct LineError {
    key: String,
    value: String,
    #[source]
    cause: ValueError,
}

impl Parsed {
    /// Reads a whole line. The last of several equal keys counts, as in the kernel.
    pub(super) fn read(text: &str) -> Self {
        let mut parsed = Self::default();
        for Parameter { key, value } in parameters(text) {
            if let Err(cause) = parsed.take(&key, value.as_deref()) {
                parsed.errors.push(LineError { key, value: shorten(value.as_deref().unwrap_or("")), cause });
            }
        }
        parsed
    }

    fn take(&mut self, key: &str, value: Option<&str>) -> Result<(), ValueError> {
        let line = &mut self.line;
        if key == "init" {
            line.init = Some(absolute(value)?);
            return Ok(());
        }
        let Some(name) = key.strip_prefix("bootfabric.") else { return Ok(()) };
        match name.replace('_', "-").as_str() {
            "release" => line.release = Some(needed(value)?.parse()?),
            "address" => line.address = Some(needed(value)?.parse()?),
            "gateway" => line.gateway = gateway(needed(value)?)?,
            "mac" => line.mac = Some(needed(value)?.parse()?),
            "peers" => line.peers = peers(needed(value)?)?,
            "swarm-port" => line.swarm_port = port(needed(value)?)?,
            "http-port" => line.http_port = port(needed(value)?)?,
            "upload-limit" => {
                line.limits.upload_limit = Some(needed(value)?.parse().map_err(|_| ValueError::Rate)?);
            }
            "max-connections" => line.limits.max_connections = Some(count(needed(value)?)?),
            "max-downloads" => line.limits.max_downloads = Some(count(needed(value)?)?),
            "disk" => {
                let name = needed(value)?;
                line.disk.name = Some(name.parse::<DiskName>().map_err(|_| ValueError::Disk)?.to_string());
            }
            "disk-wipe" => line.disk.wipe = flag(value)?,
            "store" => line.disk.store = Some(uuid(needed(value)?)?),
            "root" | "ramdisk-type" => {
                line.disk.root = DiskRoot::read(needed(value)?)?;
                if line.disk.root.is_some() {
                    // What a disk is filled from.
                    line.root.mode = Some(RootMode::Overlay);
                    return Ok(());
                }
                line.root.mode = Some(needed(value)?.parse().map_err(|_| ValueError::Root)?);
            }
            "root-size" | "ramdisk-size" => line.root.size = Some(needed(value)?.parse()?),
            "zram" => line.root.compression = Some(needed(value)?.parse()?),
            "seed" => line.root.seed = needed(value)?.parse()?,
            "keep-image" => line.root.seed = if flag(value)? { Seed::All } else { Seed::None },
            // What a release tells its nodes' agents.
            "unpacked" => {}
            "break" => line.breaks = breaks(needed(value)?),
            "name" => line.name = Some(needed(value)?.parse()?),
            "events" => line.events = Some(device(value)?),
            "shell" => line.shell = flag(value)?,
            "hash" => line.hash = Some(flag(value)?),
            _ => self.unknown.push(shorten(key)),
        }
        Ok(())
    }
}

/// The parameters of module `name` (`_` and `-` alike) that are on the line, as the kernel wants them: `a=1 b`.
pub(super) fn module_parameters(text: &str, name: &str) -> String {
    let canonical = |text: &str| text.replace('-', "_");
    let mut options = Vec::new();
    for Parameter { key, value } in parameters(text) {
        if let Some((module, option)) = key.split_once('.')
            && canonical(module) == canonical(name)
        {
            options.push(match value {
                Some(value) if value.contains(' ') => format!("{option}=\"{value}\""),
                Some(value) => format!("{option}={value}"),
                None => option.to_owned(),
            });
        }
    }
    options.join(" ")
}

/// One word of the line: `key` or `key=value`.
#[derive(Debug, PartialEq, Eq)]
struct Parameter {
    key: String,
    value: Option<String>,
}

/// Splits a line as the kernel does (`next_arg` in lib/cmdline.c): at white space outside double quotes, at the first
/// `=`; quotes may enclose the value or the whole word. What follows `--` is for init.
fn parameters(text: &str) -> impl Iterator<Item = Parameter> {
    let text = text.get(..text.floor_char_boundary(MAX_LINE)).unwrap_or("");
    let mut quoted = false;
    text.split(move |c: char| {
        quoted ^= c == '"';
        !quoted && c.is_ascii_whitespace()
    })
    .filter(|word| !word.is_empty())
    .take_while(|word| *word != "--")
    .map(|word| {
        let (key, value) = match word.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word, None),
        };
        Parameter { key: unquote(key), value: value.map(unquote) }
    })
}

fn unquote(text: &str) -> String {
    text.replace('"', "")
}

fn needed(value: Option<&str>) -> Result<&str, ValueError> {
    value.filter(|value| !value.is_empty()).ok_or(ValueError::Empty)
}

fn flag(value: Option<&str>) -> Result<bool, ValueError> {
    match value {
        None | Some("yes" | "1" | "on" | "true") => Ok(true),
        Some("no" | "0" | "off" | "false") => Ok(false),
        Some(_) => Err(ValueError::Flag),
    }
}

fn port(value: &str) -> Result<u16, ValueError> {
    value.parse().ok().filter(|port| *port != 0).ok_or(ValueError::Port)
}

fn count(value: &str) -> Result<u32, ValueError> {
    value.parse().ok().filter(|count| *count != 0).ok_or(ValueError::Count)
}

fn peers(value: &str) -> Result<Vec<Ipv4Addr>, ValueError> {
    value
        .split(',')
        .filter(|peer| !peer.is_empty())
        .take(MAX_PEERS)
        .map(|peer| peer.parse().map_err(|_| ValueError::Peers))
        .collect()
}

fn breaks(value: &str) -> Vec<String> {
    value.split(',').filter(|phase| !phase.is_empty()).take(MAX_BREAKS).map(str::to_owned).collect()
}

fn absolute(value: Option<&str>) -> Result<PathBuf, ValueError> {
    let path = PathBuf::from(needed(value)?);
    let plain = path.is_absolute() && !path.components().any(|part| part == std::path::Component::ParentDir);
    if plain { Ok(path) } else { Err(ValueError::Path) }
}

fn device(value: Option<&str>) -> Result<PathBuf, ValueError> {
    absolute(value).ok().filter(|path| path.starts_with("/dev")).ok_or(ValueError::Device)
}

/// Enough of a value to recognise it, without control characters: it goes to a terminal.
fn shorten(text: &str) -> String {
    /// Longest part of a value that is shown.
    const SHOWN: usize = 80;
    let mut shown: String = text.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if text.chars().count() > SHOWN {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::root::options::{Compression, RootSize};
    use super::*;

    #[test]
    fn a_script_s_line_is_understood() {
        let id = "ab".repeat(32);
        let parsed = Parsed::read(&format!(
            "initrd=first-stage quiet bootfabric.release={id} bootfabric.address=10.77.0.23/24 \
             bootfabric.mac=52-54-00-12-34-56 bootfabric.peers=10.77.0.1,10.77.0.9 bootfabric.http_port=8080 \
             bootfabric.name=rack1-a bootfabric.events=/dev/ttyS1 bootfabric.shell bootfabric.hash=no\n"
        ));
        assert_eq!(parsed.errors, []);
        assert!(parsed.unknown.is_empty());
        let line = parsed.line;
        assert_eq!(line.release.unwrap().to_string(), id);
        assert_eq!(line.address.unwrap().to_string(), "10.77.0.23/24");
        assert_eq!(line.mac.unwrap().to_string(), "52:54:00:12:34:56");
        assert_eq!(line.peers, [Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 77, 0, 9)]);
        assert_eq!((line.http_port, line.swarm_port), (8080, 7744));
        assert_eq!(line.name.unwrap().as_str(), "rack1-a");
        assert_eq!(line.events.unwrap(), PathBuf::from("/dev/ttyS1"));
        assert!(line.shell);
        assert_eq!(line.hash, Some(false));
    }

    #[test]
    fn a_router_is_a_machine_or_none() {
        let read = |value: &str| Parsed::read(&format!("bootfabric.gateway={value}"));
        assert_eq!(read("10.77.0.1").line.gateway, Some(Ipv4Addr::new(10, 77, 0, 1)));
        assert_eq!(read("10.77.0.1 bootfabric.gateway=0.0.0.0"), Parsed::default());
        for value in ["", "10.77.0.1/24", "10.77.0.1,10.77.0.2", "127.0.0.1", "224.0.0.1", "0.0.0.1", "::1"] {
            let parsed = read(value);
            assert_eq!((parsed.errors.len(), parsed.line.gateway), (1, None), "{value}");
        }
    }

    #[test]
    fn limits_are_read() {
        let parsed = Parsed::read(
            "bootfabric.upload-limit=400mbit bootfabric.max_connections=64 bootfabric.max-downloads=8",
        );
        assert_eq!(parsed.errors, []);
        let upload_limit = "50MB".parse().ok();
        let limits = Limits { upload_limit, max_connections: Some(64), max_downloads: Some(8) };
        assert_eq!(parsed.line.limits, limits);
        let wrong = "bootfabric.upload-limit=fast bootfabric.max-connections=0 bootfabric.max-downloads=-1";
        let parsed = Parsed::read(wrong);
        assert_eq!((parsed.errors.len(), parsed.line.limits), (3, Limits::default()));
    }

    #[test]
    fn the_root_is_described_by_our_words_and_by_familiar_ones() {
        let ours = "bootfabric.root=zram bootfabric.root-size=40% bootfabric.seed=none bootfabric.zram=lz4";
        let familiar = "bootfabric.ramdisk_type=zram bootfabric.ramdisk_size=40% bootfabric.keep_image=no bootfabric.zram=lz4";
        let expected = RootOptions {
            mode: Some(RootMode::Zram),
            size: Some(RootSize::Percent(40)),
            compression: Some(Compression::Lz4),
            seed: Seed::None,
        };
        for line in [ours, familiar] {
            let parsed = Parsed::read(line);
            assert_eq!(
                (parsed.line.root, parsed.errors, parsed.unknown),
                (expected, vec![], vec![]),
                "{line}"
            );
        }
        let wrong = Parsed::read(
            "bootfabric.root=nfs bootfabric.root-size=big bootfabric.seed=some bootfabric.zram=rar",
        );
        assert_eq!((wrong.errors.len(), wrong.line.root), (4, RootOptions::default()));
        let parsed = Parsed::read("bootfabric.break=mount,hand-over bootfabric.unpacked=190");
        assert_eq!(parsed.line.breaks, ["mount", "hand-over"]);
        assert!(parsed.unknown.is_empty());
    }

    #[test]
    fn disks_are_named_and_what_is_no_disk_is_refused() {
        let parsed = Parsed::read("bootfabric.root=disk bootfabric.disk=serial:S4 bootfabric.disk_wipe=yes");
        assert_eq!((parsed.errors, parsed.unknown), (vec![], vec![]));
        let expected = DiskOptions {
            root: Some(DiskRoot::Install),
            name: Some("serial:S4".into()),
            wipe: true,
            store: None,
        };
        assert_eq!(parsed.line.disk, expected);
        let later = Parsed::read("bootfabric.root=disk bootfabric.root=zram");
        assert_eq!((later.line.disk.root, later.line.root.mode), (None, Some(RootMode::Zram)));
        let wrong = "bootfabric.disk=vda bootfabric.root=disk:vda1 bootfabric.store=/dev/vda3 bootfabric.disk-wipe=all";
        assert_eq!(Parsed::read(wrong).errors.len(), 4);
    }

    #[test]
    fn the_last_of_equal_keys_counts_and_init_s_words_do_not() {
        let parsed = Parsed::read("bootfabric.name=a bootfabric.name=b -- bootfabric.name=c");
        assert_eq!(parsed.line.name.unwrap().as_str(), "b");
    }

    #[test]
    fn quotes_keep_blanks_together() {
        let words: Vec<_> = parameters(r#"a="b c" "d=e f" g" "h "#).collect();
        let word =
            |key: &str, value: Option<&str>| Parameter { key: key.into(), value: value.map(str::to_owned) };
        assert_eq!(words, [word("a", Some("b c")), word("d", Some("e f")), word("g h", None)]);
    }

    #[test]
    fn wrong_values_are_named_and_unknown_keys_told() {
        let parsed = Parsed::read(
            "bootfabric.adress=1 bootfabric.http-port=0 bootfabric.hash=maybe bootfabric.release",
        );
        assert_eq!(parsed.unknown, ["bootfabric.adress"]);
        let texts: Vec<_> = parsed.errors.iter().map(ToString::to_string).collect();
        assert_eq!(
            texts,
            [
                "`bootfabric.http-port=0` on the kernel line",
                "`bootfabric.hash=maybe` on the kernel line",
                "`bootfabric.release=` on the kernel line"
            ]
        );
    }

    #[test]
    fn the_event_device_is_a_device() {
        for value in ["/etc/passwd", "/dev/../etc/passwd", "ttyS1", "/devil"] {
            let parsed = Parsed::read(&format!("bootfabric.events={value}"));
            assert_eq!(parsed.errors.len(), 1, "{value}");
            assert_eq!(parsed.line.events, None, "{value}");
        }
    }

    #[test]
    fn module_parameters_are_found_under_either_spelling() {
        let line = "virtio-net.napi_tx=0 virtio_net.x bootfabric.name=a other.y=1 virtio_net.z=\"1 2\"";
        assert_eq!(module_parameters(line, "virtio_net"), "napi_tx=0 x z=\"1 2\"");
        assert_eq!(module_parameters(line, "none"), "");
    }

    proptest! {
        #[test]
        fn no_line_is_too_odd(text in "\\PC*") {
            let parsed = Parsed::read(&text);
            for error in parsed.errors {
                prop_assert!(error.to_string().chars().count() < 250);
            }
        }

        #[test]
        fn no_value_is_too_odd(key in "(release|address|gateway|mac|peers|name|events|init|hash|http-port|upload-limit|max-downloads)", value in "[ -~]{0,100}") {
            let _ = Parsed::read(&format!("bootfabric.{key}={value}"));
        }
    }
}
