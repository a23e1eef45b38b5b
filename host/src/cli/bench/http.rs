//! What submitting over HTTP does: a host of its own on loopback, and clients that keep their connections.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use serde_json::json;

use super::drain::{BULK, Bench, TYPE, median, per_s, us_per};
use super::machine::{Busy, cpu_of};
use crate::cli::{Failure, print};

/// Where the figures go, from the workspace's root.
pub(super) const FIGURES: &str = "target/bench/http.json";
/// Clients that send in bulk side by side.
const CLIENTS: u64 = 4;
/// Single jobs whose latency is measured, one after the other; as many before them warm up.
const SINGLES: usize = 2_000;

/// What is written to [`FIGURES`]. Units are in the names.
#[derive(Debug, Serialize)]
pub(super) struct HttpFigures {
    pub(super) bulk_jobs_per_s: f64,
    pub(super) bulk_jobs_per_s_4_clients: f64,
    pub(super) bulk_host_us_per_job: f64,
    pub(super) single_ms_p50: f64,
    pub(super) single_ms_p99: f64,
    pub(super) jobs: u64,
    pub(super) rounds: u32,
    pub(super) others_cores: f64,
}

impl Bench {
    /// Bulk by one client and by several in turn, then single jobs.
    pub(super) async fn http(&self, data: &Path, jobs: u64, rounds: u32) -> Result<HttpFigures, Failure> {
        let (busy, redis_before) = (Busy::start(), self.store.server_cpu().await?);
        let arguments = ["--queue", "other", "--http", "127.0.0.1:0"].map(str::to_owned);
        let (mut host, line) = self.host(&data.join("http"), "http", arguments, "http ready").await?;
        let address = line.split("\"address\":\"").nth(1).and_then(|rest| rest.split('"').next()?.parse().ok());
        let address: SocketAddr = address.ok_or_else(|| Failure::new(format!("no address in `{line}`")))?;
        let pid = host.id().ok_or_else(|| Failure::new("the host has ended"))?;
        print::note(&format!("submitting {jobs} jobs over HTTP, {BULK} a call, {rounds} rounds"));
        bulk(address, 1, BULK * 4).await?;
        let (mut one, mut many, mut host_us) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let cpu_before = cpu_of(pid);
            one.push(per_s(jobs, bulk(address, 1, jobs).await?));
            host_us.push(us_per(jobs, cpu_of(pid).saturating_sub(cpu_before)));
            many.push(per_s(jobs, bulk(address, CLIENTS, jobs).await?));
        }
        let mut single_ms = on_a_thread(move || singles(address)).await?;
        single_ms.sort_by(f64::total_cmp);
        let others_cores = busy.others_cores(self.store.server_cpu().await?.saturating_sub(redis_before) + cpu_of(pid));
        // Its jobs lie in a Redis that ends with the measurement.
        host.kill().await?;
        Ok(HttpFigures {
            bulk_jobs_per_s: median(one),
            bulk_jobs_per_s_4_clients: median(many),
            bulk_host_us_per_job: median(host_us),
            single_ms_p50: single_ms[single_ms.len() / 2],
            single_ms_p99: single_ms[single_ms.len() * 99 / 100],
            jobs,
            rounds,
            others_cores,
        })
    }
}

/// Sends jobs in bulk over so many connections; how long that took.
async fn bulk(address: SocketAddr, clients: u64, jobs: u64) -> Result<Duration, Failure> {
    let began = Instant::now();
    let sending: Vec<_> = (0..clients)
        .map(|_| {
            on_a_thread(move || {
                let request = request(&json!({ "jobs": vec![job(); BULK.try_into().unwrap_or(1)] }));
                let mut stream = connect(address)?;
                (0..(jobs / clients).div_ceil(BULK)).try_for_each(|_| exchange(&mut stream, &request))
            })
        })
        .collect();
    for sent in futures_util::future::join_all(sending).await {
        sent?;
    }
    Ok(began.elapsed())
}

/// Milliseconds of single jobs, one after the other.
fn singles(address: SocketAddr) -> Result<Vec<f64>, Failure> {
    let (mut stream, request) = (connect(address)?, request(&job()));
    let mut ms = Vec::with_capacity(SINGLES);
    for n in 0..2 * SINGLES {
        let began = Instant::now();
        exchange(&mut stream, &request)?;
        if n >= SINGLES {
            ms.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    Ok(ms)
}

fn job() -> serde_json::Value {
    json!({ "queue": "submitted", "type": TYPE, "payload": { "customer": 4711, "what": "a payload of some size" } })
}

async fn on_a_thread<T: Send + 'static>(
    run: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(run).await.map_err(|error| Failure::new(format!("a client failed: {error}")))?
}

fn connect(address: SocketAddr) -> Result<TcpStream, Failure> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    Ok(stream)
}

fn request(body: &serde_json::Value) -> Vec<u8> {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Sends a request and reads its answer, which must be 201.
fn exchange(stream: &mut TcpStream, request: &[u8]) -> Result<(), Failure> {
    stream.write_all(request)?;
    let (mut answer, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let n = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..n]);
        let text = String::from_utf8_lossy(&answer);
        if n == 0 {
            return Err(Failure::new(format!("the server closed the connection: {text}")));
        }
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
        if length.is_some_and(|length| body.len() >= length) {
            return match head.starts_with("HTTP/1.1 201") {
                true => Ok(()),
                false => Err(Failure::new(format!("the server refuses: {body}"))),
            };
        }
    }
}
