//! Measuring a Redis: for `wasmhost bench`, and for tests that count commands.

use std::time::Duration;

use futures_util::StreamExt;

use super::{Error, Store};

impl Store {
    /// CPU time that the server has used since it started.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn server_cpu(&self) -> Result<Duration, Error> {
        let mut command = redis::cmd("INFO");
        command.arg("cpu");
        let info = match self.link.command("the server's CPU time", &command).await? {
            redis::Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            redis::Value::VerbatimString { text, .. } => text,
            _ => String::new(),
        };
        let seconds = |name: &str| {
            let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            value.and_then(|value| value.trim().parse::<f64>().ok()).unwrap_or(0.0)
        };
        Ok(Duration::from_secs_f64(seconds("used_cpu_user") + seconds("used_cpu_sys")))
    }

    /// Switches the append-only file on or off.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses it.
    pub async fn set_append_only(&self, is_on: bool) -> Result<(), Error> {
        let value = if is_on { "yes" } else { "no" };
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg("appendonly").arg(value);
        self.link.command("a change of its configuration", &command).await.map(drop)
    }

    /// Counts the commands that the server receives from anybody during `period`; what scripts call inside does not
    /// count, nor does this call's own.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn count_commands(&self, period: Duration) -> Result<u64, Error> {
        let mut lines = Box::pin(self.link.monitor().await?.into_on_message::<String>());
        let deadline = tokio::time::Instant::now() + period;
        let mut n = 0;
        while let Ok(Some(line)) = tokio::time::timeout_at(deadline, lines.next()).await {
            // `1700000000.123456 [0 lua] "hget" ...` is a call inside a script.
            let is_inside = line.split(']').next().is_some_and(|head| head.ends_with(" lua"));
            n += u64::from(!is_inside);
        }
        Ok(n)
    }
}
