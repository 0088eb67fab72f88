//! What a running node is told: by clients of the control socket, and in the first stage by PID 1 on standard input.
//!
//! Tasks: one for each request that takes time, which ends with its answer or its client; a thread that reads standard input, which ends
//! with it.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;

use super::control::{self, Asked, Request};
use super::{Node, machines, members, unpack};
use crate::event::Event;
use crate::maintain;

impl Node {
    /// Answers a client of the control socket; gives the connection back if it wants to take over, and what this process is to
    /// become then.
    pub(super) async fn answer(&self, asked: Asked) -> Option<(tokio::net::UnixStream, Option<PathBuf>)> {
        let Asked { request, mut stream } = asked;
        match request {
            Request::TakeOver => return Some((stream, None)),
            Request::Relieve { program } => return Some((stream, Some(program))),
            Request::Status => {
                let view = Arc::clone(&self.view);
                tokio::spawn(async move { control::answer(&mut stream, &view.status().await).await });
            }
            Request::Store(asked) => {
                let (store, exchange) = (self.store.clone(), self.join.exchange.clone());
                tokio::spawn(async move {
                    let answer = maintain::answer(store, &exchange, asked).await;
                    control::answer(&mut stream, &answer).await
                });
            }
            Request::Members => {
                let config = self.view.config();
                let members = config.private.then(|| members::members(&self.swarm, config.trust_root));
                tokio::spawn(async move { control::answer(&mut stream, &members).await });
            }
            Request::Admit { membership } => {
                let swarm = self.swarm.clone();
                tokio::spawn(async move {
                    let taken = members::take(&swarm, &membership).await;
                    control::answer(&mut stream, &taken).await
                });
            }
            Request::Machines => {
                let held = self.join.held().unwrap_or_else(|error| {
                    tracing::warn!("{error:#}");
                    machines::Held::default()
                });
                tokio::spawn(async move { control::answer(&mut stream, &held).await });
            }
            Request::Configure { settings, machines } => {
                let join = self.join.clone();
                tokio::spawn(async move {
                    let taken = join.take_settings(&settings, &machines).await;
                    control::answer(&mut stream, &taken).await
                });
            }
            Request::NextBoot(asked) => {
                let join = self.join.clone();
                tokio::spawn(async move { control::answer(&mut stream, &join.next_boot(asked).await).await });
            }
            Request::Events => {
                let mut events = self.events.subscribe();
                tokio::spawn(async move {
                    use tokio::sync::broadcast::error::RecvError;
                    loop {
                        match events.recv().await {
                            Ok(record) if control::answer(&mut stream, &record).await.is_ok() => {}
                            Err(RecvError::Lagged(_)) => {}
                            Ok(_) | Err(RecvError::Closed) => return,
                        }
                    }
                });
            }
        }
        None
    }

    /// Does what PID 1 says.
    pub(super) fn obey(&self, line: &str) {
        if line == "drop root" {
            let join = self.join.clone();
            tokio::spawn(async move {
                if let Err(error) = join.drop_root().await {
                    join.events.emit(unpack::failed(&error, unpack::STAYS));
                }
            });
            return;
        }
        if let Some(target) = line.strip_prefix("fill ") {
            tokio::spawn(unpack::fill(self.join.clone(), target.into()));
            return;
        }
        if line == "list root" {
            tokio::spawn(unpack::list(self.join.clone()));
            return;
        }
        if line == "share root" {
            tokio::spawn(self.join.clone().share_root());
            return;
        }
        let Some(root) = line.strip_prefix("enter ") else {
            tracing::warn!(line, "PID 1 says something unknown");
            return;
        };
        let entered = nix::unistd::chdir(root)
            .and_then(|()| nix::unistd::chroot("."))
            .and_then(|()| nix::unistd::chdir("/"));
        match entered {
            Ok(()) => {
                self.events.emit(Event::Entered { root: root.to_owned() });
                // PID 1 carries no events any more.
                if let Some(path) = &self.view.config().events
                    && let Err(error) = self.events.add_file(path)
                {
                    tracing::warn!("{error:#}");
                }
            }
            Err(error) => tracing::error!(%error, root, "cannot enter the new root"),
        }
    }
}

/// The next of `commands`, if somebody gives any.
pub(super) async fn next_command(commands: &mut Option<mpsc::Receiver<String>>) -> Option<String> {
    match commands {
        Some(commands) => commands.recv().await,
        None => None,
    }
}

/// Lines on standard input: what PID 1 of the first stage says.
pub(super) fn commands() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(4);
    // A thread, because standard input cannot be waited for otherwise; it ends with the other side of the pipe.
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            let Ok(line) = line else { return };
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
