//! The bridge to Hero: one list for each script type; a message is a job of that type.

use super::Bridge;
use crate::protocol::{Message, Protocol, Record, Source, hero};

/// Hero's supervisors and terminals push here.
#[derive(Debug)]
pub struct Hero {
    sources: Vec<Source>,
}

impl Hero {
    /// A bridge for these script types.
    #[must_use]
    pub fn new(types: &[String]) -> Self {
        Self { sources: types.iter().map(|script_type| hero::source(script_type)).collect() }
    }
}

impl Bridge for Hero {
    fn protocol(&self) -> Protocol {
        Protocol::Hero
    }

    fn sources(&self) -> &[Source] {
        &self.sources
    }

    fn read(&self, source: &Source, id: &[u8], record: &Record) -> Message {
        hero::decode(&source.kind, id, record)
    }
}
