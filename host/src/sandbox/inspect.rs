//! Reads a Wasm file without compiling it, and refuses what could never run, each with its own text.

use super::error::Error;
use crate::jumpscript::{Digest, Kind, Manifest};

/// What a Wasm file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What it is.
    pub kind: Kind,
    /// The SHA-256 of the file.
    pub digest: Digest,
    /// Bytes of the file.
    pub size: usize,
    /// What it imports, in the order of the file.
    pub imports: Vec<Import>,
    /// What it exports, by name.
    pub exports: Vec<String>,
    /// The manifest that the SDK embedded.
    pub manifest: Option<Manifest>,
}

/// One thing that a file imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The interface with its version, such as `wasi:io/streams@0.2.6`, or `module.function` of a core module.
    pub name: String,
    /// What it is for, in a few words.
    pub purpose: &'static str,
}

impl Inspection {
    /// Inspects a file.
    ///
    /// # Errors
    /// [`Error::Refused`] with the thing, and a hint with the remedy.
    pub fn of(_wasm: &[u8]) -> Result<Self, Error> {
        unimplemented!()
    }
}
