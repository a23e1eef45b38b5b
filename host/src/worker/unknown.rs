//! Jobs whose type nothing serves at the moment: they wait a little, then they are rejected.
//!
//! After a FLUSHALL a node restores the jumpscripts of its folder within two seconds; without the wait, jobs that
//! arrive in between would end in the dead-letter queue for nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::time::Instant;

use crate::job::{Reserved, visible};
use crate::jumpscript::Digest;
use crate::store::Store;

/// How often a waiting type is looked up.
const LOOK_PERIOD: Duration = Duration::from_millis(250);

/// Types that are named to whoever asked for one that nothing serves.
const NAMED_MAX: usize = 20;

/// The code that serves a type, or why there is none.
pub(super) type Resolved = Result<Digest, Arc<str>>;

/// The waiting jobs, by type: one look-up serves all jobs of a type.
pub(super) struct UnknownTypes {
    store: Store,
    wait: Duration,
    jobs: HashMap<String, Vec<Reserved>>,
    lookups: FuturesUnordered<BoxFuture<'static, (String, Resolved)>>,
    /// Answers to jobs of a type that was looked up.
    resolved: Vec<(Reserved, Resolved)>,
    /// Types that were waited for in vain, with the revision of the jumpscripts then, and what is said of them.
    missing: HashMap<String, (u64, Arc<str>)>,
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

    /// What is said of a type that was waited for in vain, if nothing has been published since.
    pub(super) fn known_missing(&self, job_type: &str, revision: u64) -> Option<Arc<str>> {
        self.missing.get(job_type).filter(|(then, _)| *then == revision).map(|(_, why)| Arc::clone(why))
    }

    /// Remembers that the type was waited for in vain.
    pub(super) fn is_missing(&mut self, job_type: &str, revision: u64, why: Arc<str>) {
        if self.missing.len() >= MISSING_MAX {
            self.missing.clear();
        }
        self.missing.insert(job_type.to_owned(), (revision, why));
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
                    return (job_type, Ok(digest));
                }
                if Instant::now() >= deadline {
                    let why = nothing_serves(&job_type, store.types_served().await.unwrap_or_default());
                    return (job_type, Err(why.into()));
                }
                tokio::time::sleep(LOOK_PERIOD).await;
            }
        }));
    }

    /// The next job whose wait is over, and the code that serves it now. Cancel-safe.
    pub(super) async fn next(&mut self) -> (Reserved, Resolved) {
        loop {
            if let Some(next) = self.resolved.pop() {
                return next;
            }
            match self.lookups.next().await {
                Some((job_type, resolved)) => {
                    let jobs = self.jobs.remove(&job_type).unwrap_or_default();
                    self.resolved.extend(jobs.into_iter().rev().map(|job| (job, resolved.clone())));
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

/// Why a job of a type is rejected: the types that are served tell a misspelt one apart from one that is not published.
fn nothing_serves(job_type: &str, mut served: Vec<String>) -> String {
    served.sort_unstable();
    let n_more = served.len().saturating_sub(NAMED_MAX);
    served.truncate(NAMED_MAX);
    let served = match (served.as_slice(), n_more) {
        ([], _) => "nothing is published".to_owned(),
        (served, 0) => format!("served are: {}", visible(&served.join(", "))),
        (served, n_more) => format!("served are: {}, and {n_more} more", visible(&served.join(", "))),
    };
    format!("no jumpscript serves the type `{}`; {served}", visible(job_type))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_for_a_type_that_nothing_serves_is_told_those_that_are() {
        let served = |n: usize| (0..n).map(|n| format!("t{n:02}")).collect();
        assert_eq!(
            nothing_serves("x\u{1b}", served(0)),
            "no jumpscript serves the type `x\\u{1b}`; nothing is published"
        );
        assert_eq!(nothing_serves("x", served(2)), "no jumpscript serves the type `x`; served are: t00, t01");
        assert!(nothing_serves("x", served(23)).ends_with("t19, and 3 more"));
    }
}
