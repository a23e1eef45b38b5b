//! Several hosts at one list: who watches it, what that costs, and what happens when that host is gone.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use redis::AsyncCommands as _;

use super::{PATIENCE, World};
use crate::support::redis::wait_until;

impl World {
    /// Who watches each list.
    async fn watchers(&self) -> BTreeMap<String, String> {
        let watchers: BTreeMap<String, String> =
            self.raw.clone().hgetall(format!("{}:watchers", self.prefix)).await.unwrap();
        let lists = watchers.into_iter().filter(|(name, _)| name.starts_with("hero:"));
        lists.map(|(list, who)| (list, who.split(' ').nth(1).unwrap().to_owned())).collect()
    }
}

#[tokio::test]
async fn one_host_watches_a_list_and_leaves_it_to_another_when_it_stops() {
    let mut world = World::new(&["osis"]).await;
    world.publish();
    let first = world.host(&["--node", "first"]);
    let watched = async |node: &str| {
        wait_until(&format!("{node} watches all lists"), PATIENCE, async || {
            let watchers = world.watchers().await;
            (watchers.len() == 4 && watchers.values().all(|who| who.ends_with(node))).then_some(())
        })
        .await;
    };
    watched("@first").await;
    let _second = world.host(&["--node", "second"]);
    assert!(world.watchers().await.values().all(|who| who.ends_with("@first")));
    assert_eq!(first.stop(), 0);
    watched("@second").await;
    world.push("osis", "late", "late", &[]).await;
    assert_eq!(world.answer("late").await.as_deref(), Ok("LATE"));
}

#[tokio::test]
async fn a_push_after_the_watching_host_was_killed_is_taken_by_another() {
    let mut world = World::new(&["osis"]).await;
    world.publish();
    let first = world.host(&["--node", "first"]);
    let _second = world.host(&["--node", "second"]);
    first.signal("KILL");
    let pushed = Instant::now();
    world.push("osis", "orphan", "orphan", &[]).await;
    assert_eq!(world.answer("orphan").await.as_deref(), Ok("ORPHAN"));
    assert!(pushed.elapsed() < Duration::from_secs(10), "{:?}", pushed.elapsed());
}

/// Four lists are watched; what Redis receives for them is counted over some seconds.
#[tokio::test]
async fn an_idle_protocol_costs_at_most_a_command_a_second() {
    const SECONDS: u64 = 5;
    let world = World::new(&["osis"]).await;
    world.publish();
    let _host = world.host(&[]);
    let four_peek = async || {
        let clients = world.redis_cli("CLIENT LIST");
        // Four lists of the protocol, and five queues of ours.
        (clients.lines().filter(|line| line.contains("cmd=blmove")).count() == 9).then_some(())
    };
    wait_until("all lists are watched", PATIENCE, four_peek).await;
    let client = redis::Client::open(world.redis.url()).unwrap();
    let mut monitor = client.get_async_monitor().await.unwrap().into_on_message::<String>();
    let mut received = Vec::new();
    let over = tokio::time::sleep(Duration::from_secs(SECONDS));
    tokio::pin!(over);
    loop {
        tokio::select! {
            () = &mut over => break,
            Some(line) = monitor.next() => {
                if line.contains("hero:q:") && !line.contains(" lua] ") {
                    received.push(line);
                }
            }
        }
    }
    assert!(!received.is_empty() && received.len() as u64 <= SECONDS, "{}\n{}", received.len(), received.join("\n"));
}

#[tokio::test]
async fn a_backlog_that_lies_there_at_the_start_is_run() {
    let mut world = World::new(&["osis"]).await;
    world.publish();
    let mut pipeline = redis::pipe();
    for n in 0..1000 {
        pipeline.hset_multiple(
            format!("hero:job:j{n}"),
            &[("script", format!("n{n}")), ("status", "dispatched".to_owned())],
        );
        pipeline.lpush("hero:q:work:type:osis", format!("j{n}"));
    }
    pipeline.query_async::<()>(&mut world.raw).await.unwrap();
    let _host = world.host(&[]);
    for n in 0..1000 {
        assert_eq!(world.answer(&format!("j{n}")).await, Ok(format!("N{n}")));
    }
    let length: u64 = world.raw.llen("hero:q:work:type:osis").await.unwrap();
    assert_eq!(length, 0);
}
