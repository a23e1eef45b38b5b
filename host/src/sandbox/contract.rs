//! The guest contract on the host's side: what `guest-sdk/wit` says, and who answers the imports.
//!
//! Invariant: only what is added to a linker here can be called by a guest. HTTP goes where it was granted (`http`), a
//! directory is open only when it was granted, for reading, and no socket ever is: `wasi:filesystem` is here anyway
//! because the standard libraries of most languages import it, `wasi:sockets` because interpreters do.

use wasmtime::Engine;
use wasmtime::component::{HasData, HasSelf, Linker, ResourceTable};
use wasmtime_wasi::cli::{WasiCli, WasiCliView as _};
use wasmtime_wasi::clocks::{WasiClocks, WasiClocksView as _};
use wasmtime_wasi::filesystem::{WasiFilesystem, WasiFilesystemView as _};
use wasmtime_wasi::p1::{self, WasiP1Ctx};
use wasmtime_wasi::p2::bindings as wasi;
use wasmtime_wasi::random::WasiRandom;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView as _};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::guest::{Guest, component_wasi};
use super::host_calls::host_call;
use crate::ports::Level;

mod generated {
    wasmtime::component::bindgen!({
        path: "../guest-sdk/wit",
        world: "jumpscript",
        imports: {
            // These wait for Redis; and any of them may stop the guest.
            "wasi:keyvalue/store.[method]bucket.get": async | trappable,
            "wasi:keyvalue/store.[method]bucket.exists": async | trappable,
            "wasi:keyvalue/store.[method]bucket.list-keys": async | trappable,
            "wasi:keyvalue/store": trappable,
            "wasi:keyvalue/atomics": async | trappable,
            "wasi:keyvalue/batch.get-many": async | trappable,
            "wasi:keyvalue/batch": trappable,
            "wasmhost:jumpscript/jobs": trappable,
            "wasmhost:jumpscript/secrets": async | trappable,
            "wasmhost:jumpscript/facts.disks": async | trappable,
            "wasmhost:jumpscript/facts.processes": async | trappable,
            "wasmhost:jumpscript/facts.health": async | trappable,
            "wasmhost:jumpscript/http": async,
        },
        exports: { default: async },
        with: { "wasi:keyvalue/store.bucket": crate::sandbox::state::OpenBucket },
    });
}

pub(super) use generated::wasi::config::store as config;
pub(super) use generated::wasi::keyvalue::{atomics, batch, store};
use generated::wasi::logging::logging;
pub(super) use generated::wasmhost::jumpscript::facts;
use generated::wasmhost::jumpscript::progress;
pub(super) use generated::wasmhost::jumpscript::secrets;
pub(super) use generated::wasmhost::jumpscript::types;
pub(super) use generated::wasmhost::jumpscript::{http, jobs};
pub(super) use generated::{Jumpscript, JumpscriptPre};

/// The WASI part of a component's store. A component that computes and returns never asks for it, so it is made when
/// it does (half a microsecond, most of it seeds for random numbers).
pub(super) type Wasi = Option<(WasiCtx, ResourceTable)>;

impl WasiView for Guest<Wasi> {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        self.limits.count_host_call();
        let (ctx, table) = self.wasi.get_or_insert_with(|| component_wasi(&self.log, &self.granted));
        WasiCtxView { ctx, table }
    }
}

impl WasiHttpView for Guest<Wasi> {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.limits.count_host_call();
        let (_, table) = self.wasi.get_or_insert_with(|| component_wasi(&self.log, &self.granted));
        let client = self.http.client(&self.log);
        WasiHttpCtxView { table, ctx: &mut client.context, hooks: &mut client.calls }
    }
}

impl types::Host for Guest<Wasi> {}

impl progress::Host for Guest<Wasi> {
    fn report(&mut self, percent: u8, message: String) {
        host_call("wasmhost:jumpscript/progress", "report");
        self.log.progress(percent, &message);
    }
}

impl logging::Host for Guest<Wasi> {
    fn log(&mut self, level: logging::Level, context: String, message: String) {
        host_call("wasi:logging/logging", "log");
        let level = match level {
            logging::Level::Trace => Level::Trace,
            logging::Level::Debug => Level::Debug,
            logging::Level::Info => Level::Info,
            logging::Level::Warn => Level::Warn,
            logging::Level::Error => Level::Error,
            logging::Level::Critical => Level::Critical,
        };
        self.log.line(level, &context, &message);
    }
}

struct Io;

impl HasData for Io {
    type Data<'a> = &'a mut ResourceTable;
}

/// What components and commands of WASI 0.2 may import. `inspect` names the same interfaces.
pub(super) fn component_linker(engine: &Engine) -> wasmtime::Result<Linker<Guest<Wasi>>> {
    type G = Guest<Wasi>;
    let mut linker = Linker::<G>::new(engine);
    let l = &mut linker;
    wasi::io::error::add_to_linker::<G, Io>(l, |g| g.ctx().table)?;
    wasi::io::poll::add_to_linker::<G, Io>(l, |g| g.ctx().table)?;
    wasi::io::streams::add_to_linker::<G, Io>(l, |g| g.ctx().table)?;
    wasi::clocks::wall_clock::add_to_linker::<G, WasiClocks>(l, G::clocks)?;
    wasi::clocks::monotonic_clock::add_to_linker::<G, WasiClocks>(l, G::clocks)?;
    wasi::random::random::add_to_linker::<G, WasiRandom>(l, |g| g.ctx().ctx.random())?;
    wasi::random::insecure::add_to_linker::<G, WasiRandom>(l, |g| g.ctx().ctx.random())?;
    wasi::random::insecure_seed::add_to_linker::<G, WasiRandom>(l, |g| g.ctx().ctx.random())?;
    wasi::cli::environment::add_to_linker::<G, WasiCli>(l, G::cli)?;
    wasi::cli::exit::add_to_linker::<G, WasiCli>(l, G::cli)?;
    wasi::cli::stdin::add_to_linker::<G, WasiCli>(l, G::cli)?;
    wasi::cli::stdout::add_to_linker::<G, WasiCli>(l, G::cli)?;
    wasi::cli::stderr::add_to_linker::<G, WasiCli>(l, G::cli)?;
    wasi::cli::terminal_input::add_to_linker::<G, WasiCli>(l, G::cli)?;
    wasi::cli::terminal_output::add_to_linker::<G, WasiCli>(l, G::cli)?;
    wasi::cli::terminal_stdin::add_to_linker::<G, WasiCli>(l, G::cli)?;
    wasi::cli::terminal_stdout::add_to_linker::<G, WasiCli>(l, G::cli)?;
    wasi::cli::terminal_stderr::add_to_linker::<G, WasiCli>(l, G::cli)?;
    wasi::filesystem::types::add_to_linker::<G, WasiFilesystem>(l, G::filesystem)?;
    wasi::filesystem::preopens::add_to_linker::<G, WasiFilesystem>(l, G::filesystem)?;
    sockets(l)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(l)?;
    Jumpscript::add_to_linker::<G, HasSelf<G>>(l, Guest::called)?;
    Ok(linker)
}

/// The sockets that nobody may open: `guest::builder` allows neither TCP nor UDP nor looking up a name.
fn sockets(l: &mut Linker<Guest<Wasi>>) -> wasmtime::Result<()> {
    type G = Guest<Wasi>;
    wasi::sockets::instance_network::add_to_linker::<G, WasiSockets>(l, G::sockets)?;
    wasi::sockets::ip_name_lookup::add_to_linker::<G, WasiSockets>(l, G::sockets)?;
    wasi::sockets::network::add_to_linker::<G, WasiSockets>(l, &Default::default(), G::sockets)?;
    wasi::sockets::tcp::add_to_linker::<G, WasiSockets>(l, G::sockets)?;
    wasi::sockets::tcp_create_socket::add_to_linker::<G, WasiSockets>(l, G::sockets)?;
    wasi::sockets::udp::add_to_linker::<G, WasiSockets>(l, G::sockets)?;
    wasi::sockets::udp_create_socket::add_to_linker::<G, WasiSockets>(l, G::sockets)
}

/// What commands of WASI preview 1 may import.
pub(super) fn core_linker(engine: &Engine) -> wasmtime::Result<wasmtime::Linker<Guest<WasiP1Ctx>>> {
    let mut linker = wasmtime::Linker::new(engine);
    p1::add_to_linker_async(&mut linker, |guest: &mut Guest<WasiP1Ctx>| &mut guest.called().wasi)?;
    Ok(linker)
}
