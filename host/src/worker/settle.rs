//! From an outcome to the transition that ends the attempt: the only code that does.
//!
//! Invariant: a lost lease settles nothing. Whoever holds the job now ends it.

use std::time::Duration;

use super::crowd::Crowd;
use super::held::Held;
use crate::effects::Effects;
use crate::outcome::{Outcome, Usage};
use crate::retry::{self, RetryPolicy, RetryWish};
use crate::store::{End, Settle};

/// Longest error text kept in a job's row, in bytes.
pub const ERROR_BYTES_MAX: usize = 8 * 1024;
/// Longest log tail kept in a job's row, in bytes.
pub const LOG_BYTES_MAX: usize = 16 * 1024;

/// What rows of ended jobs live for, and when failed jobs run again.
#[derive(Clone, Copy, Debug)]
pub struct SettlePolicy {
    /// Time to live of a done job's row, result included.
    pub done_ttl: Duration,
    /// When failed jobs run again.
    pub retry: RetryPolicy,
}

/// The transition that an outcome asks for; `None` when nothing may be written. The job decides about its retries, then
/// the `manifest` of the code it ran, then the host. What comes back at a time of our choice counts in the `crowd`.
#[must_use]
pub(super) fn settle(
    policy: &SettlePolicy,
    held: &Held,
    manifest: RetryWish,
    crowd: &mut Crowd,
    outcome: Outcome,
    usage: &Usage,
    effects: Effects,
) -> Option<Settle> {
    let wish = held.retry.or(manifest);
    let failures = held.attempts.saturating_add(1);
    let error = cut(outcome.error_text(), ERROR_BYTES_MAX);
    let kind = outcome.kind();
    let mut again = |after: Option<Duration>| {
        if failures >= wish.executions() {
            return End::Dlq { attempts: failures, error: error.clone(), kind, reason: error.clone() };
        }
        let after = after.unwrap_or_else(|| wish.over(policy.retry).delay(failures, crowd.failed(), retry::chance()));
        End::Retry { attempts: failures, error: error.clone(), kind, after }
    };
    let effects = match &outcome {
        Outcome::Done { .. } => effects,
        // Of those that were stopped, one that came to its end when it was asked to has some.
        Outcome::Retry { .. } | Outcome::Cancelled => effects.of_retry(),
        // How it ended may rest on state that has changed: then it ends in another way.
        Outcome::Failed { .. }
        | Outcome::Rejected { .. }
        | Outcome::TimedOut { .. }
        | Outcome::Trapped { .. }
        | Outcome::OutOfMemory { .. } => effects.of_failure(),
        Outcome::Conflict | Outcome::LeaseLost => Effects::none(),
    };
    let end = match outcome {
        Outcome::Done { result } => {
            crowd.done();
            End::Done { result, ttl: policy.done_ttl }
        }
        Outcome::Retry { after, .. } => again(after),
        Outcome::Failed { .. } | Outcome::TimedOut { .. } | Outcome::Trapped { .. } | Outcome::OutOfMemory { .. } => {
            again(None)
        }
        Outcome::Rejected { .. } => End::Dlq { attempts: failures, error: error.clone(), kind, reason: error },
        // Stopped from outside before it ended (a drain): somebody else runs it, and nothing counts against it.
        Outcome::Cancelled | Outcome::Conflict => End::Release,
        Outcome::LeaseLost => return None,
    };
    let mut fields = usage_fields(usage);
    if let Some(digest) = held.digest.filter(|_| held.is_late) {
        fields.push(("digest", digest.to_string().into_bytes()));
    }
    if let (End::Retry { .. }, None, Some(n)) = (&end, held.retry.max_attempts, manifest.max_attempts) {
        // The sweeps, which know no manifest, count deliveries against it.
        fields.push(("max_attempts", n.to_string().into_bytes()));
    }
    Some(Settle {
        id: held.id.clone(),
        queue: held.queue.clone(),
        token: held.token.clone(),
        end,
        fields,
        effects,
        digest: held.digest,
    })
}

/// What the attempt used, as fields of the row. A job that used nothing worth telling adds none: each field costs
/// Redis memory in every row.
fn usage_fields(usage: &Usage) -> Vec<(&'static str, Vec<u8>)> {
    let mut fields = Vec::new();
    if usage.wall_us > 0 {
        let text = format!("{} {} {}", usage.wall_us, usage.cpu_us, usage.memory_bytes_peak);
        fields.push(("usage", text.into_bytes()));
    }
    if !usage.log_tail.is_empty() {
        let mut tail = cut_front(&usage.log_tail, LOG_BYTES_MAX).to_owned();
        if usage.is_log_cut || tail.len() < usage.log_tail.len() {
            tail.insert_str(0, "[… cut …]\n");
        }
        fields.push(("log", tail.into_bytes()));
    }
    fields
}

/// At most `bytes_max` of the beginning, cut between characters.
fn cut(mut text: String, bytes_max: usize) -> String {
    if text.len() > bytes_max {
        text.truncate(text.floor_char_boundary(bytes_max));
        text.push('…');
    }
    text
}

/// At most `bytes_max` of the end, cut between characters.
fn cut_front(text: &str, bytes_max: usize) -> &str {
    &text[text.ceil_char_boundary(text.len().saturating_sub(bytes_max))..]
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::job::JobId;

    fn nobody() -> Crowd {
        Crowd::new(Instant::now())
    }

    fn held(attempts: u32, max_attempts: u32) -> Held {
        let retry = RetryWish { max_attempts: Some(max_attempts), ..RetryWish::default() };
        Held::for_tests(JobId::from("j"), attempts, retry)
    }

    fn end(attempts: u32, max_attempts: u32, outcome: Outcome) -> Option<End> {
        let policy = SettlePolicy { done_ttl: Duration::from_secs(1), retry: RetryPolicy::default() };
        settle(
            &policy,
            &held(attempts, max_attempts),
            RetryWish::default(),
            &mut nobody(),
            outcome,
            &Usage::default(),
            Effects::none(),
        )
        .map(|settle| settle.end)
    }

    #[test]
    fn the_last_allowed_failure_goes_to_the_dlq() {
        let failed = || Outcome::Failed { message: "no".into() };
        assert!(matches!(end(0, 3, failed()), Some(End::Retry { attempts: 1, .. })));
        assert!(matches!(end(1, 3, failed()), Some(End::Retry { attempts: 2, .. })));
        assert!(matches!(end(2, 3, failed()), Some(End::Dlq { attempts: 3, .. })));
    }

    #[test]
    fn the_job_decides_about_its_retries_then_the_manifest_then_the_host() {
        let policy = SettlePolicy { done_ttl: Duration::from_secs(1), retry: RetryPolicy::default() };
        let ends = |job: RetryWish, manifest: RetryWish, attempts: u32| {
            let held = Held::for_tests(JobId::from("j"), attempts, job);
            let outcome = Outcome::Failed { message: "no".into() };
            settle(&policy, &held, manifest, &mut nobody(), outcome, &Usage::default(), Effects::none()).unwrap()
        };
        let most = |n: u32| RetryWish { max_attempts: Some(n), ..RetryWish::default() };
        assert!(matches!(ends(most(2), most(9), 1).end, End::Dlq { attempts: 2, .. }));
        assert!(matches!(ends(RetryWish::default(), most(9), 7).end, End::Retry { attempts: 8, .. }));
        assert!(matches!(ends(RetryWish::default(), most(9), 8).end, End::Dlq { attempts: 9, .. }));
        assert!(matches!(ends(RetryWish::default(), RetryWish::default(), 4).end, End::Dlq { attempts: 5, .. }));
        let cap = |ms: u64| RetryWish { cap: Some(Duration::from_millis(ms)), ..RetryWish::default() };
        for (job, manifest, most_ms) in [(cap(1), cap(600_000), 1), (RetryWish::default(), cap(3), 3)] {
            for _ in 0..20 {
                let End::Retry { after, .. } = ends(job, manifest, 3).end else { panic!("it runs again") };
                assert!(after <= Duration::from_millis(most_ms), "{after:?}");
            }
        }
    }

    #[test]
    fn a_manifests_number_of_attempts_is_written_where_the_sweeps_find_it() {
        let policy = SettlePolicy { done_ttl: Duration::from_secs(1), retry: RetryPolicy::default() };
        let manifest = RetryWish { max_attempts: Some(9), ..RetryWish::default() };
        let fields = |job: RetryWish| {
            let held = Held::for_tests(JobId::from("j"), 0, job);
            let outcome = Outcome::Failed { message: "no".into() };
            settle(&policy, &held, manifest, &mut nobody(), outcome, &Usage::default(), Effects::none()).unwrap().fields
        };
        assert_eq!(fields(RetryWish::default()), [("max_attempts", b"9".to_vec())]);
        assert_eq!(fields(RetryWish { max_attempts: Some(4), ..RetryWish::default() }), []);
    }

    #[test]
    fn only_what_comes_back_at_a_time_of_our_choice_is_a_crowd() {
        let policy = SettlePolicy { done_ttl: Duration::from_secs(1), retry: RetryPolicy::default() };
        let spread_after = |attempts, outcome: &dyn Fn() -> Outcome| {
            let mut crowd = nobody();
            for _ in 0..1000 {
                let held = held(attempts, 3);
                let _ = settle(
                    &policy,
                    &held,
                    RetryWish::default(),
                    &mut crowd,
                    outcome(),
                    &Usage::default(),
                    Effects::none(),
                );
            }
            crowd.failed()
        };
        let failed = || Outcome::Failed { message: "no".into() };
        let asked = || Outcome::Retry { after: Some(Duration::from_secs(1)), reason: "busy".into() };
        assert!(spread_after(0, &failed) > Duration::from_secs(40));
        assert_eq!(spread_after(2, &failed), Duration::ZERO, "its last attempt");
        assert_eq!(spread_after(0, &asked), Duration::ZERO);
        assert_eq!(spread_after(0, &|| Outcome::Rejected { reason: "no".into() }), Duration::ZERO);
        assert_eq!(spread_after(0, &|| Outcome::Cancelled), Duration::ZERO);
    }

    #[test]
    fn a_rejected_job_is_never_run_again() {
        assert!(matches!(end(0, 9, Outcome::Rejected { reason: "no".into() }), Some(End::Dlq { .. })));
    }

    #[test]
    fn the_guest_chooses_when_it_is_retried() {
        let after = Some(Duration::from_secs(77));
        let retry = end(0, 3, Outcome::Retry { after, reason: "busy".into() });
        assert!(matches!(retry, Some(End::Retry { after, .. }) if after == Duration::from_secs(77)));
    }

    #[test]
    fn a_lost_lease_writes_nothing_and_a_stopped_attempt_counts_nothing() {
        assert!(end(0, 3, Outcome::LeaseLost).is_none());
        assert!(matches!(end(0, 3, Outcome::Cancelled), Some(End::Release)));
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("ää".into(), 3), "ä…");
        assert_eq!(cut_front("ää", 3), "ä");
    }
}
