//! What is written in the file: its shape, and the places of its values.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Error, SeqAccess, Visitor};
use toml::Spanned;

/// The whole file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) strangers: Option<YesNo>,
    pub(super) all: Told,
    pub(super) subnet: BTreeMap<Spanned<String>, Subnet>,
    pub(super) group: BTreeMap<Spanned<String>, Told>,
    pub(super) node: BTreeMap<Spanned<String>, Node>,
}

pub(super) type Options = BTreeMap<Spanned<String>, Spanned<toml::Value>>;

/// What some machines are told.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Told {
    pub(super) kernel_args: Option<Spanned<String>>,
    pub(super) loaders: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) options: Options,
    pub(super) boot_lease: Option<Spanned<u32>>,
    pub(super) lease: Option<Spanned<u32>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Subnet {
    pub(super) pools: Option<Spanned<OneOrMany>>,
    pub(super) routers: Option<Spanned<OneOrMany>>,
    pub(super) dns: Option<Spanned<OneOrMany>>,
    pub(super) domain: Option<Spanned<String>>,
    pub(super) relays: Option<Spanned<OneOrMany>>,
    pub(super) options: Options,
}

/// Serde has no `flatten` that keeps places, so the fields of [`Told`] are here again.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Node {
    pub(super) mac: Option<Spanned<OneOrMany>>,
    pub(super) client_id: Option<Spanned<OneOrMany>>,
    pub(super) uuid: Option<Spanned<OneOrMany>>,
    pub(super) address: Option<Spanned<OneOrMany>>,
    pub(super) group: Option<Spanned<OneOrMany>>,
    pub(super) kernel_args: Option<Spanned<String>>,
    pub(super) loaders: BTreeMap<Spanned<String>, Spanned<String>>,
    pub(super) options: Options,
    pub(super) boot_lease: Option<Spanned<u32>>,
    pub(super) lease: Option<Spanned<u32>>,
}

impl Node {
    /// What this node is told, apart from what it is.
    pub(super) fn take_told(&mut self) -> Told {
        Told {
            kernel_args: self.kernel_args.take(),
            loaders: std::mem::take(&mut self.loaders),
            options: std::mem::take(&mut self.options),
            boot_lease: self.boot_lease.take(),
            lease: self.lease.take(),
        }
    }
}

/// `true`, `false`, `"yes"` or `"no"`.
#[derive(Debug, Clone, Copy)]
pub(super) struct YesNo(pub(super) bool);

impl<'de> Deserialize<'de> for YesNo {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = YesNo;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("yes or no")
            }
            fn visit_bool<E: Error>(self, yes: bool) -> Result<YesNo, E> {
                Ok(YesNo(yes))
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<YesNo, E> {
                match text {
                    "yes" => Ok(YesNo(true)),
                    "no" => Ok(YesNo(false)),
                    other => Err(E::invalid_value(serde::de::Unexpected::Str(other), &self)),
                }
            }
        }
        from.deserialize_any(Reader)
    }
}

/// One text, or a list of texts.
#[derive(Debug, Default)]
pub(super) struct OneOrMany(pub(super) Vec<String>);

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text, or a list of texts")
            }
            fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany(vec![text.to_owned()]))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany, A::Error> {
                let mut all = Vec::new();
                while let Some(one) = list.next_element()? {
                    all.push(one);
                }
                Ok(OneOrMany(all))
            }
        }
        from.deserialize_any(Reader)
    }
}
