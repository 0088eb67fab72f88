//! `bootfabric store ls`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fabric::id::ObjectId;
use fabric::store::{BlobInfo, Item, Pin, Root, Store};
use serde::Serialize;

use super::{Place, print_json, print_line};
use crate::human::human_bytes;

/// What a store has.
#[derive(Debug, Serialize)]
struct Listing {
    path: PathBuf,
    /// The most bytes that it may hold.
    limit: Option<u64>,
    /// Bytes that count against the limit.
    used: u64,
    blobs: Vec<Line>,
    objects: usize,
    heads: Vec<Head>,
    pins: Vec<Pin>,
}

#[derive(Debug, Serialize)]
struct Line {
    #[serde(flatten)]
    info: BlobInfo,
    /// What keeps it; none if that cannot be told.
    kept_by: Option<Vec<Root>>,
}

#[derive(Debug, Serialize)]
struct Head {
    name: String,
    object: ObjectId,
}

pub(super) fn run(place: &Place) -> anyhow::Result<()> {
    let listing = list(&place.read()?)?;
    if place.json { print_json(&listing) } else { show(&listing) }
}

fn list(store: &Store) -> anyhow::Result<Listing> {
    let kept: Option<BTreeMap<Item, Vec<Root>>> = match store.garbage() {
        Ok(report) => Some(report.kept.into_iter().map(|kept| (kept.item, kept.why)).collect()),
        Err(error) => {
            eprintln!("What keeps the blobs cannot be told: {:#}", anyhow::Error::from(error));
            None
        }
    };
    let line = |info: BlobInfo| {
        let item = Item::Blob(info.reference.blob);
        Line { kept_by: kept.as_ref().map(|kept| kept.get(&item).cloned().unwrap_or_default()), info }
    };
    Ok(Listing {
        path: store.path().into(),
        limit: store.limit(),
        used: store.used()?,
        blobs: store.blobs().into_iter().map(line).collect(),
        objects: store.objects()?.len(),
        heads: store.heads()?.into_iter().map(|(name, object)| Head { name, object }).collect(),
        pins: store.pins()?,
    })
}

fn show(listing: &Listing) -> anyhow::Result<()> {
    let limit =
        listing.limit.map_or_else(|| "no limit".to_owned(), |limit| format!("limit {}", human_bytes(limit)));
    print_line(&format!("{}: {}, {limit}", listing.path.display(), human_bytes(listing.used)))?;
    print_line(&format!("\nblobs ({})", listing.blobs.len()))?;
    for Line { info, kept_by } in &listing.blobs {
        let size = info.reference.size;
        let share = (info.held_bytes.saturating_mul(100)).checked_div(size).unwrap_or(100);
        let kept_by = match kept_by.as_deref() {
            None => String::new(),
            Some([]) => "nothing: garbage".to_owned(),
            Some(why) => why.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
        };
        print_line(&format!("  {:>9}  {share:>3} %  {}  {kept_by}", human_bytes(size), info.reference.blob))?;
    }
    print_line(&format!("\nheads ({})", listing.heads.len()))?;
    for head in &listing.heads {
        print_line(&format!("  {:<24} object  {}", head.name, head.object))?;
    }
    print_line(&format!("\npins ({})", listing.pins.len()))?;
    for pin in &listing.pins {
        print_line(format!("  {:<24} {}  {}", pin.name, super::words(&pin.item), pin.reason).trim_end())?;
    }
    print_line(&format!("\nobjects: {}", listing.objects))
}
