//! Facts about the node that a jumpscript may ask for.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize};

use crate::job::visible;

/// One kind of fact about the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fact {
    /// File systems with their size and free space.
    Disks,
    /// Memory and swap.
    Memory,
    /// Load averages and cores.
    Load,
    /// Processes by name.
    Processes,
    /// How long the machine and the host have been up.
    Uptime,
    /// What the node's health checks say.
    Health,
}

impl Fact {
    /// Every kind, in the order of the documentation.
    pub const ALL: [Self; 6] = [Self::Disks, Self::Memory, Self::Load, Self::Processes, Self::Uptime, Self::Health];

    /// Its word in a manifest.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Disks => "disks",
            Self::Memory => "memory",
            Self::Load => "load",
            Self::Processes => "processes",
            Self::Uptime => "uptime",
            Self::Health => "health",
        }
    }
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Fact {
    type Err = String;

    /// Reads a word. The error is a sentence that names it and the nearest one.
    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(fact) = Self::ALL.into_iter().find(|fact| fact.as_str() == text) {
            return Ok(fact);
        }
        let distance = |fact: &Self| strsim::damerau_levenshtein(fact.as_str(), &text.to_lowercase());
        let all = Self::ALL.map(Self::as_str).join(", ");
        Err(match Self::ALL.into_iter().min_by_key(distance).filter(|fact| distance(fact) <= 3) {
            Some(near) => format!("the fact `{}` is not known; did you mean `{near}`?", visible(text)),
            None => format!("the fact `{}` is not known; known are {all}", visible(text)),
        })
    }
}

/// Kinds of facts, in a manifest a list of their words or `true` for all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts(pub BTreeSet<Fact>);

impl Facts {
    /// All kinds.
    #[must_use]
    pub fn all() -> Self {
        Self(Fact::ALL.into_iter().collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Fact> for Facts {
    fn from_iter<I: IntoIterator<Item = Fact>>(facts: I) -> Self {
        Self(facts.into_iter().collect())
    }
}

impl Serialize for Facts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(|fact| fact.as_str()))
    }
}

impl<'de> Deserialize<'de> for Facts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "must be `true` or a list such as [\"disks\", \"load\"]")]
        enum Form {
            Every(bool),
            Words(Vec<String>),
        }
        match Form::deserialize(deserializer)? {
            Form::Every(true) => Ok(Self::all()),
            Form::Every(false) => Ok(Self::default()),
            Form::Words(words) => {
                words.iter().map(|word| word.parse()).collect::<Result<_, String>>().map_err(serde::de::Error::custom)
            }
        }
    }
}
