//! The lab as its users see it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};
use std::time::Duration;

use crate::events::Timeline;
use crate::shared::{Shared, check_name};
use crate::sweep::sweep_stale;
use crate::{Host, HostSpec, Machine, MachineSpec, Result, Switch};

/// How a lab is run.
#[derive(Clone, Debug, Default)]
pub struct LabOptions {
    /// Where to keep consoles, logs, captures and the timeline; a directory named after the lab is made in it. Without
    /// it they live in a temporary directory that goes with the lab.
    pub keep: Option<PathBuf>,
}

impl LabOptions {
    /// `keep` from the environment variable `NETLAB_KEEP`.
    #[must_use]
    pub fn from_env() -> LabOptions {
        LabOptions {
            keep: std::env::var_os("NETLAB_KEEP").filter(|keep| !keep.is_empty()).map(PathBuf::from),
        }
    }
}

/// A set of switches, hosts and machines that goes away as a whole when it is dropped.
pub struct Lab {
    shared: Arc<Shared>,
}

impl Lab {
    /// An empty lab with the options of the environment. Removes what crashed labs left first.
    ///
    /// # Errors
    /// Without root, or when the working directory cannot be made.
    pub fn new(name: &str) -> Result<Lab> {
        Lab::with_options(name, &LabOptions::from_env())
    }

    /// An empty lab.
    ///
    /// # Errors
    /// As [`Lab::new`].
    pub fn with_options(name: &str, options: &LabOptions) -> Result<Lab> {
        check_name(name)?;
        static SWEEP: Once = Once::new();
        let mut swept = Ok(());
        SWEEP.call_once(|| swept = sweep_stale().map(|_| ()));
        swept?;
        Ok(Lab { shared: Shared::create(name, options.keep.as_deref())? })
    }

    /// Adds a switch.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses.
    pub fn switch(&self, name: &str) -> Result<Switch> {
        Switch::create(&self.shared, name)
    }

    /// Adds a host that has no address yet and plugs it into the switch.
    ///
    /// # Errors
    /// When the name is taken or the kernel refuses.
    pub fn host(&self, name: &str, switch: &Switch) -> Result<Host> {
        self.host_with(&HostSpec::new(name), switch)
    }

    /// Adds a host with all options.
    ///
    /// # Errors
    /// As [`Lab::host`].
    pub fn host_with(&self, spec: &HostSpec, switch: &Switch) -> Result<Host> {
        Host::create(&self.shared, spec, switch)
    }

    /// Adds a machine, plugs it into the switch and powers it on.
    ///
    /// # Errors
    /// When the name is taken, firmware files are missing, or QEMU does not start.
    pub fn machine(&self, spec: &MachineSpec, switch: &Switch) -> Result<Machine> {
        Machine::power_on(&self.shared, spec, switch)
    }

    /// What all nodes said and what the lab did to them.
    #[must_use]
    pub fn timeline(&self) -> &Timeline {
        self.shared.timeline()
    }

    /// Consoles (`NODE.console`), logs (`NODE.PROCESS.log`), events (`NODE.events`), captures (`NAME.pcap`) and
    /// `timeline.jsonl`.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.shared.directory()
    }

    /// The lab's unique name, the prefix of its namespaces.
    #[must_use]
    pub fn id(&self) -> &str {
        self.shared.id()
    }

    /// Time since the lab started: the clock of all events.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.timeline().elapsed()
    }

    /// Takes everything away now and says whether that worked; dropping the lab only logs it.
    ///
    /// # Errors
    /// The first thing that could not be removed. [`sweep_stale`] removes it once this process has ended.
    pub fn tear_down(self) -> Result<()> {
        self.shared.tear_down()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if let Err(error) = self.shared.tear_down() {
            tracing::warn!(lab = self.shared.id(), ?error, "the lab could not be removed wholly");
        }
    }
}
