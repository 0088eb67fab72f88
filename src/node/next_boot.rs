//! What this machine starts next, if it starts without its firmware: the newest release of its image, and the kernel line.
//!
//! Owns which release that is and what the line says; comes to hold kernel and first stage. Loads nothing into the kernel and
//! restarts nothing: that is for the command which asks.
//!
//! A release counts once its signature is verified, whoever announced it. The line is the one that a boot script would have now.
//! A line that no boot script wrote (a loader's, a unified kernel image's) keeps its own words.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use fabric::exchange::Priority;
use fabric::id::{BlobId, ObjectId};
use fabric::swarm::Announcement;
use fabric::trust::{Release, SignedRelease};
use serde::{Deserialize, Serialize};

use super::join::Join;
use super::script::Script;
use crate::disk::words;

/// Announced releases that are looked at, newest first, before what runs counts as the newest.
const MAX_TRIED: usize = 8;
/// How long an announced release may take to arrive.
const RELEASE_PATIENCE: Duration = Duration::from_secs(10);
/// How long kernel and first stage may take to arrive: some 30 MB from a neighbour.
const BLOBS_PATIENCE: Duration = Duration::from_secs(120);
/// How long the whole answer may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(240);
/// The longest line that a kernel takes (`COMMAND_LINE_SIZE` of x86, with its end).
const MAX_LINE: usize = 2047;

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Asked {
    /// The image; none: the one that runs.
    pub image: Option<String>,
}

/// What to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NextBoot {
    /// The release.
    pub release: ObjectId,
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its generation.
    pub generation: u64,
    /// Whether it is the release that runs.
    pub runs: bool,
    /// The kernel.
    pub kernel: HeldFile,
    /// The first stage.
    pub first_stage: HeldFile,
    /// The kernel line.
    pub line: String,
}

/// A blob that is held as a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HeldFile {
    /// Its hash.
    pub blob: BlobId,
    /// Where it is.
    pub path: PathBuf,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// This.
    Next(Box<NextBoot>),
    /// There is none, for this reason.
    Refused(String),
}

impl Join {
    /// What this machine would boot now; kernel and first stage are held then.
    pub(super) async fn next_boot(&self, asked: Asked) -> Answer {
        match self.try_next_boot(asked).await {
            Ok(next) => Answer::Next(Box::new(next)),
            Err(error) => Answer::Refused(format!("{error:#}")),
        }
    }

    async fn try_next_boot(&self, asked: Asked) -> anyhow::Result<NextBoot> {
        let booted = std::fs::read_to_string("/proc/cmdline").context("cannot read the kernel line")?;
        check_booted(&booted)?;
        let running =
            self.view.release().context("this node does not know its own release yet: try again")?;
        let image = asked.image.as_deref().unwrap_or(&running.release.name);
        let (id, release) = match self.newest(image, running.id, running.release.generation).await {
            Some(newest) => newest,
            None if image == running.release.name => (running.id, running.release.clone()),
            None => bail!("no node announces an image `{}`", image.escape_default()),
        };
        let fetched = tokio::time::timeout(BLOBS_PATIENCE, async {
            let kernel = self.try_blob(&release.kernel, "kernel", Priority::Boot);
            let first_stage = self.try_blob(&release.first_stage, "first-stage", Priority::Boot);
            futures::future::try_join(kernel, first_stage).await
        });
        let (kernel, first_stage) = fetched
            .await
            .with_context(|| format!("no node gives the kernel within {} s", BLOBS_PATIENCE.as_secs()))??;
        let line = next_line(&booted, &running.release.cmdline, &self.fresh_line(id, &release, &booted)?);
        ensure!(line.len() <= MAX_LINE, "the kernel line would be {} characters long", line.len());
        let held = |blob: &fabric::store::Blob| HeldFile { blob: blob.id(), path: blob.path().to_owned() };
        Ok(NextBoot {
            release: id,
            runs: id == running.id,
            kernel: held(&kernel),
            first_stage: held(&first_stage),
            line,
            name: release.name,
            version: release.version,
            generation: release.generation,
        })
    }

    /// The newest announced release of `image` that is what it says and not the one with the id `running`; of that image, only
    /// one above `generation`.
    async fn newest(&self, image: &str, running: ObjectId, generation: u64) -> Option<(ObjectId, Release)> {
        let known = self.view.release_by_id(running).is_some_and(|release| release.name == image);
        let least = if known { generation + 1 } else { 0 };
        let heard = self.view.heard_releases(image).into_iter();
        for announced in heard.filter(|heard| heard.generation >= least).take(MAX_TRIED) {
            match tokio::time::timeout(RELEASE_PATIENCE, self.announced(&announced)).await {
                Ok(Ok(release)) => return Some((announced.object, release)),
                Ok(Err(error)) => tracing::warn!("an announced release is not usable: {error:#}"),
                Err(_) => tracing::warn!(release = %announced.object, "nobody has an announced release"),
            }
        }
        None
    }

    /// The release behind an announcement, verified.
    async fn announced(&self, announced: &Announcement) -> anyhow::Result<Release> {
        let bytes = self.object(announced.object).await?;
        let release = SignedRelease::decode(&bytes)?.verify(&self.trust_root)?;
        ensure!(
            release.name == announced.name && release.generation == announced.generation,
            "it was announced as another"
        );
        ensure!(release.arch.to_string() == std::env::consts::ARCH, "it is for another processor");
        Ok(release)
    }

    /// The kernel line that a boot script would have for this machine. Of the line `booted` it keeps the router, which may have
    /// come with the lease of a site's server.
    fn fresh_line(&self, id: ObjectId, release: &Release, booted: &str) -> anyhow::Result<String> {
        let config = self.view.config();
        let address = config.address.context("this node has no address")?;
        let machines = self.view.machines().context("the fabric's settings are not known yet: try again")?;
        let settings = self.view.settings().context("the fabric's settings are not known yet: try again")?;
        let uuid = std::fs::read_to_string("/sys/class/dmi/id/product_uuid").ok();
        let uuid = uuid.and_then(|uuid| uuid.trim().parse().ok());
        let name = machines.name_of(config.mac.parse().ok(), uuid);
        let mut peers = self.view.boot_peers(address.address);
        if peers.is_empty() {
            let port = config.http_port.unwrap_or(settings.http_port);
            peers = config.first_peers.iter().map(|peer| std::net::SocketAddrV4::new(*peer, port)).collect();
        }
        let script = Script {
            release: id,
            title: String::new(),
            cmdline: &release.cmdline,
            more_args: machines.kernel_args(name),
            name,
            client: address.address,
            prefix: machines.prefix_of(address.address),
            gateway: machines.gateway_of(address.address, name),
            peers,
            swarm_port: settings.swarm_port,
        };
        Ok(script.kernel_line(&config.mac, &gateway_word(booted)))
    }
}

/// Checks that the machine with the kernel line `booted` was booted by the fabric into RAM.
fn check_booted(booted: &str) -> anyhow::Result<()> {
    let words = words(booted);
    let keys: Vec<_> = words.iter().filter_map(|word| fabric_key(word)).collect();
    ensure!(
        !keys.is_empty(),
        "this machine was not booted by the fabric (no bootfabric.* on its kernel line)"
    );
    let on_disk = words.iter().any(|word| {
        let value = word.split_once('=').map_or("", |(_, value)| value);
        matches!(fabric_key(word).as_deref(), Some("root" | "ramdisk-type"))
            && (value == "disk" || value.starts_with("disk:"))
    });
    ensure!(
        !on_disk,
        "this machine's root is on its disk, which another release's kernel has no modules for: \
         `bootfabric node reboot` starts it anew, installing the newer image changes it"
    );
    Ok(())
}

/// What the fabric calls the word, if it is one of its words: `root` for `bootfabric.root=zram`.
fn fabric_key(word: &str) -> Option<String> {
    let key = word.split('=').next()?;
    key.strip_prefix("bootfabric.").map(|name| name.replace('_', "-"))
}

/// The word of the line `booted` that names the router; empty if none does. The last of several counts.
fn gateway_word(booted: &str) -> String {
    let is_gateway = |word: &String| fabric_key(word).as_deref() == Some("gateway");
    words(booted).into_iter().rfind(is_gateway).unwrap_or_default()
}

/// The line after `booted`: `fresh`, and before it the words of a line that no boot script wrote, those of the release that ran and
/// those that are in `fresh` left out.
fn next_line(booted: &str, release_words: &str, fresh: &str) -> String {
    let words_of_booted = words(booted);
    let has = |name: &str| words_of_booted.iter().any(|word| fabric_key(word).as_deref() == Some(name));
    if has("peers") && has("address") && has("release") {
        return fresh.to_owned();
    }
    let left: Vec<String> = words(release_words).into_iter().chain(words(fresh)).collect();
    let written: Vec<String> = words(fresh).iter().filter_map(|word| fabric_key(word)).collect();
    let kept = words_of_booted.into_iter().filter(|word| {
        let loader_s = matches!(word.split('=').next(), Some("initrd" | "BOOT_IMAGE" | "vmlinuz" | "kernel"));
        let replaced = fabric_key(word).is_some_and(|key| written.contains(&key));
        !loader_s && !replaced && !left.contains(word)
    });
    kept.chain([fresh.to_owned()]).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: &str = "console=ttyS0 x=2 bootfabric.release=cd bootfabric.address=10.77.0.5/24 bootfabric.mac=52:54:00:00:00:01 bootfabric.peers=10.77.0.1";

    #[test]
    fn a_script_s_line_is_written_anew() {
        let booted = "initrd=first-stage console=ttyS0 x=1 bootfabric.root=zram bootfabric.release=ab \
                      bootfabric.address=10.77.0.5/24 bootfabric.mac=52:54:00:00:00:01 bootfabric.peers=10.77.0.9\n";
        assert_eq!(next_line(booted, "console=ttyS0 x=1", FRESH), FRESH);
    }

    #[test]
    fn the_router_of_the_lease_is_kept() {
        let booted = "quiet bootfabric.gateway=10.77.0.1 bootfabric.gateway=10.77.0.9 bootfabric.mac=52:54:00:00:00:01\n";
        assert_eq!(gateway_word(booted), "bootfabric.gateway=10.77.0.9");
        assert_eq!(gateway_word(FRESH), "");
    }

    #[test]
    fn a_loader_s_line_keeps_its_own_words() {
        let booted = "BOOT_IMAGE=/vmlinuz console=ttyS0 x=1 by-hand=\"a b\" bootfabric.mac=52-54-00-00-00-01 \
                      bootfabric.store=12 bootfabric.release=ab\n";
        let next = next_line(booted, "console=ttyS0 x=1", FRESH);
        assert_eq!(next, format!("by-hand=\"a b\" bootfabric.store=12 {FRESH}"));
    }

    #[test]
    fn only_what_the_fabric_booted_into_ram_is_started_so() {
        let why = |line: &str| check_booted(line).err().map(|error| error.to_string());
        assert!(why("BOOT_IMAGE=/vmlinuz root=/dev/sda1").unwrap().contains("not booted by the fabric"));
        for root in ["bootfabric.root=disk", "bootfabric.ramdisk_type=disk:12"] {
            assert!(why(root).unwrap().contains("bootfabric node reboot"), "{root}");
        }
        assert_eq!(why("bootfabric.root=zram bootfabric.disk=/dev/vda"), None);
    }
}
