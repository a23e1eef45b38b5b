//! A script that is compiled, linked and ready to be instantiated.

use crate::jumpscript::{Digest, Kind, Manifest};

/// A script that is compiled, linked and ready to be instantiated.
pub struct Script {
    digest: Digest,
    kind: Kind,
    manifest: Manifest,
}

impl Script {
    /// The digest of its Wasm file.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What it says about itself.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }
}
