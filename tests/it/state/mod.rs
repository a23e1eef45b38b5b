//! State and jobs of jumpscripts: what commits with the end of an attempt, what does not, and what may not be.

mod attempts;
mod commits;
mod hosts;

use wasmhost::jumpscript::embed_manifest;

use crate::support::guests;

/// The guest `keep` with a table of permissions.
fn keep(permissions: &str) -> Vec<u8> {
    embed_manifest(
        &guests::wasm("keep"),
        &format!("name = \"keep\"\norganization = \"acme\"\n[permissions]\nhttp = []\n{permissions}\n"),
    )
}
