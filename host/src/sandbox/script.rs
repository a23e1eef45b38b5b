//! A script that is compiled, linked and ready to be instantiated.

use std::sync::Arc;

use wasmtime::component::Component;
use wasmtime::{Engine, InstancePre, Module, ModuleExport};
use wasmtime_wasi::p1::WasiP1Ctx;
use wasmtime_wasi::p2::bindings::CommandPre;

use super::contract::{JumpscriptPre, Wasi};
use super::engine::Tier;
use super::error::Error;
use super::guest::Guest;
use super::http::{Grant, Http, Network};
use super::output::Log;
use super::run::Call;
use super::state::{Shared, Transaction};
use super::tier::Bench;
use crate::jumpscript::{Digest, Kind, Manifest, Source};
use crate::permissions::{Granted, HttpPattern, Permissions};

/// Metadata that begins so is the host's word to an interpreter.
const RESERVED: &str = "wasmhost.";

/// A script that is compiled, linked and ready to be instantiated.
pub struct Script {
    digest: Digest,
    manifest: Manifest,
    size: usize,
    tier: Tier,
    pub(super) engine: Engine,
    pub(super) linked: Linked,
    /// For kind `source`: the text, and the digest of the interpreter that runs it.
    source: Option<(Arc<Source>, Digest)>,
    /// What it asks to reach, and the network; only a script that imports HTTP has them.
    http: Option<(Arc<[HttpPattern]>, Arc<Network>)>,
    /// Whether it can ask the node for values, secrets and facts.
    is_supplied: bool,
    /// What its manifest says of buckets; only a script that uses state or enqueues jobs has it.
    buckets: Option<Arc<Shared>>,
}

/// What is instantiated for each job.
pub(super) enum Linked {
    Component(JumpscriptPre<Guest<Wasi>>),
    Command(CommandPre<Guest<Wasi>>),
    Core { pre: InstancePre<Guest<WasiP1Ctx>>, start: ModuleExport },
}

/// The two linkers of an engine; making one costs a third of a millisecond.
pub(super) struct Linkers {
    pub(super) component: wasmtime::component::Linker<Guest<Wasi>>,
    pub(super) core: wasmtime::Linker<Guest<WasiP1Ctx>>,
}

/// What kind of native code an artifact holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) enum Shape {
    /// A component with `run`.
    Component,
    /// A component with `wasi:cli/run`.
    Command,
    /// A core module with `_start`.
    Core,
}

/// What native code is and says about itself: kept with it, so that a script from disk knows its manifest.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct Label {
    pub(super) shape: Shape,
    pub(super) manifest: Manifest,
}

/// What a script that sends requests imports.
const HTTP: [&str; 2] = ["wasi:http/outgoing-handler@", "wasmhost:jumpscript/http@"];
/// What a script imports that uses state or enqueues jobs.
const STATE_AND_JOBS: [&str; 2] = ["wasi:keyvalue/", "wasmhost:jumpscript/jobs@"];

/// What a script imports that asks its node for values, secrets and facts.
const SUPPLIES: [&str; 3] = ["wasi:config/", "wasmhost:jumpscript/secrets@", "wasmhost:jumpscript/facts@"];

/// Native code, loaded.
pub(super) enum Code {
    Component(Component),
    Module(Module),
}

/// Whether native code imports an interface that begins with one of these.
fn imports(code: &Code, beginnings: &[&str]) -> bool {
    match code {
        Code::Component(component) => {
            let names = component.component_type();
            let is_one = |name: &str| beginnings.iter().any(|beginning| name.starts_with(beginning));
            names.imports(component.engine()).any(|(name, _)| is_one(name))
        }
        Code::Module(_) => false,
    }
}

impl Script {
    /// Links native code.
    pub(super) fn link(
        digest: Digest,
        label: Label,
        code: &Code,
        bench: &Bench,
        network: &Arc<Network>,
    ) -> Result<Self, Error> {
        let refuse = |error: wasmtime::Error| {
            Error::refused(
                format!("it does not fit this host: {error:#}"),
                "build it against the contract of this version (`guest-sdk/wit`)",
            )
        };
        let (size, linked) = match (code, label.shape) {
            (Code::Component(component), Shape::Component | Shape::Command) => {
                let pre = bench.linkers.component.instantiate_pre(component).map_err(refuse)?;
                let range = component.image_range();
                let linked = if label.shape == Shape::Component {
                    Linked::Component(JumpscriptPre::new(pre).map_err(refuse)?)
                } else {
                    Linked::Command(CommandPre::new(pre).map_err(refuse)?)
                };
                ((range.end as usize).saturating_sub(range.start as usize), linked)
            }
            (Code::Module(module), Shape::Core) => {
                let pre = bench.linkers.core.instantiate_pre(module).map_err(refuse)?;
                let range = module.image_range();
                let start = module
                    .get_export_index("_start")
                    .ok_or_else(|| Error::refused("the core module has no `_start`", "give it a `main`"))?;
                ((range.end as usize).saturating_sub(range.start as usize), Linked::Core { pre, start })
            }
            _ => return Err(Error::host("an artifact holds another kind of code than its script", "")),
        };
        let http =
            imports(code, &HTTP).then(|| (label.manifest.permissions.http.as_slice().into(), Arc::clone(network)));
        let buckets = imports(code, &STATE_AND_JOBS).then(|| Shared::of(&label.manifest));
        // A command finds them in its environment.
        let is_supplied = label.shape != Shape::Component || imports(code, &SUPPLIES);
        let (tier, engine) = (bench.tier, bench.engine.clone());
        let (source, manifest) = (None, label.manifest);
        Ok(Self { digest, manifest, size, tier, engine, linked, source, http, is_supplied, buckets })
    }

    /// A script's text on the code of its interpreter.
    pub(super) fn of_source(digest: Digest, source: Source, interpreter: &Self) -> Result<Self, Error> {
        let hint = "publish the file again";
        let manifest = source.manifest().map_err(|error| Error::refused(error, hint))?;
        let (Linked::Component(pre), None) = (&interpreter.linked, &interpreter.source) else {
            let name = &source.interpreter;
            return Err(Error::refused(format!("`{name}` is no component, so it cannot run scripts"), hint));
        };
        let requested = |network: &Arc<Network>| (manifest.permissions.http.as_slice().into(), Arc::clone(network));
        Ok(Self {
            digest,
            size: source.text.len(),
            tier: interpreter.tier,
            engine: interpreter.engine.clone(),
            linked: Linked::Component(pre.clone()),
            http: interpreter.http.as_ref().map(|(_, network)| requested(network)),
            is_supplied: interpreter.is_supplied,
            buckets: interpreter.buckets.as_ref().map(|_| Shared::of(&manifest)),
            source: Some((Arc::new(source), interpreter.digest)),
            manifest,
        })
    }

    /// The digest of the interpreter that runs it, for kind `source`.
    pub(super) fn interpreter(&self) -> Option<&Digest> {
        self.source.as_ref().map(|(_, interpreter)| interpreter)
    }

    /// Tells the interpreter what to run. What a producer wrote under these names is dropped.
    pub(super) fn brief(&self, call: &mut Call) {
        let Some((source, _)) = &self.source else { return };
        call.metadata.retain(|(name, _)| !name.starts_with(RESERVED));
        let pair = |name: &str, value: &str| (format!("{RESERVED}{name}"), value.to_owned());
        if call.is_check {
            call.metadata.push(pair("mode", "check"));
        }
        call.metadata.push(pair("file", &source.file));
        call.metadata.push(pair("script", &source.text));
    }

    /// The HTTP of one attempt.
    pub(super) fn http(&self, granted: &Arc<Granted>) -> Http {
        let Some((requested, network)) = &self.http else { return Http::default() };
        let (requested, network) = (Arc::clone(requested), Arc::clone(network));
        Http::granted(Grant { requested, granted: Arc::clone(granted), network })
    }

    /// Whether it uses state or enqueues jobs.
    #[must_use]
    pub const fn has_effects(&self) -> bool {
        self.buckets.is_some()
    }

    /// Whether it can ask its node for values, secrets and facts, and requests any.
    #[must_use]
    pub const fn is_supplied(&self) -> bool {
        let Permissions { config, secrets, facts, .. } = &self.manifest.permissions;
        self.is_supplied && !(config.is_empty() && secrets.is_empty() && facts.is_empty())
    }

    /// What its manifest requests of state and queues, as if all of it were allowed.
    #[must_use]
    pub fn requested(&self) -> Arc<Granted> {
        let asked = &self.manifest.permissions;
        let request =
            Permissions { state: asked.state.clone(), enqueue: asked.enqueue.clone(), ..Permissions::default() };
        Granted::of(&request, &request).map_or_else(|_| Granted::none(), Arc::new)
    }

    /// What one attempt will have read and written; a script that cannot has none.
    pub(super) fn transaction(&self, call: &Call, granted: &Arc<Granted>, log: &Log) -> Option<Box<Transaction>> {
        let shared = Arc::clone(self.buckets.as_ref()?);
        Some(Box::new(Transaction::new(call, Arc::clone(granted), shared, log)))
    }

    /// The digest of its Wasm file.
    #[must_use]
    pub const fn digest(&self) -> &Digest {
        &self.digest
    }

    /// What it says about itself; empty when its file carries no manifest.
    #[must_use]
    pub const fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What it is.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self.linked {
            Linked::Component(_) if self.source.is_some() => Kind::Source,
            Linked::Component(_) => Kind::Component,
            Linked::Command(_) | Linked::Core { .. } => Kind::Command,
        }
    }

    /// Which compiler made its native code.
    #[must_use]
    pub const fn tier(&self) -> Tier {
        self.tier
    }

    /// Bytes of its native code.
    #[must_use]
    pub const fn native_bytes(&self) -> usize {
        self.size
    }
}

impl Linkers {
    pub(super) fn new(engine: &Engine) -> Result<Self, Error> {
        let broken = |error: wasmtime::Error| Error::host(format!("the linker cannot be made: {error:#}"), "");
        Ok(Self {
            component: super::contract::component_linker(engine).map_err(broken)?,
            core: super::contract::core_linker(engine).map_err(broken)?,
        })
    }
}
