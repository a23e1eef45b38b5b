//! The linked scripts in memory, bounded by the bytes of their native code.
//!
//! Invariant: a script that an attempt runs stays alive until the attempt ends, whatever the cache drops; and while one
//! thread makes a script, others that want the same digest wait for it instead of making it too.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, RwLock};

use super::script::Script;
use crate::jumpscript::Digest;

/// Native code kept in memory, in bytes: thousands of Rust scripts, or a dozen Python ones.
pub const NATIVE_BYTES_MAX: usize = 512 * 1024 * 1024;

#[derive(Default)]
pub(super) struct Cache {
    scripts: RwLock<HashMap<Digest, Entry>>,
    clock: AtomicU64,
    flights: Mutex<HashSet<Digest>>,
    landed: Condvar,
}

struct Entry {
    script: Arc<Script>,
    last_used: AtomicU64,
}

impl Cache {
    pub(super) fn get(&self, digest: &Digest) -> Option<Arc<Script>> {
        let scripts = self.scripts.read().unwrap_or_else(PoisonError::into_inner);
        let entry = scripts.get(digest)?;
        entry.last_used.store(self.clock.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        Some(Arc::clone(&entry.script))
    }

    /// Keeps a script, and drops those that were not used for longest until the rest fits.
    pub(super) fn insert(&self, script: Script) -> Arc<Script> {
        let script = Arc::new(script);
        let now = self.clock.fetch_add(1, Ordering::Relaxed);
        let mut scripts = self.scripts.write().unwrap_or_else(PoisonError::into_inner);
        scripts.insert(*script.digest(), Entry { script: Arc::clone(&script), last_used: now.into() });
        evict(&mut scripts, NATIVE_BYTES_MAX);
        script
    }

    /// Puts a script in the place of the one of the same digest; drops it when that is gone by now.
    pub(super) fn replace(&self, script: Script) {
        let mut scripts = self.scripts.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = scripts.get_mut(script.digest()) {
            let digest = *script.digest();
            entry.script = Arc::new(script);
            // Texts that run on the old code are linked to the new one when they are asked for.
            scripts.retain(|_, entry| entry.script.interpreter() != Some(&digest));
            evict(&mut scripts, NATIVE_BYTES_MAX);
        }
    }

    /// Drops the scripts that are texts.
    pub(super) fn remove_sources(&self) {
        let mut scripts = self.scripts.write().unwrap_or_else(PoisonError::into_inner);
        scripts.retain(|_, entry| entry.script.interpreter().is_none());
    }

    pub(super) fn remove(&self, digest: &Digest) {
        self.scripts.write().unwrap_or_else(PoisonError::into_inner).remove(digest);
    }

    /// The right to make the script of a digest; waits while another thread has it.
    pub(super) fn flight(&self, digest: &Digest) -> Flight<'_> {
        let flights = self.flights.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = |flights: &mut HashSet<Digest>| !flights.insert(*digest);
        let _flights = self.landed.wait_while(flights, taken).unwrap_or_else(PoisonError::into_inner);
        Flight { cache: self, digest: *digest }
    }
}

/// The right to make the script of one digest.
pub(super) struct Flight<'a> {
    cache: &'a Cache,
    digest: Digest,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.cache.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.digest);
        self.cache.landed.notify_all();
    }
}

/// Drops the scripts that were not used for longest, but never the last one.
fn evict(scripts: &mut HashMap<Digest, Entry>, bytes_max: usize) {
    let mut bytes: usize = scripts.values().map(|entry| entry.script.native_bytes()).sum();
    while bytes > bytes_max && scripts.len() > 1 {
        let oldest = scripts.iter().min_by_key(|(_, entry)| entry.last_used.load(Ordering::Relaxed));
        let Some(digest) = oldest.map(|(digest, _)| *digest) else { return };
        if let Some(entry) = scripts.remove(&digest) {
            bytes -= entry.script.native_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread;

    #[test]
    fn one_thread_at_a_time_makes_the_script_of_a_digest() {
        let cache = Cache::default();
        let (digest, made) = (Digest::of(b"x"), AtomicU64::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let _flight = cache.flight(&digest);
                    let before = made.load(Ordering::SeqCst);
                    thread::yield_now();
                    made.store(before + 1, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(made.into_inner(), 8);
        let _other = cache.flight(&Digest::of(b"y"));
        let _same = cache.flight(&digest);
    }
}
