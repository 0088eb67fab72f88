//! Waiting for the agent: until its events answer, it fails, or it got no further for too long.

use std::time::Duration;

use super::agent_view::{AgentView, Failure};
use super::boot::Boot;
use super::phase::{Host, PhaseError};

/// Phases in a row in which the agent got nowhere before it is started anew: one that hangs must not hold the machine for
/// ever, one that waits for a peer must not be shot while it serves others.
const MAX_STALLS: u32 = 3;

/// How often it is looked whether the agent got further.
const LOOK: Duration = Duration::from_millis(200);

/// Waits until the agent's events answer `question`. Fails when the agent says that it failed, when it dies, and when it
/// got no further for `deadline`.
pub(super) fn until<T>(
    boot: &mut Boot,
    deadline: Duration,
    question: impl Fn(&AgentView) -> Option<T>,
) -> Result<T, PhaseError> {
    let mut steps = boot.view.steps;
    let mut since = boot.now();
    loop {
        if let Some(answer) = question(&boot.view) {
            boot.stalls = 0;
            return Ok(answer);
        }
        if let Some(Failure { phase, error, remedy }) = boot.view.take_failure() {
            // The agent does several things at once: it may fail at something else than what is waited for.
            let error = if phase == boot.phase() { error } else { format!("{phase}: {error}") };
            return Err(PhaseError::message(error).with_remedy(remedy));
        }
        if boot.view.steps != steps {
            (steps, since) = (boot.view.steps, boot.now());
            boot.stalls = 0;
        }
        let quiet = boot.now().saturating_sub(since);
        if quiet >= deadline {
            return Err(stalled(boot, deadline));
        }
        boot.show_waiting(boot.phase(), quiet, "news of the agent");
        boot.turn(LOOK);
    }
}

fn stalled(boot: &mut Boot, deadline: Duration) -> PhaseError {
    boot.stalls += 1;
    let mut error = format!("the agent got no further for {} s", deadline.as_secs());
    if boot.stalls >= MAX_STALLS {
        boot.stalls = 0;
        boot.agent.kill();
        error.push_str(" once more; it is started anew");
    }
    PhaseError::message(error)
}
