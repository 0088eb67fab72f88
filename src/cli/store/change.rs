//! Commands that change a store: done here, or by the node that has it open.

use anyhow::{Context, bail, ensure};
use fabric::store::{GcReport, LockMode, Pin, Store, StoreOptions};

use super::{DEFAULT_STATE, print_json, print_line, words};
use super::{LimitArgs, PathBuf, PinArgs, Place, StoreError, UnpinArgs, what};
use crate::human::human_bytes;
use crate::maintain::{Answer, Asked, Change, Done, apply};
use crate::node::control::{Request, ask_line, socket_path};

/// Which node to ask if one has the store open.
#[derive(Debug, clap::Args)]
pub(super) struct State {
    /// State directory of the node that has the store open
    #[arg(long, value_name = "DIR", default_value = DEFAULT_STATE)]
    state: PathBuf,
}

/// `store gc`.
pub(super) fn collect(place: &Place, state: &State, dry_run: bool) -> anyhow::Result<()> {
    let report = if dry_run {
        place.read()?.garbage()?
    } else {
        match change(place, state, Change::Collect)? {
            Done::Collected(report) => report,
            other => bail!("the node answered something else: {other:?}"),
        }
    };
    if place.json { print_json(&report) } else { show(&report, dry_run) }
}

/// `store pin`.
pub(super) fn pin(args: PinArgs) -> anyhow::Result<()> {
    let (item, name) = what::find(&args.place.read()?, &args.what)?;
    let pin = Pin { name: args.name.unwrap_or(name), item, reason: args.reason };
    change(&args.place, &args.state, Change::Pin(pin.clone()))?;
    if args.place.json {
        return print_json(&pin);
    }
    print_line(&format!("pin {} keeps {}", pin.name, pin.item))
}

/// `store unpin`.
pub(super) fn unpin(args: &UnpinArgs) -> anyhow::Result<()> {
    let done = change(&args.place, &args.state, Change::Unpin { name: args.name.clone() })?;
    if done != Done::Unpinned(true) {
        let pins = args.place.read()?.pins()?;
        let names: Vec<_> = pins.iter().map(|pin| pin.name.as_str()).collect();
        bail!(
            "there is no pin `{}` (there {})",
            args.name.escape_default(),
            if names.is_empty() { "is none".to_owned() } else { format!("are {}", names.join(", ")) }
        );
    }
    if args.place.json {
        return print_json(&serde_json::json!({ "removed": args.name }));
    }
    print_line(&format!("pin {} removed; what it kept stays until `bootfabric store gc`", args.name))
}

/// `store limit`.
pub(super) fn limit(args: &LimitArgs) -> anyhow::Result<()> {
    if let Some(limit) = args.size {
        change(&args.place, &args.state, Change::Limit { bytes: limit.0 })?;
    }
    let store = args.place.read()?;
    let (limit, used) = (store.limit(), store.used()?);
    if args.place.json {
        return print_json(&serde_json::json!({ "limit": limit, "used": used }));
    }
    let words = limit.map_or_else(|| "no limit".to_owned(), |limit| format!("limit {}", human_bytes(limit)));
    print_line(&format!("{words}, {} in use", human_bytes(used)))?;
    if limit.is_some_and(|limit| limit < used) {
        eprintln!(
            "The store holds more than that: nothing new is taken until `bootfabric store gc` or `image rm` makes room."
        );
    }
    Ok(())
}

/// Makes a change, whoever has the store open.
fn change(place: &Place, state: &State, change: Change) -> anyhow::Result<Done> {
    let path = place.path()?;
    ensure!(Store::exists(&path), StoreError::NoStore { dir: path });
    let options = StoreOptions { lock: LockMode::Fail, ..StoreOptions::default() };
    match Store::open(&path, options) {
        Ok(store) => Ok(apply(&store, change)?),
        Err(locked @ StoreError::Locked { .. }) => through_node(&path, state, change).with_context(|| {
            format!(
                "{locked}; a node that has it open can do this itself, if --state names its state directory"
            )
        }),
        Err(error) => Err(error.into()),
    }
}

fn through_node(path: &std::path::Path, state: &State, change: Change) -> anyhow::Result<Done> {
    let store = std::fs::canonicalize(path).with_context(|| format!("cannot find {}", path.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let request = Request::Store(Asked { store, change });
    let line = runtime.block_on(ask_line(&socket_path(&state.state), &request))?;
    let answer = serde_json::from_str(&line).context("the node is of another version than this command")?;
    match answer {
        Answer::Done(done) => Ok(done),
        Answer::Failed(why) => bail!("the node could not do it: {why}"),
    }
}

fn show(report: &GcReport, dry_run: bool) -> anyhow::Result<()> {
    for freed in &report.freed {
        print_line(&format!("  {:>9}  {}", human_bytes(freed.bytes), words(&freed.item)))?;
    }
    let blobs = report.freed_blobs().count();
    let objects = report.freed.len() - blobs;
    let (would, kept) = if dry_run { ("would be ", "would stay") } else { ("", "kept") };
    print_line(&format!(
        "{} {would}freed: {blobs} blobs, {objects} objects; {} {kept}",
        human_bytes(report.freed_bytes),
        human_bytes(report.kept_bytes)
    ))?;
    if dry_run {
        eprintln!("What a running node is adding or fetching at this moment is kept too.");
    }
    Ok(())
}
