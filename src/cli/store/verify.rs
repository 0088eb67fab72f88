//! `bootfabric store verify`.

use std::io;

use anyhow::bail;
use fabric::store::{LockMode, Store, StoreOptions, VerifyReport};

use super::{Place, StoreError, print_json, print_line};
use crate::cli::transfer_bar::TransferBar;
use crate::human::human_bytes;

pub(super) fn run(place: &Place) -> anyhow::Result<()> {
    let store = open(place)?;
    let total = store.blobs().iter().map(|info| info.held_bytes).sum();
    let bar = TransferBar::new("checking blobs", total);
    let report = store.verify(&|bytes| bar.at(bytes))?;
    drop(bar);
    if place.json {
        print_json(&report)?;
    } else {
        show(&report)?;
    }
    if report.is_clean() {
        return Ok(());
    }
    let found = format!(
        "damage in the store {}: {} blobs and {} objects",
        store.path().display(),
        report.damaged.len(),
        report.damaged_objects.len()
    );
    if store.is_reader() {
        bail!(
            "{found}. Nothing was changed: start the node again, it fetches from its peers what is damaged"
        );
    }
    bail!(
        "{found}. What is damaged no longer counts as held: `bootfabric up --peer …` fetches it again, or build the image again"
    )
}

/// For writing if nobody else has it open, so that damage can be put aside.
fn open(place: &Place) -> anyhow::Result<Store> {
    // A reader is asked first: it makes no store where there is none.
    let reader = place.read()?;
    let options = StoreOptions { lock: LockMode::Fail, ..StoreOptions::default() };
    match Store::open(reader.path(), options) {
        Ok(store) => Ok(store),
        Err(StoreError::Locked { .. }) => {
            eprintln!("Another process has the store open: damage will be reported and left as it is.");
            Ok(reader)
        }
        Err(StoreError::Io { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            eprintln!("The store can only be read: damage will be reported and left as it is.");
            Ok(reader)
        }
        Err(error) => Err(error.into()),
    }
}

fn show(report: &VerifyReport) -> anyhow::Result<()> {
    let verdict = if report.is_clean() { "all as they should be" } else { "not all as they should be" };
    print_line(&format!("{} blobs, {}: {verdict}", report.blobs, human_bytes(report.bytes)))?;
    for damage in &report.damaged {
        print_line(&format!(
            "  blob    {}  {} of {} chunks damaged  {}",
            damage.blob,
            damage.bad,
            damage.held,
            damage.path.display()
        ))?;
    }
    report.damaged_objects.iter().try_for_each(|object| print_line(&format!("  object  {object}  damaged")))
}
