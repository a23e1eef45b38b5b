//! Signing files, and looking at signatures before code is published.

use std::path::Path;
use std::sync::Arc;

use super::StorePublisher;
use super::source::file_name;
use crate::clock::Timestamp;
use crate::config::Config;
use crate::jumpscript::{self, Digest, Kind, Language, Manifest, ScriptName, Source};
use crate::ports::{Candidate, PublishError, PublishRule};
use crate::sandbox::Sandbox;
use crate::signatures::{Doubt, Gate, Policy, Purpose, Signature, SigningKey, Statement};
use crate::store::{Act, How};

/// What a file says that it is.
pub(super) struct Identity {
    pub(super) name: ScriptName,
    pub(super) kind: Kind,
    pub(super) manifest: Manifest,
    /// As [`Inspection::unrequested_http`](crate::sandbox::Inspection::unrequested_http).
    pub(super) unrequested_http: Option<String>,
}

impl Identity {
    pub(super) fn version(&self) -> String {
        self.manifest.version.clone().unwrap_or_default()
    }

    /// What a key vouches for.
    pub(super) fn statement(&self, digest: &Digest, how: &How) -> Statement {
        Statement {
            purpose: if how.act == Act::RolledBack { Purpose::Rollback } else { Purpose::Publish },
            name: self.name.to_string(),
            version: self.version(),
            digest: *digest,
            signed_at_ms: Timestamp::now().millis(),
        }
    }
}

/// The bytes that are published: the manifest beside a file is embedded. The digest covers the manifest: what was agreed
/// to is what runs.
pub(super) fn whole(candidate: Candidate) -> Result<Vec<u8>, String> {
    if let Some(language) = Language::of(Path::new(&candidate.file)) {
        let name = file_name(&candidate.file);
        return Source::new(language, &name, candidate.wasm, candidate.manifest.as_deref())
            .map(|source| source.encode());
    }
    match &candidate.manifest {
        Some(text) => {
            Manifest::parse(text)?;
            Ok(jumpscript::embed_manifest(&candidate.wasm, text))
        }
        None => Ok(candidate.wasm),
    }
}

/// Looks at code without compiling it.
pub(super) fn identity(wasm: &[u8], default_name: &str) -> Result<Identity, String> {
    let (kind, manifest, unrequested_http) = if Source::is_source(wasm) {
        (Kind::Source, Source::decode(wasm)?.manifest()?, None)
    } else {
        let inspection = Sandbox::inspect(wasm).map_err(|error| match error.hint() {
            Some(hint) => format!("{error}\nhint: {hint}"),
            None => error.to_string(),
        })?;
        (inspection.kind, inspection.manifest.unwrap_or_default(), inspection.unrequested_http)
    };
    manifest.check()?;
    let name = manifest.script_name(default_name)?;
    Ok(Identity { name, kind, manifest, unrequested_http })
}

/// Signs a file as it would be published.
///
/// # Errors
/// Why it could not be published.
pub fn sign_file(candidate: Candidate, key: &SigningKey) -> Result<Signature, String> {
    let default_name = candidate.default_name.clone();
    let wasm = whole(candidate)?;
    let statement = identity(&wasm, &default_name)?.statement(&Digest::of(&wasm), &PublishRule::Always.into());
    Ok(Signature::new(statement, key))
}

/// What a file would be published as: its name, its digest, and what its manifest says.
///
/// # Errors
/// Why it could not be published.
pub fn file_as_published(candidate: Candidate) -> Result<(ScriptName, Digest, Manifest), String> {
    let default_name = candidate.default_name.clone();
    let wasm = whole(candidate)?;
    let Identity { name, manifest, .. } = identity(&wasm, &default_name)?;
    Ok((name, Digest::of(&wasm), manifest))
}

/// The digest under which a file would be published.
///
/// # Errors
/// Why its manifest does not parse.
pub fn digest_of_file(candidate: Candidate) -> Result<Digest, String> {
    whole(candidate).map(|wasm| Digest::of(&wasm))
}

/// The gate of a command, which remembers nothing: it compares with what is live.
#[must_use]
pub fn gate_of_command(config: &Config) -> Arc<Gate> {
    Arc::new(Gate::new(config.signatures.policy, config.signatures.trusted.clone()))
}

impl StorePublisher {
    /// The signature beside a file, looked at with nothing but the digest: before the file is parsed. One that does not
    /// fit is refused under `require`, else it is told and left out.
    pub(super) fn given(&self, text: Option<&str>, digest: &Digest) -> Result<Option<Signature>, String> {
        let Some(text) = text.filter(|_| self.signer.is_none()) else { return Ok(None) };
        let looked = Signature::parse(text).and_then(|signature| match self.gate.policy() {
            Policy::Off if signature.is_genuine() && signature.statement.digest == *digest => Ok(signature),
            Policy::Off => Err("its signature is not one of this file".to_owned()),
            Policy::Warn | Policy::Require => match self.gate.fits(&signature, digest) {
                Ok(()) => Ok(signature),
                Err(doubt) => Err(doubt.text),
            },
        });
        match looked {
            Ok(signature) => Ok(Some(signature)),
            Err(why) if self.gate.policy() == Policy::Require => Err(required(&why)),
            Err(why) => {
                (self.warn)(&format!("the signature beside the file is left out: {why}"));
                Ok(None)
            }
        }
    }

    /// Whether code may go live under a name.
    pub(super) async fn look(
        &self,
        name: &ScriptName,
        signature: Option<&Signature>,
        digest: &Digest,
        how: &How,
    ) -> Result<(), PublishError> {
        let policy = self.gate.policy();
        let failed = |error: crate::store::Error| PublishError::of_store(&name.to_string(), &error);
        if policy == Policy::Off && signature.is_some() {
            return Ok(());
        }
        let live = match self.store.script(name).await {
            Ok(live) => live.and_then(|live| live.signature().ok().flatten()),
            // A record that makes no sense vouches for nothing, and is replaced.
            Err(crate::store::Error::Refused(_)) => None,
            Err(error) => return Err(failed(error)),
        };
        if policy == Policy::Off {
            if let Some(live) = &live
                && how.rule == PublishRule::Always
            {
                (self.warn)(&format!(
                    "`{name}` was signed by key {} and now is not: hosts that require signatures refuse it",
                    live.key.id()
                ));
            }
            return Ok(());
        }
        // What lies in a folder at the start is not taken when it is older; then it is no fault either.
        let looked = if how.rule == PublishRule::AbsentOrNewer && live.is_some() {
            match signature {
                Some(signature) => self.gate.fits(signature, digest),
                None => Err(Doubt::unsigned()),
            }
        } else {
            self.gate.look(name, signature, digest, live.as_ref())
        };
        match looked {
            Ok(()) => Ok(()),
            Err(why) if policy == Policy::Require => Err(PublishError::Refused(required(&why.text))),
            Err(why) => {
                (self.warn)(&format!("`{name}`: {why}"));
                Ok(())
            }
        }
    }
}

/// A refusal with the way out.
fn required(why: &str) -> String {
    format!(
        "{why} (`signatures.policy` is `require`)\nhint: sign it with a key of `signatures.trusted`: --sign KEYFILE, or \
         `wasmhost keys sign FILE --key KEYFILE`"
    )
}
