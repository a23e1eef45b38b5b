//! Published jumpscripts from the shell: what was live, going back, removing; and who did what.

use std::path::{Path, PathBuf};

use super::{json, run};
use crate::engine::{Bench, job};
use crate::support::guests;

/// A file with a guest and a manifest of this name and version.
fn file(folder: &Path, name: &str, version: &str) -> PathBuf {
    let place = folder.join(version);
    std::fs::create_dir_all(&place).unwrap();
    let file = place.join(format!("{name}.wasm"));
    std::fs::copy(guests::path("echo"), &file).unwrap();
    let manifest =
        format!("organization = \"acme\"\nname = \"{name}\"\nversion = \"{version}\"\ntypes = [\"{name}-it\"]\n");
    std::fs::write(place.join(format!("{name}.toml")), manifest).unwrap();
    file
}

/// Publishes versions of `acme/resize`, the last one is live.
fn publish(bench: &Bench, folder: &Path, versions: &[&str]) {
    for version in versions {
        run(bench, &["publish", file(folder, "resize", version).to_str().unwrap()]).ok();
    }
}

fn live(bench: &Bench) -> String {
    json(bench, &["scripts", "show", "acme/resize"])["version"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_rollback_makes_an_earlier_version_live_and_stands_in_the_history() {
    let bench = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    let said = run(&bench, &["scripts", "rollback", "acme/resize"]).fails(1);
    assert!(said.contains("acme/resize") && said.contains("never published"), "{said}");
    publish(&bench, folder.path(), &["1.0.0", "1.1.0", "1.2.0"]);
    let said = run(&bench, &["scripts", "rollback", "acme/resize"]).ok();
    assert!(said.contains("rolled back acme/resize to") && said.contains("version 1.1.0"), "{said}");
    assert_eq!(live(&bench), "1.1.0");
    run(&bench, &["scripts", "rollback", "acme/resize", "--to", "1.0"]).ok();
    assert_eq!(live(&bench), "1.0.0");
    let history = json(&bench, &["scripts", "history", "acme/resize"]);
    let told: Vec<_> =
        history["history"].as_array().unwrap().iter().map(|past| (&past["act"], &past["version"])).collect();
    assert_eq!(told.len(), 5);
    assert!(told[0].0 == "rolled-back" && told[0].1 == "1.0.0" && told[4].0 == "published", "{told:?}");
    let digest = history["history"][2]["digest"].as_str().unwrap();
    run(&bench, &["scripts", "rollback", "acme/resize", "--to", &digest[..8]]).ok();
    assert_eq!(live(&bench), "1.2.0");
    let table = run(&bench, &["scripts", "history", "acme/resize"]).ok();
    let marked: Vec<&str> = table.lines().filter(|line| line.ends_with("live")).collect();
    assert!(marked.len() == 1 && marked[0].contains("rolled-back") && marked[0].contains("1.2.0"), "{table}");
    for (to, why) in [("1.2.0", "live already"), ("7.0.0", "no earlier code `7.0.0`"), ("12", "no earlier code")] {
        let said = run(&bench, &["scripts", "rollback", "acme/resize", "--to", to]).fails(1);
        assert!(said.contains(why), "{to}: {said}");
    }
    assert_eq!(live(&bench), "1.2.0", "a refusal changes nothing");
}

#[tokio::test]
async fn a_name_with_jobs_that_wait_is_removed_only_by_force() {
    let bench = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    publish(&bench, folder.path(), &["1.0.0"]);
    let of = |id: &str, job_type: &str| wasmhost::job::NewJob { job_type: job_type.to_owned(), ..job(id, "q") };
    bench.store.enqueue(&[of("a", "acme/resize"), of("b", "resize-it"), of("c", "other")]).await.unwrap();
    let said = run(&bench, &["scripts", "rm", "acme/resize"]).fails(1);
    assert!(said.contains("ready 2") && said.contains("--force"), "{said}");
    assert_eq!(live(&bench), "1.0.0");
    let removed = json(&bench, &["scripts", "rm", "acme/resize", "--force"]);
    assert_eq!(removed["jobs"]["ready"], 2);
    let said = run(&bench, &["scripts", "show", "acme/resize"]).fails(1);
    assert!(said.contains("no jumpscript `acme/resize`"), "{said}");
    let said = run(&bench, &["scripts", "rm", "acme/resize"]).fails(1);
    assert!(said.contains("no jumpscript"), "{said}");
    // Its history is still there.
    run(&bench, &["scripts", "rollback", "acme/resize"]).ok();
    assert_eq!(live(&bench), "1.0.0");
}

#[tokio::test]
async fn a_broken_record_can_be_removed() {
    let mut bench = Bench::new().await;
    let names = bench.store.keys().scripts_by_name();
    bench.raw::<i64>(&["HSET", &names, "acme__resize", "{\"digest\":"]).await;
    run(&bench, &["scripts", "rm", "acme/resize"]).ok();
    assert_eq!(bench.raw::<i64>(&["HLEN", &names]).await, 0);
}

#[tokio::test]
async fn the_audit_names_who_ran_a_command() {
    let bench = Bench::new().await;
    let folder = tempfile::tempdir().unwrap();
    publish(&bench, folder.path(), &["1.0.0", "1.1.0"]);
    run(&bench, &["scripts", "rollback", "acme/resize"]).ok();
    run(&bench, &["queues", "pause", "mail"]).ok();
    let page = json(&bench, &["audit", "ls", "--since", "1h"]);
    let told: Vec<_> = page["entries"].as_array().unwrap().iter().map(|e| e["act"].as_str().unwrap()).collect();
    assert_eq!(told, ["paused", "rolled-back", "published", "published"]);
    let who = page["entries"][0]["who"].as_str().unwrap();
    assert_eq!(who, wasmhost::config::person());
    assert!(who.contains('@'), "{who}");
    let table = run(&bench, &["audit", "ls", "--limit", "1"]);
    assert!(table.stderr.contains("there is more: --cursor"), "{}", table.stderr);
    assert!(table.ok().contains("queue mail"));
    let said = run(&bench, &["audit", "ls", "--cursor", "x"]).fails(2);
    assert!(said.contains("no cursor of the audit stream"), "{said}");
}
