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
use super::http::{Client, Grant, Network};
use super::output::Log;
use super::tier::Bench;
use crate::jumpscript::{Digest, Kind, Manifest};
use crate::permissions::{Granted, HttpPattern};

/// A script that is compiled, linked and ready to be instantiated.
pub struct Script {
    digest: Digest,
    manifest: Manifest,
    size: usize,
    tier: Tier,
    pub(super) engine: Engine,
    pub(super) linked: Linked,
    /// What it asks to reach, and the network; only a script that imports HTTP has them.
    http: Option<(Arc<[HttpPattern]>, Arc<Network>)>,
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

/// Native code, loaded.
pub(super) enum Code {
    Component(Component),
    Module(Module),
}

/// Whether native code can send HTTP requests.
fn sends_http(code: &Code) -> bool {
    match code {
        Code::Component(component) => {
            let names = component.component_type();
            names.imports(component.engine()).any(|(name, _)| name.starts_with("wasi:http/outgoing-handler@"))
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
        let http = sends_http(code).then(|| (label.manifest.permissions.http.as_slice().into(), Arc::clone(network)));
        let (tier, engine) = (bench.tier, bench.engine.clone());
        Ok(Self { digest, manifest: label.manifest, size, tier, engine, linked, http })
    }

    /// The HTTP of one attempt.
    pub(super) fn http(&self, granted: &Arc<Granted>, log: &Log) -> Option<Box<Client>> {
        let (requested, network) = self.http.as_ref()?;
        let grant = Grant::new(Arc::clone(requested), Arc::clone(granted), Arc::clone(network));
        Some(Box::new(Client::new(Some(grant), log)))
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
