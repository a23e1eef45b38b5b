//! Measuring a Redis: for `wasmhost bench`, and for tests that count commands.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::StreamExt;

use super::link::Script;
use super::script::{self, Lanes, Reply};
use super::{Error, Store};
use crate::job::JobId;
use crate::protocol::Source;

/// Most slow scripts that are remembered.
const SLOW_MAX: u32 = 100_000;
/// Jobs of another system in one call.
const PUSHED_AT_ONCE: usize = 500;
/// The scripts that are told apart.
static NAMED: [(&str, &Script); 9] = [
    ("enqueue", &script::ENQUEUE),
    ("turn", &script::TURN),
    ("extend", &script::EXTEND),
    ("sweep", &script::SWEEP),
    ("list", &script::LIST),
    ("queues", &script::QUEUES),
    ("look", &script::LOOK),
    ("take over", &script::TAKE_OVER),
    ("watch lists", &script::WATCH_LISTS),
];

/// What the server did of one command, called by a client or in a script.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Spent {
    /// How often.
    pub calls: f64,
    /// How long it took in all.
    pub time: Duration,
}

impl Store {
    /// CPU time that the server has used since it started.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn server_cpu(&self) -> Result<Duration, Error> {
        let info = self.info("cpu").await?;
        let seconds = |name: &str| info_value(&info, name).and_then(|value| value.parse::<f64>().ok()).unwrap_or(0.0);
        Ok(Duration::from_secs_f64(seconds("used_cpu_user") + seconds("used_cpu_sys")))
    }

    /// The server's process, which is on this machine only when it is a private one.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn server_pid(&self) -> Result<Option<u32>, Error> {
        let info = self.info("server").await?;
        Ok(info_value(&info, "process_id").and_then(|value| value.parse().ok()))
    }

    /// What the server has done of each command since it started, by its name in small letters.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn command_times(&self) -> Result<BTreeMap<String, Spent>, Error> {
        let info = self.info("commandstats").await?;
        Ok(info.lines().filter_map(command_time).collect())
    }

    /// How many scripts the server has run since it started.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn script_calls(&self) -> Result<u64, Error> {
        let info = self.info("commandstats").await?;
        let calls = info_value(&info, "cmdstat_evalsha").and_then(|figures| figures.strip_prefix("calls="));
        Ok(calls.and_then(|calls| calls.split(',').next()?.parse().ok()).unwrap_or(0))
    }

    /// Bytes that the server has in use.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn used_memory(&self) -> Result<u64, Error> {
        let info = self.info("memory").await?;
        Ok(info_value(&info, "used_memory").and_then(|value| value.parse().ok()).unwrap_or(0))
    }

    /// Pushes jobs to another system's list as its own programs do, each with a record of usual size and an id that no
    /// other has.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn push_foreign(&self, source: &Source, n: u64) -> Result<(), Error> {
        let fields = [
            ("caller_id", "02a1b2c3d4e5f60718293a4b5c6d7e8f90"),
            ("context_id", "circle-1"),
            ("script", "null"),
            ("timeout", "30"),
            ("retries", "0"),
            ("concurrent", "false"),
            ("created_at", "2025-08-14T12:14:34Z"),
            ("status", "dispatched"),
        ];
        for first in (0..n).step_by(PUSHED_AT_ONCE) {
            let mut pipeline = redis::pipe();
            for _ in first..n.min(first + PUSHED_AT_ONCE as u64) {
                let id = JobId::generate().to_string();
                let record = format!("{}{id}", source.record_prefix);
                pipeline.hset_multiple(&record, &fields).lpush(source.list.as_bytes(), id);
            }
            self.link.pipeline("the pushes of jobs", &pipeline).await?;
        }
        Ok(())
    }

    /// Switches the append-only file on or off, and waits until the server has written what it has so far.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses it.
    pub async fn set_append_only(&self, is_on: bool) -> Result<(), Error> {
        self.configure("appendonly", if is_on { "yes" } else { "no" }).await?;
        loop {
            let info = self.info("persistence").await?;
            let is_busy = |name| info_value(&info, name).is_some_and(|value| value != "0");
            if !is_busy("aof_rewrite_in_progress") && !is_busy("aof_rewrite_scheduled") {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Has the server remember scripts that take longer than `us` microseconds; what it remembers so far is forgotten.
    ///
    /// # Errors
    /// When Redis cannot be reached or refuses it.
    pub async fn watch_scripts(&self, us: u64) -> Result<(), Error> {
        self.configure("slowlog-log-slower-than", &us.to_string()).await?;
        self.configure("slowlog-max-len", &SLOW_MAX.to_string()).await?;
        let mut command = redis::cmd("SLOWLOG");
        command.arg("RESET");
        self.link.command("its list of slow commands", &command).await.map(drop)
    }

    /// The scripts since [`Store::watch_scripts`] that were slow, and how long they took; the last 100,000.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn slow_scripts(&self) -> Result<Vec<(String, Duration)>, Error> {
        const WHAT: &str = "its list of slow commands";
        let mut command = redis::cmd("SLOWLOG");
        command.arg("GET").arg(SLOW_MAX);
        let mut entries = Reply::new(self.link.command(WHAT, &command).await?, self.address(), WHAT);
        let mut found = Vec::new();
        while !entries.is_empty() {
            // Number, time, microseconds, words of the command, and who sent it.
            let mut entry = entries.nested()?;
            let (_, _, us, mut words) = (entry.number()?, entry.number()?, entry.number()?, entry.nested()?);
            if words.text()?.eq_ignore_ascii_case("EVALSHA") {
                let hash = words.text()?;
                let name = NAMED.iter().find(|(_, script)| script.get_hash() == hash).map_or("other", |(name, _)| name);
                found.push((name.to_owned(), Duration::from_micros(us.unsigned_abs())));
            }
        }
        Ok(found)
    }

    /// Writes `n` dead jobs into a queue's DLQ, over its cap.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn write_dead(&self, queue: &str, job_type: &str, n: u64) -> Result<(), Error> {
        for first in (0..n).step_by(500) {
            let mut lanes = Lanes::default();
            lanes.place(queue);
            let mut call = self.call(&script::DEAD_ROWS, &lanes, &[]);
            call.arg(first).arg((n - first).min(500)).arg(job_type);
            self.send("dead rows to measure with", &script::DEAD_ROWS, &call).await?;
        }
        Ok(())
    }

    async fn info(&self, section: &str) -> Result<String, Error> {
        let mut command = redis::cmd("INFO");
        command.arg(section);
        Ok(match self.link.command("its own figures", &command).await? {
            redis::Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            redis::Value::VerbatimString { text, .. } => text,
            _ => String::new(),
        })
    }

    async fn configure(&self, name: &str, value: &str) -> Result<(), Error> {
        let mut command = redis::cmd("CONFIG");
        command.arg("SET").arg(name).arg(value);
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

/// A line such as `cmdstat_hset:calls=2,usec=5,usec_per_call=2.50,...`.
fn command_time(line: &str) -> Option<(String, Spent)> {
    let (name, figures) = line.trim().strip_prefix("cmdstat_")?.split_once(':')?;
    let figure = |name: &str| {
        let mut figures = figures.split(',').filter_map(|figure| figure.split_once('='));
        figures.find(|(key, _)| *key == name)?.1.parse::<f64>().ok()
    };
    let spent = Spent { calls: figure("calls")?, time: Duration::from_secs_f64(figure("usec")? / 1e6) };
    Some((name.to_ascii_lowercase(), spent))
}

/// A line of `INFO`.
fn info_value<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_commandstats_is_a_command_its_calls_and_its_time() {
        let line = "cmdstat_hset:calls=4,usec=10,usec_per_call=2.50,rejected_calls=0,failed_calls=0\r";
        let spent = Spent { calls: 4.0, time: Duration::from_micros(10) };
        assert_eq!(command_time(line), Some(("hset".to_owned(), spent)));
        assert_eq!(command_time("cmdstat_script|load:calls=1,usec=2").unwrap().0, "script|load");
        assert_eq!(command_time("# Commandstats"), None);
    }
}
