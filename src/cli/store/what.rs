//! What a person means by a word: an image, a head, or a hash.

use std::collections::BTreeSet;

use anyhow::{Context, bail};
use fabric::store::{Item, Store};

use crate::image::heads;

/// Shortest beginning of a hash that is looked for (digits): shorter ones are likely to be a word.
const MIN_DIGITS: usize = 6;
/// Digits of a hash that name a pin.
const NAME_DIGITS: usize = 16;

/// What `word` means in `store`, and a name for it.
pub(super) fn find(store: &Store, word: &str) -> anyhow::Result<(Item, String)> {
    for head in [heads::newest_name(word), word.to_owned()] {
        // A word that cannot name a head may be something else.
        if let Ok(Some(object)) = store.head(&head) {
            return Ok((Item::Object(object), word.to_owned()));
        }
    }
    let item = by_hash(store, word)?.with_context(|| unknown(store, word))?;
    let hash = match item {
        Item::Blob(blob) => blob.to_string(),
        Item::Object(object) => object.to_string(),
    };
    Ok((item, hash.chars().take(NAME_DIGITS).collect()))
}

fn by_hash(store: &Store, digits: &str) -> anyhow::Result<Option<Item>> {
    let digits = digits.to_ascii_lowercase();
    if digits.len() < MIN_DIGITS || !digits.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(None);
    }
    let blobs = store.blobs().into_iter().map(|info| info.reference.blob);
    let blobs = blobs.filter(|blob| blob.to_string().starts_with(&digits)).map(Item::Blob);
    let objects = store.objects()?.into_iter();
    let objects = objects.filter(|object| object.to_string().starts_with(&digits)).map(Item::Object);
    let found: BTreeSet<Item> = blobs.chain(objects).collect();
    match (found.first(), found.len()) {
        (Some(one), 1) => Ok(Some(*one)),
        (None, _) => Ok(None),
        (_, count) => bail!("{count} hashes begin with `{digits}`: give more digits"),
    }
}

fn unknown(store: &Store, word: &str) -> String {
    let heads = store.heads().unwrap_or_default();
    let names: Vec<_> = heads.iter().map(|(name, _)| name.as_str()).collect();
    format!(
        "there is no image, head, blob or object `{}` in the store {} (heads: {}); `bootfabric store ls` lists what there is",
        word.escape_default(),
        store.path().display(),
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    )
}
