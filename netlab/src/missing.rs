//! What a machine may lack for a lab.

use std::fmt;

/// Something the lab needs and this machine lacks.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Missing {
    /// The thing.
    pub what: String,
    /// What the lab does with it.
    pub needed_for: &'static str,
    /// The Debian package that has it; `None` for what no package gives.
    pub package: Option<&'static str>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, needed for {}", self.what, self.needed_for)?;
        match self.package {
            Some(package) => write!(f, " (Debian package {package})"),
            None => Ok(()),
        }
    }
}
