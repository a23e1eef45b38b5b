//! Dead jobs in files.

use std::collections::BTreeMap;

use wasmhost::job::JobId;

use super::{dead, json, many_dead, run};
use crate::engine::{Bench, job};

type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

async fn row(bench: &Bench, id: &str) -> Rows {
    bench.store.row(&JobId::from(id)).await.unwrap().into_iter().collect()
}

#[tokio::test]
async fn what_was_exported_and_dropped_is_imported_byte_for_byte_and_once() {
    let mut bench = Bench::new().await;
    many_dead(&mut bench, "q", 40).await;
    let every: Vec<u8> = (0..=255).collect();
    let key = bench.job_key("00007");
    let mut set = redis::pipe();
    set.cmd("HSET").arg(&key).arg("payload").arg(&every).arg(&[0xff_u8, 1][..]).arg("odd name");
    bench.pipe(&set).await;
    let mut before = row(&bench, "00007").await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dead.jsonl");
    let name = file.to_str().unwrap();
    assert!(run(&bench, &["dlq", "export", name]).ok().contains("40 dead jobs written to"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing but the file");
    assert!(run(&bench, &["dlq", "export", name]).fails(2).contains("is there already"));
    let on_stdout = run(&bench, &["dlq", "export", "--error", "time out"]).ok();
    assert_eq!(on_stdout.lines().count(), 14);
    assert_eq!(json(&bench, &["dlq", "drop", "--queue", "q", "--all"])["dropped"], 40);
    assert!(row(&bench, "00007").await.is_empty());

    bench.store.enqueue(&[job("00003", "q")]).await.unwrap();
    assert_eq!(run(&bench, &["dlq", "import", name]).ok(), "39 imported, 1 there already\n");
    assert_eq!(bench.field("00003", "status").await, "ready", "a living job is left alone");
    let mut after = row(&bench, "00007").await;
    // Its days in the DLQ begin anew; what a dead job does not hold is written as such.
    for name in ["dlq_failed_at_nano", "lease_token", "lease_expires_at_nano", "run_at_nano"] {
        before.remove(name.as_bytes());
        after.remove(name.as_bytes());
    }
    assert_eq!(after, before);
    assert_eq!(json(&bench, &["dlq", "import", name])["imported"], 0, "importing twice makes no duplicates");
    assert_eq!(json(&bench, &["queues", "show", "q"])["dlq"], 39);
    assert_eq!(json(&bench, &["dlq", "requeue", "--queue", "q", "--all"])["requeued"], 39);
    bench.check().await;
}

#[tokio::test]
async fn a_bad_line_is_refused_with_its_number_and_those_before_it_are_in() {
    let mut bench = Bench::new().await;
    let line = |id: &str, status: &str| {
        format!(
            r#"{{"id":"{id}","queue":"q","fields":{{"type":"echo","queue":"q","payload":"1","status":"{status}"}}}}"#
        )
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("dead.jsonl");
    let good = line("a", "dlq");
    for (bad, why) in
        [("{\"id\":", "no JSON"), (line("b", "ready").as_str(), "must be `dlq`"), ("[1]", "no JSON object")]
    {
        std::fs::write(&file, format!("{good}\n\n{bad}\n{}\n", line("c", "dlq"))).unwrap();
        let ended = run(&bench, &["dlq", "import", file.to_str().unwrap()]);
        assert!(ended.stdout.starts_with("1 imported") || ended.stdout.starts_with("0 imported, 1"), "{ended:?}");
        let said = ended.fails(2);
        assert!(said.contains("line 3 was refused") && said.contains(why) && said.contains("hint: "), "{said}");
    }
    let left: Vec<String> = {
        let key = bench.key("q", "dlq");
        bench.raw(&["LRANGE", &key, "0", "-1"]).await
    };
    assert_eq!(left, ["a"]);
    assert!(row(&bench, "b").await.is_empty());
    bench.check().await;
    assert!(run(&bench, &["dlq", "import", "no-such-file"]).fails(2).contains("no-such-file"));
}

#[tokio::test]
async fn a_full_dlq_takes_no_import_that_would_drop_the_oldest() {
    let mut bench = Bench::new().await;
    let jobs: Vec<(String, &str, &str)> = (0..10_000).map(|n| (format!("{n:05}"), "echo", "x")).collect();
    dead(&mut bench, "q", &jobs).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), r#"{"id":"new","queue":"q","fields":{"type":"t","status":"dlq"}}"#).unwrap();
    let said = run(&bench, &["dlq", "import", file.path().to_str().unwrap()]).fails(1);
    assert!(said.contains("line 1") && said.contains("is full"), "{said}");
    assert!(row(&bench, "new").await.is_empty());
}
