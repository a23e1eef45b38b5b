//! Dead jobs that are brought back.

use wasmhost::job::JobId;
use wasmhost::store::{Lost, OfDead, Settled};

use super::{Bench, dlq, done, end, job, moment, take, take_one};

/// A bench with one dead job, `a` in queue `q`.
async fn with_a_dead_job() -> (Bench, JobId) {
    let bench = Bench::new().await;
    bench.at(0).enqueue(&[job("a", "q")]).await.unwrap();
    let reserved = take_one(&bench.at(0), "q").await;
    end(&bench.at(1), &reserved, dlq(3, "no use")).await;
    (bench, reserved.id)
}

#[tokio::test]
async fn a_dead_job_runs_again_and_keeps_its_history() {
    let (mut bench, id) = with_a_dead_job().await;
    assert_eq!(bench.at(2).requeue("q", &id, None, false).await.unwrap(), OfDead::Applied);
    bench.check().await;
    assert_eq!(bench.field("a", "dlq_reason").await, "");
    let again = take_one(&bench.at(3), "q").await;
    assert_eq!((again.attempts, again.deliveries), (3, 1), "its hand-outs begin anew");
    end(&bench.at(4), &again, done("")).await;
    assert_eq!(bench.at(5).requeue("q", &id, None, false).await.unwrap(), OfDead::NotDead);
    bench.check().await;
}

#[tokio::test]
async fn a_reset_forgets_the_failed_attempts() {
    let (mut bench, id) = with_a_dead_job().await;
    bench.at(2).requeue("q", &id, None, true).await.unwrap();
    assert_eq!(take_one(&bench.at(3), "q").await.attempts, 0);
    assert_eq!(bench.field("a", "last_error").await, "");
}

#[tokio::test]
async fn a_requeue_for_later_waits() {
    let (mut bench, id) = with_a_dead_job().await;
    bench.at(2).requeue("q", &id, Some(moment(5_000)), false).await.unwrap();
    bench.check().await;
    assert!(take(&bench.at(4_999), "q", 1).await.is_empty());
    assert_eq!(take(&bench.at(5_000), "q", 1).await.len(), 1);
}

#[tokio::test]
async fn only_a_dead_job_of_that_queue_is_brought_back() {
    let (mut bench, id) = with_a_dead_job().await;
    let other = bench.store.requeue("other", &id, None, false).await.unwrap();
    assert_eq!(other, OfDead::OtherQueue("q".to_owned()));
    let nobody = bench.store.requeue("q", &JobId::from("nobody"), None, false).await.unwrap();
    assert_eq!(nobody, OfDead::NotFound);
    assert!(bench.store.job(&JobId::from("nobody")).await.unwrap().is_none());
    assert_eq!(bench.field("a", "status").await, "dlq");
    bench.check().await;
}

#[tokio::test]
async fn an_empty_token_has_not_ended_a_requeued_job() {
    let (mut bench, id) = with_a_dead_job().await;
    bench.at(2).requeue("q", &id, None, false).await.unwrap();
    let mut stranger = take_one(&bench.at(3), "q").await;
    stranger.token.clear();
    assert_eq!(end(&bench.at(4), &stranger, done("")).await, Settled::LeaseLost(Lost::Mismatch));
    bench.check().await;
}

/// Whether it is dead is looked at before whose it is.
#[tokio::test]
async fn a_living_job_of_another_queue_is_told_to_be_alive() {
    let bench = Bench::new().await;
    bench.store.enqueue(&[job("a", "q")]).await.unwrap();
    assert_eq!(bench.store.requeue("other", &JobId::from("a"), None, false).await.unwrap(), OfDead::NotDead);
}
