//! `bootfabric member`: who takes part in a private fabric.
//!
//! The operator's key signs here; a running node takes what was signed, and passes it on. Without a running node the
//! memberships in the fabric's store are changed.

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use clap::Subcommand;
use fabric::id::NodeId;
use fabric::trust::Operator;

use super::desk::{Desk, Place};
use super::output::{print_json, print_line};
use crate::home::{self, Home};
use crate::members::{self, Book, plain_name};
use crate::node::control::Request;
use crate::node::members::{Members, WaitingStatus, members_of};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the members, and the machines that wait to be admitted
    Ls(ListArgs),
    /// Admit a machine, or all that wait
    #[command(after_help = "\
A waiting machine shows its id on its console, and `bootfabric member ls` on a member shows who waits. Only the id is
proven: it names the machine's key. Compare it where the name or the address is not enough for you.

A name belongs to one machine. A machine that makes a new key at each boot is admitted again after each, and its name passes
to the new key; from a machine that is running a name is only taken with --replace.")]
    Admit(AdmitArgs),
    /// Take a name away: the machine that has it gets nothing new from now on
    Revoke(RevokeArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    place: Place,
    /// Only the machines that wait
    #[arg(long)]
    waiting: bool,
}

#[derive(Debug, clap::Args)]
struct AdmitArgs {
    /// The machine: its id, or the beginning of it or the name if it waits
    #[arg(value_name = "MACHINE", required_unless_present = "waiting", conflicts_with = "waiting")]
    machine: Option<String>,
    /// The name to admit it under [default: what it calls itself]
    #[arg(long, conflicts_with = "waiting")]
    name: Option<String>,
    /// Admit all machines that wait
    #[arg(long)]
    waiting: bool,
    /// Take the name away from a machine that is running
    #[arg(long)]
    replace: bool,
    #[command(flatten)]
    place: Place,
}

#[derive(Debug, clap::Args)]
struct RevokeArgs {
    /// The member: its name, or its id
    #[arg(value_name = "MEMBER")]
    member: String,
    #[command(flatten)]
    place: Place,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Ls(args) => list(args),
        Command::Admit(args) => admit(args),
        Command::Revoke(args) => revoke(args),
    }
}

/// Where memberships are read and changed, if the fabric has any.
fn open(place: &Place, home: &Home) -> anyhow::Result<Desk> {
    let desk = Desk::open(place)?;
    if let Desk::Store(store) = &desk {
        let settings = home::settings(store, &home.trust_root()?)?;
        ensure!(
            settings.is_some_and(|settings| settings.private),
            "the fabric in {} is not private: every machine with its trust root takes part",
            home.path().display()
        );
    }
    Ok(desk)
}

fn members_at(desk: &Desk, home: &Home) -> anyhow::Result<Members> {
    match desk {
        Desk::Running(node) => {
            let members: Option<Members> = node.ask(&Request::Members)?;
            members.context("this machine's node belongs to a fabric that is not private")
        }
        Desk::Store(store) => Ok(members_of(&Book::stored(store, home.trust_root()?)?, |_| false, &[])),
    }
}

fn take(desk: &Desk, home: &Home, statement: &Bytes) -> anyhow::Result<()> {
    match desk {
        Desk::Running(node) => node.give(&Request::Admit { membership: statement.to_vec() }),
        Desk::Store(store) => {
            let mut book = Book::stored(store, home.trust_root()?)?;
            book.add(statement)?;
            members::keep(store, &book.statements())
        }
    }
}

fn list(args: &ListArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let mut members = members_at(&open(&args.place, &home)?, &home)?;
    members.statements.clear();
    if args.waiting {
        members.members.clear();
    }
    if args.place.json {
        return print_json(&members);
    }
    for line in lines(&members, args.waiting) {
        print_line(&line)?;
    }
    Ok(())
}

fn lines(members: &Members, waiting_only: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if !waiting_only {
        lines.push(format!("members ({})", members.members.len()));
        for member in &members.members {
            let (id, state) = match member.node {
                Some(node) => (node.0.short(), if member.live { "running" } else { "not seen" }),
                None => ("-".into(), "withdrawn"),
            };
            lines.push(format!("  {:<24} {id:<10}  {state}, by {}", member.name, member.operator));
        }
        lines.push(String::new());
    }
    lines.push(format!("waiting ({})", members.waiting.len()));
    for waiting in &members.waiting {
        let WaitingStatus { node, name, mac, address } = waiting;
        lines.push(format!("  {name:<24} {address:<15} {mac:<17}  {node}"));
    }
    lines
}

/// A machine that was given a name, or lost one.
#[derive(Debug, serde::Serialize)]
struct Done {
    name: String,
    node: Option<NodeId>,
}

fn admit(args: &AdmitArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let operator = home.operator()?;
    let desk = open(&args.place, &home)?;
    let members = members_at(&desk, &home)?;
    let chosen = match &args.machine {
        Some(machine) => vec![choose(machine, args.name.as_deref(), &members)?],
        None => everybody(&members)?,
    };
    ensure!(!chosen.is_empty(), "no machine waits to be admitted");
    let mut done = Vec::new();
    for (name, node) in chosen {
        if !args.replace {
            refuse_running(&name, node, &members)?;
        }
        give(&desk, &home, &operator, &members, &name, Some(node))?;
        done.push(Done { name, node: Some(node) });
    }
    tell(&done, args.place.json, "admitted")
}

fn revoke(args: &RevokeArgs) -> anyhow::Result<()> {
    let home = args.place.home()?;
    let operator = home.operator()?;
    let desk = open(&args.place, &home)?;
    let members = members_at(&desk, &home)?;
    let is_meant = |name: &str, node: NodeId| name == args.member || node.to_string() == args.member;
    let names =
        members.members.iter().filter(|member| member.node.is_some_and(|node| is_meant(&member.name, node)));
    let names: Vec<String> = names.map(|member| member.name.clone()).collect();
    ensure!(
        !names.is_empty(),
        "no member is called `{}`: `bootfabric member ls` shows the members",
        args.member
    );
    let mut done = Vec::new();
    for name in names {
        give(&desk, &home, &operator, &members, &name, None)?;
        done.push(Done { name, node: None });
    }
    tell(&done, args.place.json, "withdrawn")
}

/// Signs that a name belongs to a machine, or to nobody, and hands it over.
fn give(
    desk: &Desk,
    home: &Home,
    operator: &Operator,
    members: &Members,
    name: &str,
    node: Option<NodeId>,
) -> anyhow::Result<()> {
    let known = members.statements.iter().map(|bytes| Bytes::copy_from_slice(bytes));
    let book = Book::of(operator.trust_root(), known);
    let statement = book.sign(operator, name, node)?;
    take(desk, home, &statement)
}

/// The machine that is meant, and its name.
fn choose(machine: &str, name: Option<&str>, members: &Members) -> anyhow::Result<(String, NodeId)> {
    let is_meant =
        |waiting: &&WaitingStatus| waiting.name == machine || waiting.node.to_string().starts_with(machine);
    let meant: Vec<_> = members.waiting.iter().filter(is_meant).collect();
    let (node, calls_itself) = match (meant.as_slice(), machine.parse()) {
        ([one], _) => (one.node, Some(one.name.as_str())),
        ([], Ok(node)) => (node, None),
        ([], Err(_)) => bail!(
            "no machine that waits is called `{machine}`, and it is no id: `bootfabric member ls` shows who waits"
        ),
        _ => bail!("several machines that wait could be `{machine}`: give the whole id"),
    };
    let name = match (name, calls_itself) {
        (Some(name), _) => name.to_owned(),
        (None, Some(name)) => plain_name(name, node),
        (None, None) => {
            bail!("the machine does not wait here, so its name is not known: give one with --name")
        }
    };
    Ok((name, node))
}

/// All machines that wait, if each has a name of its own.
fn everybody(members: &Members) -> anyhow::Result<Vec<(String, NodeId)>> {
    let mut chosen = BTreeMap::new();
    for waiting in &members.waiting {
        let name = plain_name(&waiting.name, waiting.node);
        if let Some(other) = chosen.insert(name.clone(), waiting.node) {
            bail!(
                "two machines that wait call themselves `{name}`: admit one of {} and {other} by its id",
                waiting.node
            );
        }
    }
    Ok(chosen.into_iter().collect())
}

/// Keeps a machine from taking the name of one that is there: what a machine calls itself is only its word.
fn refuse_running(name: &str, node: NodeId, members: &Members) -> anyhow::Result<()> {
    let holder = members.members.iter().find(|member| member.name == name && member.live);
    match holder.and_then(|member| member.node) {
        Some(other) if other != node => bail!(
            "`{name}` is the name of a running machine, {other}: give another with --name, or take it away with --replace"
        ),
        _ => Ok(()),
    }
}

fn tell(done: &[Done], json: bool, what: &str) -> anyhow::Result<()> {
    if json {
        return print_json(&done);
    }
    for Done { name, node } in done {
        match node {
            Some(node) => print_line(&format!("{what} {name}  {node}"))?,
            None => print_line(&format!("{what} {name}"))?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fabric::id::Hash;

    use super::*;
    use crate::node::members::MemberStatus;

    fn node(n: u8) -> NodeId {
        NodeId(Hash::of(&[n]))
    }

    fn members(waiting: &[(u8, &str)]) -> Members {
        let waiting = waiting.iter().map(|(n, name)| WaitingStatus {
            node: node(*n),
            name: (*name).into(),
            mac: String::new(),
            address: [10, 77, 0, *n].into(),
        });
        let member = MemberStatus {
            name: "origin".into(),
            node: Some(node(0)),
            generation: 1,
            operator: "ann".into(),
            live: true,
        };
        Members { members: vec![member], waiting: waiting.collect(), statements: vec![] }
    }

    #[test]
    fn a_machine_is_meant_by_its_id_the_beginning_of_it_or_its_name() {
        let members = members(&[(1, "Rack1"), (2, "twin"), (3, "twin")]);
        let id = node(1).to_string();
        for machine in [&id, &id[..8], "Rack1"] {
            assert_eq!(choose(machine, None, &members).unwrap(), ("rack1".into(), node(1)), "{machine}");
        }
        assert_eq!(choose(&id, Some("x"), &members).unwrap().0, "x");
        assert!(choose("twin", None, &members).unwrap_err().to_string().contains("whole id"));
        assert!(choose("nobody", None, &members).unwrap_err().to_string().contains("member ls"));
        let elsewhere = node(9).to_string();
        assert!(choose(&elsewhere, None, &members).unwrap_err().to_string().contains("--name"));
        assert_eq!(choose(&elsewhere, Some("x"), &members).unwrap(), ("x".into(), node(9)));
    }

    #[test]
    fn nobody_slips_in_under_the_name_of_another() {
        let twins = members(&[(2, "twin"), (3, "Twin")]);
        assert!(everybody(&twins).unwrap_err().to_string().contains("twin"));
        let thief = members(&[(1, "origin")]);
        let error = refuse_running("origin", node(1), &thief).unwrap_err().to_string();
        assert!(error.contains("--replace"), "{error}");
        assert!(refuse_running("origin", node(0), &thief).is_ok());
        assert!(refuse_running("other", node(1), &thief).is_ok());
        assert_eq!(everybody(&members(&[(1, "a"), (2, "b")])).unwrap().len(), 2);
    }
}
