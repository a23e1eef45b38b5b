//! Queues with weights, as a worker asks for them.

use wasmhost::job::NewJob;
use wasmhost::store::{QueueShare, Reserve, Settle};

use super::{Bench, ask, done, job, settle};

/// Two queues, 3:1, both with a backlog, 10,000 jobs: the shares hold within 5 % all along.
#[tokio::test]
async fn a_backlog_is_served_by_weight() {
    let bench = Bench::new().await;
    for queue in ["big", "small"] {
        let jobs: Vec<NewJob> = (0..10_000).map(|n| job(&format!("{queue}{n}"), queue)).collect();
        bench.store.enqueue(&jobs).await.unwrap();
    }
    let share = |queue: &str, take| QueueShare { queue: queue.to_owned(), take };
    let (mut big, mut small) = (0_u32, 0_u32);
    let mut ends: Vec<Settle> = Vec::new();
    while big + small < 10_000 {
        let reserve = Reserve {
            queues: vec![share("big", 75), share("empty", 0), share("small", 25)],
            sweep: false,
            ..ask("", 100)
        };
        let turn = bench.store.turn(&ends, Some(&reserve)).await.unwrap();
        big += turn.reserved.taken_per_queue[0];
        small += turn.reserved.taken_per_queue[2];
        ends = turn.reserved.jobs.iter().map(|job| settle(job, done(""))).collect();
        let share = f64::from(big) / f64::from(big + small);
        assert!((0.7125..=0.7875).contains(&share), "{big}:{small}");
    }
    bench.store.turn(&ends, None).await.unwrap();
}
