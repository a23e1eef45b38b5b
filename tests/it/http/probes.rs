//! `/healthz`, `/readyz` and `/metrics`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use wasmhost::job::NewJob;
use wasmhost::metrics::METRICS;

use super::{PATIENCE, World, start};
use crate::support::client::Request;
use crate::support::program::Invocation;
use crate::support::redis::{RedisServer, wait_until};

/// The value of a sample.
fn sample(text: &str, series: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?.parse().ok()
}

#[tokio::test]
async fn a_host_that_takes_jobs_lives_and_is_ready() {
    let world = World::with(&[]).await;
    assert_eq!(Request::get("/healthz").send(world.http).ok(200)["alive"], true);
    let ready = Request::get("/readyz").send(world.http).ok(200);
    assert_eq!((&ready["ready"], ready["reasons"].as_array().unwrap().len()), (&true.into(), 0), "{ready}");
    let head = Request::new("HEAD", "/healthz").send(world.http);
    assert_eq!((head.status, head.body.len()), (200, 0));
}

/// A27: every page answers within two seconds, and no text has the password of the URL.
#[tokio::test]
async fn without_redis_the_process_lives_is_not_ready_and_says_so_in_time() {
    let redis = RedisServer::start_with(&["--requirepass", "s3cret-of-redis"]);
    let url = redis.url().replace("redis://", "redis://:s3cret-of-redis@");
    let (mut host, http) = start(&url, "away", &[]);
    let look = |path: &str| {
        let began = Instant::now();
        let answer = Request::get(path).send(http);
        (answer, began.elapsed())
    };
    assert_eq!(look("/readyz").0.status, 200);
    for silence in ["frozen", "gone"] {
        if silence == "frozen" {
            redis.freeze()
        } else {
            redis.kill()
        }
        // The last word of Redis counts for a quarter of a second.
        let is_noticed = async || (look("/readyz").0.status == 503).then_some(());
        wait_until("the host is not ready", PATIENCE, is_noticed).await;
        for path in ["/readyz", "/v1/queues", "/v1/jobs", "/v1/jobs/x", "/v1/jobs/x/wait", "/v1/jobs/x/logs"] {
            let (answer, took) = look(path);
            assert_eq!(answer.status, 503, "{path} {}", answer.text());
            assert!(took < Duration::from_secs(2), "{silence}: {path} took {took:?}");
            assert!(!answer.text().contains("s3cret"), "{}", answer.text());
            assert!(answer.text().contains("Redis"), "{path}: {}", answer.text());
        }
        let submitted = Request::post("/v1/jobs", r#"{"type":"x"}"#).send(http);
        submitted.problem(503);
        assert_eq!(submitted.header("retry-after"), Some("1"));
        assert_eq!(look("/healthz").0.status, 200);
        let (metrics, took) = look("/metrics");
        assert_eq!(sample(&metrics.text(), "wasmhost_redis_up"), Some(0.0));
        assert!(took < Duration::from_secs(2), "{took:?}");
        if silence == "frozen" {
            redis.thaw();
        }
    }
    redis.restart();
    let ready = async || (look("/readyz").0.status == 200).then_some(());
    wait_until("the host is ready again", PATIENCE, ready).await;
    assert!(!host.said().contains("s3cret"), "{}", host.said());
}

#[tokio::test]
async fn a_host_that_drains_lives_and_is_not_ready() {
    let world = World::new().await;
    let job = world.store.enqueue(&[NewJob::new("default", "end", "long nap")]).await.unwrap().remove(0);
    wait_until("the job runs", PATIENCE, async || {
        let record = world.store.job(&job.id).await.ok()??;
        (record.text("status")? == "inflight").then_some(())
    })
    .await;
    world.host.signal("TERM");
    let reasons = wait_until("the host says that it stops", PATIENCE, async || {
        let answer = Request::get("/readyz").send(world.http);
        (answer.status == 503).then(|| answer.text())
    })
    .await;
    assert!(reasons.contains("about to stop"), "{reasons}");
    assert_eq!(Request::get("/healthz").send(world.http).status, 200);
}

#[tokio::test]
async fn the_metrics_are_those_of_the_table_and_count_what_happened() {
    let world = World::new().await;
    let reject = NewJob { max_attempts: Some(1), ..NewJob::new("default", "end", "reject") };
    let later = NewJob {
        run_at: Some("2100-01-01T00:00:00Z".to_owned()).and_then(|t| wasmhost::clock::parse_timestamp(&t).ok()),
        ..NewJob::new("default", "echo", "")
    };
    let odd = NewJob::new("a\"b\\c", "echo", "");
    world.store.enqueue(&[NewJob::new("default", "echo", "1"), reject, later, odd]).await.unwrap();
    let text = wait_until("both jobs have ended", PATIENCE, async || {
        let text = Request::get("/metrics").send(world.http).text();
        let ended = |outcome: &str| {
            sample(&text, &format!("wasmhost_attempts_total{{queue=\"default\",outcome=\"{outcome}\"}}"))
        };
        // Figures of queues are up to a second old, each queue's by itself.
        let is = |series: &str| sample(&text, series) == Some(1.0);
        let is_told = is("wasmhost_queue_events_total{queue=\"default\",event=\"done\"}")
            && is("wasmhost_queue_jobs{queue=\"default\",state=\"dlq\"}")
            && is("wasmhost_queue_jobs{queue=\"default\",state=\"scheduled\"}")
            && is("wasmhost_queue_jobs{queue=\"a\\\"b\\\\c\",state=\"ready\"}");
        (ended("done") == Some(1.0) && ended("rejected") == Some(1.0) && is_told).then_some(text)
    })
    .await;
    let number = |series: &str| sample(&text, series).unwrap_or_else(|| panic!("no {series} in {text}"));
    assert_eq!(number("wasmhost_queue_jobs{queue=\"default\",state=\"scheduled\"}"), 1.0);
    assert_eq!(number("wasmhost_queue_jobs{queue=\"default\",state=\"dlq\"}"), 1.0);
    assert_eq!(number("wasmhost_queue_jobs{queue=\"a\\\"b\\\\c\",state=\"ready\"}"), 1.0);
    assert!(number("wasmhost_queue_oldest_ready_seconds{queue=\"a\\\"b\\\\c\"}") >= 0.0);
    assert_eq!(number("wasmhost_job_wait_seconds_count{queue=\"default\"}"), 2.0);
    assert_eq!(number("wasmhost_attempt_seconds_bucket{queue=\"default\",le=\"+Inf\"}"), 2.0);
    assert_eq!(number("wasmhost_settled_total{end=\"done\"}"), 1.0);
    assert_eq!(number("wasmhost_settled_total{end=\"dlq\"}"), 1.0);
    assert!(number("process_resident_memory_bytes") > 1e6 && number("process_cpu_seconds_total") > 0.0);
    assert!(number("wasmhost_redis_turn_seconds_count") > 0.0 && number("wasmhost_scripts_revision") >= 2.0);
    let served: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    assert_eq!(served, METRICS.iter().map(|metric| metric.name).collect());
    let answer = Request::get("/metrics").send(world.http);
    assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
}

#[test]
fn an_address_that_others_reach_needs_a_token_and_a_port_in_use_is_named() {
    let text = Invocation::new(["run", "--http", "0.0.0.0:0"]).run().fails(2);
    assert!(text.contains("no token") && text.contains("hint:"), "{text}");
    let text = Invocation::new(["run", "--http", "nowhere"]).run().fails(2);
    assert!(text.contains("ADDRESS:PORT"), "{text}");
    let text = Invocation::new(["run", "--http", "127.0.0.1:0"]).env("WASMHOST_HTTP_TOKEN", "short").run().fails(2);
    assert!(text.contains("5 bytes") && !text.contains("short"), "{text}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = tempfile::tempdir().unwrap();
    let arguments = ["run", "--http", &address, "--data", data.path().to_str().unwrap()];
    let text = Invocation::new(arguments).on(RedisServer::shared().url(), "taken").run().fails(1);
    assert!(text.contains(&address) && text.contains("hint:"), "{text}");
}
