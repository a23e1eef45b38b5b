//! Jobs whose type nothing serves at the moment: they wait a little, then they are rejected.
//!
//! After a FLUSHALL a node restores the jumpscripts of its folder within two seconds; without the wait, jobs that
//! arrive in between would end in the dead-letter queue for nothing.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::job::Reserved;
use crate::jumpscript::Digest;
use crate::store::Store;

/// How often a waiting type is looked up.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// The waiting jobs, by type: one look-up serves all jobs of a type.
pub(super) struct UnknownTypes {
    store: Store,
    wait: Duration,
    jobs: HashMap<String, Vec<Reserved>>,
    lookups: FuturesUnordered<BoxFuture<'static, (String, Option<Digest>)>>,
    /// Answers to jobs of a type that was looked up.
    resolved: Vec<(Reserved, Option<Digest>)>,
    /// Types that were waited for in vain, and the revision of the jumpscripts then.
    missing: HashMap<String, u64>,
}

/// Types remembered as missing; the memory is only a shortcut, so it is dropped when it is full.
const MISSING_MAX: usize = 1024;

impl UnknownTypes {
    pub(super) fn new(store: Store, wait: Duration) -> Self {
        Self {
            store,
            wait,
            jobs: HashMap::new(),
            lookups: FuturesUnordered::new(),
            resolved: Vec::new(),
            missing: HashMap::new(),
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.lookups.is_empty() || !self.resolved.is_empty()
    }

    /// Whether the type was waited for in vain and nothing has been published since.
    pub(super) fn is_known_missing(&self, job_type: &str, revision: u64) -> bool {
        self.missing.get(job_type) == Some(&revision)
    }

    /// Remembers that the type was waited for in vain.
    pub(super) fn is_missing(&mut self, job_type: &str, revision: u64) {
        if self.missing.len() >= MISSING_MAX {
            self.missing.clear();
        }
        self.missing.insert(job_type.to_owned(), revision);
    }

    /// Has a job wait for its type.
    pub(super) fn wait(&mut self, job: Reserved) {
        let job_type = job.job_type.clone();
        let waiting = self.jobs.entry(job_type.clone()).or_default();
        waiting.push(job);
        if waiting.len() > 1 {
            return;
        }
        let (store, deadline) = (self.store.clone(), Instant::now() + self.wait);
        self.lookups.push(Box::pin(async move {
            loop {
                // A look-up that fails is a Redis that is away; the next one may answer.
                if let Ok(Some(digest)) = store.route(&job_type).await {
                    return (job_type, Some(digest));
                }
                if Instant::now() >= deadline {
                    return (job_type, None);
                }
                tokio::time::sleep(LOOK_PERIOD).await;
            }
        }));
    }

    /// The next job whose wait is over, and the code that serves it now. Cancel-safe.
    pub(super) async fn next(&mut self) -> (Reserved, Option<Digest>) {
        loop {
            if let Some(next) = self.resolved.pop() {
                return next;
            }
            match self.lookups.next().await {
                Some((job_type, digest)) => {
                    let jobs = self.jobs.remove(&job_type).unwrap_or_default();
                    self.resolved.extend(jobs.into_iter().rev().map(|job| (job, digest)));
                }
                None => std::future::pending().await,
            }
        }
    }

    /// Takes back all that wait, for a drain.
    pub(super) fn take(&mut self) -> Vec<Reserved> {
        self.lookups.clear();
        self.jobs.drain().flat_map(|(_, jobs)| jobs).chain(self.resolved.drain(..).map(|(job, _)| job)).collect()
    }
}
