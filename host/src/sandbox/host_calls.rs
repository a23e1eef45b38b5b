//! What a guest asked the host for, counted by function.
//!
//! The bindings of WASI tell of each call in a span of level trace, ours by [`host_call`]. Nobody listens while ordinary
//! jobs run, which costs them one comparison a call; [`counted`] listens to one attempt on its own thread.
//!
//! Invariant: only names are taken, never what a call was given or gave back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing::instrument::WithSubscriber as _;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Dispatch, Event, Metadata, Subscriber};

/// The span of a component's import, of a preview 1 function, and the event of ours.
const NAMES: [&str; 3] = ["wit-bindgen import", "wiggle abi", OWN];
const OWN: &str = "host call";

/// How often each host function was called, by `interface function`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostCalls(BTreeMap<String, u64>);

impl HostCalls {
    /// Interface and function such as `wasi:logging/logging log`, with the number of calls; sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, n)| (name.as_str(), *n))
    }

    /// All calls together.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.values().sum()
    }
}

/// Says that a host function of ours is called.
pub(super) fn host_call(interface: &'static str, function: &'static str) {
    tracing::event!(name: "host call", tracing::Level::TRACE, interface, function);
}

/// Runs a future and counts the host functions that are called in it.
pub(super) async fn counted<F: Future>(future: F) -> (F::Output, HostCalls) {
    let counter = Arc::new(Counter::default());
    let output = future.with_subscriber(Dispatch::from(Arc::clone(&counter))).await;
    let calls = std::mem::take(&mut *counter.calls.lock().unwrap_or_else(PoisonError::into_inner));
    (output, HostCalls(calls))
}

#[derive(Default)]
struct Counter {
    calls: Mutex<BTreeMap<String, u64>>,
    ids: AtomicU64,
}

impl Counter {
    fn count(&self, name: String) {
        *self.calls.lock().unwrap_or_else(PoisonError::into_inner).entry(name).or_default() += 1;
    }
}

impl Subscriber for Counter {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        NAMES.contains(&metadata.name())
    }

    fn new_span(&self, attributes: &Attributes<'_>) -> Id {
        let mut call = Called::default();
        attributes.record(&mut call);
        let metadata = attributes.metadata();
        let interface = metadata.module_path().and_then(interface_of).unwrap_or(call.interface);
        self.count(format!("{interface} {}", plain(&call.function)));
        Id::from_u64(self.ids.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn event(&self, event: &Event<'_>) {
        let mut call = Called::default();
        event.record(&mut call);
        self.count(format!("{} {}", call.interface, call.function));
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// The fields of a call that are names.
#[derive(Default)]
struct Called {
    interface: String,
    function: String,
}

impl Visit for Called {
    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "module" | "interface" => value.clone_into(&mut self.interface),
            "function" => value.clone_into(&mut self.function),
            _ => {}
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn fmt::Debug) {}
}

/// `wasi:io/streams` from the path of generated bindings, `..::bindings::wasi::io::streams`.
fn interface_of(module_path: &str) -> Option<String> {
    let (_, names) = module_path.rsplit_once("::wasi::")?;
    let (package, interface) = names.split_once("::")?;
    Some(format!("wasi:{package}/{interface}").replace('_', "-"))
}

/// A function without the mark of what sort it is: `output-stream.write` for `[method]output-stream.write`.
fn plain(function: &str) -> &str {
    function.split_once(']').map_or(function, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_bindings_names_the_interface() {
        let path = "wasmtime_wasi::p2::bindings::async_io::wasi::clocks::monotonic_clock";
        assert_eq!(interface_of(path).as_deref(), Some("wasi:clocks/monotonic-clock"));
        assert_eq!(interface_of("wasmtime_wasi::p1::wasi_snapshot_preview1"), None);
        assert_eq!(plain("[method]output-stream.write"), "output-stream.write");
        assert_eq!(plain("now"), "now");
    }

    #[test]
    fn calls_are_counted_while_somebody_listens_only() {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let calls = |n: u32| async move { (0..n).for_each(|_| host_call("wasi:logging/logging", "log")) };
        runtime.block_on(calls(7));
        let ((), counted) = runtime.block_on(counted(calls(3)));
        runtime.block_on(calls(7));
        assert_eq!(counted.iter().collect::<Vec<_>>(), [("wasi:logging/logging log", 3)]);
        assert_eq!(counted.total(), 3);
    }
}
