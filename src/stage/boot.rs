//! The state of one boot, and PID 1's standing duties.
//!
//! Owns what phases hand to one another, and [`Boot::turn`]: whatever phase waits, waits there, so that the agent is always
//! heard, zombies are always taken note of and events always flow.

use std::time::{Duration, Instant};

use super::agent::Agent;
use super::agent_view::{AgentView, ROOT, UNPACK};
use super::console::Console;
use super::disk::found::Disks;
use super::event_sink::EventSink;
use super::init::Init;
use super::kernel_line::KernelLine;
use super::modules::Modules;
use super::nic::Nic;
use super::phase::{Host, PhaseError, Report};
use super::reap::{Exit, reap};
use super::root::mounted::{MountedRoot, RootKind};
use super::zram_device::Zram;
use crate::event::{Event, Record};

/// What phases say that have nothing to do because the root is on a disk.
pub(super) const FROM_DISK: &str = "nothing to do: the root is on a disk";

/// Longest sleep of a turn: the end of a child that is not the agent wakes nobody up.
const TURN: Duration = Duration::from_millis(200);

/// Waits shorter than this need no words.
const PATIENCE: Duration = Duration::from_secs(3);

/// One boot.
pub(super) struct Boot {
    started: Instant,
    /// The phase that runs.
    phase: &'static str,
    /// The node's name; empty until it is known.
    name: String,
    /// The kernel line, checked.
    pub(super) line: KernelLine,
    /// The kernel line as it is.
    pub(super) raw_line: String,
    /// Where a person reads.
    pub(super) console: Console,
    /// Where programs read.
    pub(super) events: EventSink,
    /// The kernel's modules; from the phase `modules` on.
    pub(super) modules: Option<Modules>,
    /// The interface; from the phase `link` on.
    pub(super) nic: Option<Nic>,
    /// The agent; from the phase `agent` on.
    pub(super) agent: Agent,
    /// What the agent said.
    pub(super) view: AgentView,
    /// Phases in a row in which it got no further.
    pub(super) stalls: u32,
    /// The root; from the phase `mount` on.
    pub(super) root: Option<MountedRoot>,
    /// The compressed memory that the root stands on, if it does.
    pub(super) zram: Option<Zram>,
    /// The agent fills the root, or has.
    pub(super) filling: bool,
    /// When it was told to.
    pub(super) filling_since: Duration,
    /// What is on disks; from the phase `disk` on.
    pub(super) disks: Disks,
    /// Opens a shell, where the kernel line asks for one.
    shell: fn(&mut Self),
}

impl Boot {
    /// A boot that begins now, with what opens a shell in it.
    pub(super) fn new(shell: fn(&mut Self)) -> Self {
        Self {
            started: Instant::now(),
            phase: "",
            name: String::new(),
            line: KernelLine::default(),
            raw_line: String::new(),
            console: Console::default(),
            events: EventSink::default(),
            modules: None,
            nic: None,
            agent: Agent::default(),
            view: AgentView::default(),
            stalls: 0,
            root: None,
            zram: None,
            filling: false,
            filling_since: Duration::ZERO,
            disks: Disks::default(),
            shell,
        }
    }

    /// The modules; an error before the phase that reads their index.
    pub(super) fn modules(&mut self) -> Result<&mut Modules, PhaseError> {
        self.modules.as_mut().ok_or_else(|| missing("modules"))
    }

    /// The interface; an error before the phase that chooses it.
    pub(super) fn nic(&self) -> Result<&Nic, PhaseError> {
        self.nic.as_ref().ok_or_else(|| missing("link"))
    }

    /// The root; an error before the phase that mounts it.
    pub(super) fn root(&self) -> Result<&MountedRoot, PhaseError> {
        self.root.as_ref().ok_or_else(|| missing("mount"))
    }

    /// Whether the root is to be on a disk.
    pub(super) fn root_on_disk(&self) -> bool {
        self.line.disk.root.is_some()
    }

    /// Whether a disk is to be installed that is not prepared yet.
    pub(super) fn awaits_disk(&self) -> bool {
        self.line.disk.name.is_some() && !self.disks.store && self.disks.root.is_none()
    }

    /// Whether all that this machine needs is on its disk, so that nothing waits for the network.
    pub(super) fn is_local(&self) -> bool {
        self.disks.root.is_some()
    }

    /// The init of the root, wherever it is.
    pub(super) fn init(&self) -> Result<Init, PhaseError> {
        match &self.disks.init {
            Some(init) => Ok(init.clone()),
            None => Ok(self.root()?.init.clone()),
        }
    }

    /// How the root is held: on the disk that is being installed, as the kernel line says, or as the release does.
    pub(super) fn root_kind(&self) -> RootKind {
        match &self.disks.target {
            Some(target) if target.has_root() => RootKind::Disk,
            _ => self.line.root.mode.or(self.view.root_mode).map_or(RootKind::Overlay, RootKind::from),
        }
    }

    /// Name of the phase that runs.
    pub(super) fn phase(&self) -> &'static str {
        self.phase
    }

    /// The node's name; empty until it is known.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Names the node.
    pub(super) fn set_name(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    /// Says that `event` happened.
    pub(super) fn emit(&mut self, event: Event) {
        let at = u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX);
        self.events.emit(&Record { at, from: self.name.clone(), event });
    }

    /// Does what PID 1 owes at any time, sleeping until there is something to do but at most `timeout` (and never long).
    /// Returns the children that ended.
    pub(super) fn turn(&mut self, timeout: Duration) -> Vec<Exit> {
        self.events.flush();
        self.agent.wait(timeout.min(TURN));
        for line in self.agent.read() {
            self.hear(&line);
        }
        let exits = reap();
        for exit in &exits {
            if let Some(death) = self.agent.ended(exit, self.now()) {
                self.view.restart();
                self.view.fail("agent", death, "the agent is started again; what it had verified is kept");
            }
        }
        if self.agent.is_due(self.now())
            && let Err(error) = self.agent.start(self.now())
        {
            self.view.fail("agent", PhaseError::from(error).chain(), "the agent is started again");
        }
        exits
    }

    /// Lets `delay` pass in turns.
    pub(super) fn idle(&mut self, delay: Duration) {
        let end = self.now() + delay;
        loop {
            let left = end.saturating_sub(self.now());
            if left.is_zero() {
                return;
            }
            self.turn(left);
        }
    }

    /// Tells the person what is waited for, once that takes a while.
    pub(super) fn show_waiting(&mut self, phase: &str, waited: Duration, what: &str) {
        if waited >= PATIENCE {
            let text = format!("waiting for {what}, {} s", waited.as_secs());
            self.console.progress(self.started.elapsed(), phase, &text);
        }
    }

    fn hear(&mut self, line: &str) {
        let Ok(record) = serde_json::from_str::<Record>(line) else {
            return self.console.log(&format!("the agent says what is no event: {line}"));
        };
        // The agent's failures are reported by the phase that they are failures of.
        if !matches!(record.event, Event::PhaseFailed { .. }) {
            self.events.emit(&record);
        }
        let now = self.now();
        self.view.take(now, &record.event);
        if let Event::Progress { role, .. } = &record.event {
            self.show_progress(now, role);
        }
    }

    /// Shows the download of `role` if it is what the person waits for.
    fn show_progress(&mut self, now: Duration, role: &str) {
        let Some(download) = self.view.download_text(role) else { return };
        let text = match self.phase {
            "root" if role == ROOT => download,
            "unpack" if role == UNPACK => download,
            "boot-blobs" if role != ROOT => format!("{download}  {role}"),
            _ => return,
        };
        self.console.progress(now, self.phase, &text);
    }
}

fn missing(phase: &str) -> PhaseError {
    PhaseError::message(format!("the phase {phase} has not run"))
}

impl Host for Boot {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    fn report(&mut self, phase: &'static str, report: Report<'_>) {
        self.phase = phase;
        self.console.report(phase, &report);
        if report == Report::Started && self.line.breaks.iter().any(|wanted| wanted == phase) {
            self.console.say(&format!("a break before {phase}, as the kernel line asks"));
            (self.shell)(self);
        }
        let phase = phase.to_owned();
        self.emit(match report {
            Report::Started => Event::PhaseStarted { phase },
            Report::Done { took, .. } => {
                Event::PhaseDone { phase, millis: u64::try_from(took.as_millis()).unwrap_or(u64::MAX) }
            }
            Report::Failed { error, remedy, .. } => {
                Event::PhaseFailed { phase, error: error.to_owned(), remedy: remedy.to_owned() }
            }
        });
    }

    fn pause(&mut self, delay: Duration) {
        if self.line.shell {
            (self.shell)(self);
        }
        self.idle(delay);
    }
}
