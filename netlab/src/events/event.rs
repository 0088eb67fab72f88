//! One event.

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The node: a line of its event file or event port.
    Node,
    /// The lab: something it did to the node, such as `power-on`, `kill`, `port-down`.
    Lab,
}

/// One line of the timeline.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Event {
    /// Position in the timeline, counted from 0 without gaps.
    pub index: u64,
    /// Time since the start of the lab at which the lab read it.
    #[serde(serialize_with = "seconds")]
    pub at: Duration,
    /// The node it is about.
    pub node: String,
    /// Who said it.
    pub source: Source,
    /// The object itself.
    pub value: Value,
}

impl Event {
    /// The field `event`, which by custom names the kind of event.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.text("event")
    }

    /// Whether the field `event` is `name`.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name() == Some(name)
    }

    /// A field of the object.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&Value> {
        self.value.get(name)
    }

    /// A field that is a string.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.field(name)?.as_str()
    }

    /// A field that is a number without sign.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.field(name)?.as_u64()
    }
}

/// `   3.120 s  a  power-on  {"firmware":"bios"}`: for people, one line.
impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:8.3} s  {:<8}  {}", self.at.as_secs_f64(), self.node, self.name().unwrap_or("-"))?;
        let rest = self.value.as_object().into_iter().flatten().filter(|(key, _)| *key != "event");
        for (key, value) in rest {
            write!(f, "  {key}={value}")?;
        }
        Ok(())
    }
}

fn seconds<S: serde::Serializer>(at: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(at.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_and_line() {
        let value = serde_json::json!({"event": "root-ready", "bytes": 12, "from": "10.0.0.1"});
        let event = Event {
            index: 0,
            at: Duration::from_millis(1500),
            node: "a".into(),
            source: Source::Node,
            value,
        };
        assert!(event.is("root-ready"));
        assert_eq!((event.number("bytes"), event.text("from")), (Some(12), Some("10.0.0.1")));
        assert_eq!((event.number("from"), event.text("none")), (None, None));
        assert_eq!(event.to_string(), "   1.500 s  a         root-ready  bytes=12  from=\"10.0.0.1\"");
    }
}
