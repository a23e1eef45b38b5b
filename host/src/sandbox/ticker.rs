//! The thread that ticks the engines' epochs while guests run, and rests when none does.
//!
//! Invariant: while a [`Running`] lives, the epoch moves every [`TICK`]; a while after the last one is dropped the
//! thread parks, and an idle host costs nothing.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, Thread};
use std::time::Duration;

use wasmtime::{Engine, EngineWeak};

use super::error::Error;

/// How often a computing guest is asked whether it may go on.
pub const TICK: Duration = Duration::from_millis(10);
/// Ticks without a guest before the thread parks: at thousands of short jobs a second nobody wants to wake it for each.
const IDLE_TICKS: u32 = 20;

pub(super) struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

#[derive(Default)]
struct Shared {
    engines: Mutex<Vec<EngineWeak>>,
    running: AtomicUsize,
    is_parked: AtomicBool,
    is_over: AtomicBool,
}

impl Ticker {
    pub(super) fn start(engine: &Engine) -> Result<Self, Error> {
        let shared = Arc::new(Shared::default());
        shared.add(engine);
        let inner = Arc::clone(&shared);
        let tick = move || {
            let mut idle = 0;
            while !inner.is_over.load(Ordering::Acquire) {
                thread::park_timeout(TICK);
                if !inner.tick() {
                    return;
                }
                idle = if inner.running.load(Ordering::SeqCst) == 0 { idle + 1 } else { 0 };
                if idle > IDLE_TICKS {
                    inner.rest();
                    idle = 0;
                }
            }
        };
        let handle = thread::Builder::new()
            .name("epoch".to_owned())
            .spawn(tick)
            .map_err(|error| Error::host(format!("the epoch thread does not start: {error}"), ""))?;
        Ok(Self { shared, thread: handle.thread().clone() })
    }

    /// Ticks one more engine from now on.
    pub(super) fn add(&self, engine: &Engine) {
        self.shared.add(engine);
    }

    /// Keeps the epoch moving until the answer is dropped.
    pub(super) fn running(&self) -> Running<'_> {
        self.shared.running.fetch_add(1, Ordering::SeqCst);
        if self.shared.is_parked.load(Ordering::SeqCst) && self.shared.is_parked.swap(false, Ordering::SeqCst) {
            self.thread.unpark();
        }
        Running(&self.shared)
    }

    #[cfg(test)]
    fn is_parked(&self) -> bool {
        self.shared.is_parked.load(Ordering::SeqCst)
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::Release);
        self.shared.is_parked.store(false, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Shared {
    fn add(&self, engine: &Engine) {
        self.engines.lock().unwrap_or_else(PoisonError::into_inner).push(engine.weak());
    }

    /// Moves the epochs; answers whether an engine is left.
    fn tick(&self) -> bool {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.retain(|engine| engine.upgrade().map(|engine| engine.increment_epoch()).is_some());
        !engines.is_empty()
    }

    /// Parks until a guest runs. The flag goes up before the count is read, and a guest raises the count before it
    /// reads the flag: one of the two sees the other.
    fn rest(&self) {
        self.is_parked.store(true, Ordering::SeqCst);
        while self.is_parked.load(Ordering::SeqCst) && self.running.load(Ordering::SeqCst) == 0 {
            thread::park();
        }
        self.is_parked.store(false, Ordering::SeqCst);
    }
}

/// A guest is running.
pub(super) struct Running<'a>(&'a Shared);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn wait_until(what: &str, condition: impl Fn() -> bool) {
        let start = Instant::now();
        while !condition() {
            assert!(start.elapsed() < Duration::from_secs(10), "{what}");
            thread::yield_now();
        }
    }

    #[test]
    fn it_rests_without_guests_and_wakes_for_the_next() {
        let engine = Engine::default();
        let ticker = Ticker::start(&engine).unwrap();
        for _ in 0..2 {
            wait_until("the ticker parks", || ticker.is_parked());
            let running = ticker.running();
            wait_until("the ticker wakes", || !ticker.is_parked());
            drop(running);
        }
    }
}
