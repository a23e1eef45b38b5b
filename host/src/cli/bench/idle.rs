//! What a host of its own does, with every service and nothing to do.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use super::drain::{Bench, per_s};
use super::machine::{cpu_of, pss_mb_of};
use crate::cli::Failure;

/// Queues of the idle host.
pub(super) const QUEUES: usize = 10;

/// What a host does that has nothing to do.
#[derive(Debug, Serialize)]
pub(super) struct Idle {
    #[serde(rename = "idle_commands_per_s")]
    pub(super) commands_per_s: f64,
    #[serde(rename = "idle_cpu_percent")]
    pub(super) cpu_percent: f64,
    pub(super) pss_mb: f64,
}

impl Bench {
    /// Starts a host of its own and waits for the line with `word`, which it gives back.
    pub(super) async fn host(
        &self,
        data: &Path,
        prefix: &str,
        arguments: impl IntoIterator<Item = String>,
        word: &str,
    ) -> Result<(Child, String), Failure> {
        let mut host = tokio::process::Command::new("/proc/self/exe")
            .args(["run", "--redis", &self.url, "--prefix", prefix, "--node-prefix", &format!("{prefix}-"), "--data"])
            .arg(data)
            .args(arguments)
            .args(["--log-format", "json"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = host.stderr.take().ok_or_else(|| Failure::new("the host has no stderr"))?;
        let mut lines = BufReader::new(stderr).lines();
        let mut said = String::new();
        while !said.contains(word) {
            let Some(line) = lines.next_line().await? else {
                return Err(Failure::new(format!("the host did not start: {said}")));
            };
            said = line;
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((host, said))
    }

    /// A host of its own with every service, and nothing to do.
    pub(super) async fn idle(&self, data: &Path, seconds: u64) -> Result<Idle, Failure> {
        let queues = (0..QUEUES).flat_map(|n| ["--queue".to_owned(), format!("idle-{n}")]);
        let (mut host, _) = self.host(&data.join("idle"), "idle", queues, "host ready").await?;
        let pid = host.id().ok_or_else(|| Failure::new("the idle host has ended"))?;
        // Connections, first checks and first heartbeats belong to the start, not to idling.
        tokio::time::sleep(Duration::from_secs(2)).await;
        let period = Duration::from_secs(seconds.max(10));
        let before = cpu_of(pid);
        let commands = self.store.count_commands(period).await?;
        let cpu = cpu_of(pid).saturating_sub(before);
        let pss_mb = pss_mb_of(pid);
        rustix::process::kill_process(pid_of(pid)?, rustix::process::Signal::TERM)
            .map_err(|error| Failure::new(format!("the idle host cannot be stopped: {error}")))?;
        host.wait().await?;
        Ok(Idle {
            commands_per_s: per_s(commands, period),
            cpu_percent: cpu.as_secs_f64() / period.as_secs_f64() * 100.0,
            pss_mb,
        })
    }
}

fn pid_of(pid: u32) -> Result<rustix::process::Pid, Failure> {
    let raw = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    raw.ok_or_else(|| Failure::new("the idle host has ended"))
}
