//! Dead jobs: lists, and what is done with one or with all of them.

use wasmhost::job::{JobId, NewJob};
use wasmhost::store::Filter;

use super::{dead, ids, json, many_dead, run};
use crate::engine::{Bench, dlq, end, job, take, take_one};

#[tokio::test]
async fn dead_jobs_are_listed_by_queue_type_error_and_time() {
    let mut bench = Bench::new().await;
    let row = |id: &str, job_type: &'static str, error: &'static str| (id.to_owned(), job_type, error);
    dead(&mut bench, "mail", &[row("a", "send", "Connection refused"), row("b", "read", "no luck")]).await;
    dead(&mut bench, "bulk", &[row("c", "send", "connection reset")]).await;
    let listed = |words: &[&str]| {
        let all: Vec<&str> = ["dlq", "ls"].iter().chain(words).copied().collect();
        let mut found = ids(&json(&bench, &all));
        found.sort();
        found
    };
    assert_eq!(listed(&[]), ["a", "b", "c"]);
    assert_eq!(listed(&["--queue", "mail"]), ["a", "b"]);
    assert_eq!(listed(&["--type", "send"]), ["a", "c"]);
    assert_eq!(listed(&["--error", "CONNECTION"]), ["a", "c"]);
    assert_eq!(listed(&["--error", "connection", "--queue", "bulk"]), ["c"]);
    // `a` and `c` died at 1800000000, `b` a second later.
    assert_eq!(listed(&["--since", "1800000001"]), ["b"]);
    assert_eq!(listed(&["--until", "1800000001"]), ["a", "c"]);
    assert_eq!(listed(&["--until", "1h"]), Vec::<String>::new());
    let text = run(&bench, &["dlq", "ls", "--queue", "mail"]).ok();
    assert!(text.contains("DIED") && text.contains("Connection refused"), "{text}");
}

#[tokio::test]
async fn a_page_ends_after_a_bounded_number_of_rows_and_says_where_to_go_on() {
    let mut bench = Bench::new().await;
    let mut jobs: Vec<(String, &str, &str)> = (0..7000).map(|n| (format!("{n:05}"), "echo", "no luck")).collect();
    jobs[10].2 = "rare";
    dead(&mut bench, "q", &jobs).await;
    let first = json(&bench, &["dlq", "ls", "--error", "rare"]);
    assert_eq!((first["looked_at"].as_u64(), first["is_full"].as_bool()), (Some(5000), Some(false)));
    assert_eq!(ids(&first), Vec::<String>::new());
    let cursor = first["next_cursor"].as_str().unwrap();
    let said = run(&bench, &["dlq", "ls", "--error", "rare"]).fails(0);
    assert!(said.contains("looked at 5000 jobs") && said.contains(&format!("--cursor {cursor}")), "{said}");
    let second = json(&bench, &["dlq", "ls", "--error", "rare", "--cursor", cursor]);
    assert_eq!((ids(&second), second["looked_at"].as_u64()), (vec!["00010".to_owned()], Some(2000)));
    assert!(second["next_cursor"].is_null());
}

#[tokio::test]
async fn a_forged_cursor_or_one_of_another_filter_is_refused_with_what_to_do() {
    let mut bench = Bench::new().await;
    many_dead(&mut bench, "q", 10).await;
    let page = json(&bench, &["dlq", "ls", "--limit", "3"]);
    let cursor = page["next_cursor"].as_str().unwrap();
    assert_eq!(ids(&json(&bench, &["dlq", "ls", "--limit", "3", "--cursor", cursor])), ["00006", "00005", "00004"]);
    let forged = cursor.replacen('3', "9", 1);
    for wrong in [forged.as_str(), "", "x", "dlq.0.q", "../../etc\u{1b}[2J"] {
        let said = run(&bench, &["dlq", "ls", "--cursor", wrong]).fails(2);
        assert!(said.contains("is no cursor of this list") && said.contains("hint: give the one"), "{said}");
        assert!(!said.contains('\u{1b}'), "{said}");
    }
    let other = run(&bench, &["dlq", "ls", "--error", "x", "--cursor", cursor]).fails(2);
    assert!(other.contains("with the same filters"), "{other}");
}

#[tokio::test]
async fn limits_that_make_no_sense_are_refused() {
    let bench = Bench::new().await;
    for limit in ["0", "-1", "1001", "99999999999999999999", "many"] {
        for list in ["dlq", "jobs"] {
            let flag = format!("--limit={limit}");
            let said = run(&bench, &[list, "ls", &flag]).fails(2);
            assert!(said.contains(limit), "{said}");
        }
    }
    assert!(run(&bench, &["dlq", "ls", "--since", "soon"]).fails(2).contains("2h"));
    assert!(run(&bench, &["dlq", "ls", "--since", "1h", "--until", "2h"]).fails(2).contains("no job can fit"));
}

#[tokio::test]
async fn an_unknown_queue_is_told_with_the_nearest_one() {
    let mut bench = Bench::new().await;
    many_dead(&mut bench, "mail", 1).await;
    for words in [
        &["dlq", "ls", "--queue", "mial"][..],
        &["dlq", "requeue", "--queue", "mial", "--all"],
        &["dlq", "drop", "--queue", "mial", "--all"],
        &["dlq", "export", "--queue", "mial"],
        &["queues", "purge", "mial", "--yes"],
    ] {
        let said = run(&bench, words).fails(1);
        assert!(said.contains("there is no queue `mial`") && said.contains("did you mean `mail`?"), "{said}");
    }
}

#[tokio::test]
async fn all_that_fit_are_requeued_and_the_others_stay_in_their_order() {
    let mut bench = Bench::new().await;
    many_dead(&mut bench, "q", 1500).await;
    let words = ["dlq", "requeue", "--queue", "q", "--error", "time out", "--reset"];
    let said = run(&bench, &words).fails(2);
    assert!(said.contains("--all") && said.contains("--dry-run"), "{said}");
    let dry: Vec<&str> = words.iter().copied().chain(["--all", "--dry-run"]).collect();
    assert!(run(&bench, &dry).ok().contains("500 dead jobs of queue q would be requeued"));
    assert_eq!(bench.field("00000", "status").await, "dlq");
    let all: Vec<&str> = words.iter().copied().chain(["--all"]).collect();
    assert_eq!(run(&bench, &all).ok(), "500 dead jobs of queue q requeued\n");
    let (ready, left) = (bench.key("q", "ready"), bench.key("q", "dlq"));
    let ready: Vec<String> = bench.raw(&["LRANGE", &ready, "0", "-1"]).await;
    assert_eq!(ready, (0..1500).step_by(3).map(|n| format!("{n:05}")).collect::<Vec<_>>());
    let left: Vec<String> = bench.raw(&["LRANGE", &left, "0", "-1"]).await;
    assert_eq!(left, (0..1500).filter(|n| n % 3 != 0).map(|n| format!("{n:05}")).collect::<Vec<_>>());
    assert_eq!(
        (bench.field("00003", "attempts").await, bench.field("00003", "last_error").await),
        ("0".into(), "".into())
    );
    assert_eq!(json(&bench, &all)["requeued"], 0, "there is none left");
    bench.check().await;
}

#[tokio::test]
async fn a_walk_that_is_left_half_way_has_lost_nothing_and_a_second_one_does_the_rest() {
    let mut bench = Bench::new().await;
    many_dead(&mut bench, "q", 1200).await;
    let mut walk = bench.store.walk_dead("q", Filter::default()).await.unwrap();
    let first = walk.next().await.unwrap().unwrap();
    assert_eq!(first.len(), 500, "a batch is bounded");
    bench.store.requeue_found("q", &first, None, false).await.unwrap();
    drop(walk);
    bench.check().await;
    assert_eq!(json(&bench, &["dlq", "requeue", "--queue", "q", "--all"])["requeued"], 700);
    bench.check().await;
}

/// Else a command would chase jobs that fail again at once, for ever.
#[tokio::test]
async fn a_job_that_dies_again_meanwhile_is_not_brought_back_twice() {
    let mut bench = Bench::new().await;
    many_dead(&mut bench, "q", 600).await;
    let mut walk = bench.store.walk_dead("q", Filter::default()).await.unwrap();
    let mut n_requeued = 0;
    while let Some(found) = walk.next().await.unwrap() {
        bench.store.requeue_found("q", &found, None, true).await.unwrap();
        walk.removed(found.len());
        n_requeued += found.len();
        assert!(n_requeued <= 600, "it goes round in circles");
        while let jobs = take(&bench.store, "q", 200).await
            && !jobs.is_empty()
        {
            for held in jobs {
                end(&bench.store, &held, dlq(1, "again")).await;
            }
        }
    }
    assert_eq!(n_requeued, 600);
    bench.check().await;
}

#[tokio::test]
async fn named_jobs_are_changed_also_when_others_cannot_be() {
    let mut bench = Bench::new().await;
    many_dead(&mut bench, "q", 3).await;
    bench.store.enqueue(&[job("alive", "q")]).await.unwrap();
    assert!(run(&bench, &["dlq", "requeue", "00000", "--dry-run"]).ok().contains("would be requeued"));
    let ended = run(&bench, &["dlq", "requeue", "nobody", "00001", "alive"]);
    assert!(ended.stdout.contains("00001 requeued"), "{ended:?}");
    let said = ended.fails(1);
    assert!(said.contains("there is no job `nobody`"), "{said}");
    assert!(said.contains("job `alive` is not dead: it is `ready`"), "{said}");
    assert_eq!(
        (bench.field("00000", "status").await, bench.field("00001", "status").await),
        ("dlq".into(), "ready".into())
    );
    assert!(run(&bench, &["dlq", "show", "alive"]).fails(1).contains("is not dead"));
    assert!(run(&bench, &["dlq", "show", "00000"]).ok().contains("Time Out"));
    let both = run(&bench, &["dlq", "drop", "00000", "--queue", "q", "--all"]).fails(2);
    assert!(both.contains("cannot be used with"), "{both}");
    assert!(run(&bench, &["dlq", "drop"]).fails(2).contains("no job was named"));
    assert!(run(&bench, &["dlq", "drop", "--all"]).fails(2).contains("--queue"));
    assert!(run(&bench, &["dlq", "drop", "--error", "x"]).fails(2).contains("no queue was named"));
    bench.check().await;
}

#[tokio::test]
async fn a_dropped_job_is_gone_and_its_idempotency_key_is_free() {
    let mut bench = Bench::new().await;
    let keyed = |id: &str| NewJob { idempotency_key: Some("k".to_owned()), ..job(id, "q") };
    bench.store.enqueue(&[keyed("a")]).await.unwrap();
    let held = take_one(&bench.store, "q").await;
    end(&bench.store, &held, dlq(1, "no use")).await;
    assert!(run(&bench, &["dlq", "drop", "a", "--dry-run"]).ok().contains("would be dropped"));
    assert_eq!(run(&bench, &["dlq", "drop", "a"]).ok(), "a dropped\n");
    assert!(bench.store.job(&JobId::from("a")).await.unwrap().is_none());
    assert!(bench.store.enqueue(&[keyed("b")]).await.unwrap()[0].is_new);
    many_dead(&mut bench, "q", 700).await;
    assert_eq!(json(&bench, &["dlq", "drop", "--queue", "q", "--error", "luck", "--all"])["dropped"], 466);
    assert_eq!(json(&bench, &["queues", "show", "q"])["dlq"], 234);
    assert_eq!(json(&bench, &["queues", "show", "q"])["totals"]["purged"], 467);
    bench.check().await;
}
