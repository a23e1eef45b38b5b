//! What people set for a queue: pause, concurrency, limits by key, capacity. It holds for the whole fleet at once.

use std::time::Duration;

use super::script::{self, Lanes, Reply};
use super::{Act, Error, Store};
use crate::clock::Timestamp;

/// What a full queue does with a new job.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFull {
    /// The producer is told, and nothing is written.
    #[default]
    Refuse,
    /// The oldest job of `ready` is cancelled.
    DropOldest,
}

impl OnFull {
    /// The word in Redis and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refuse => "refuse",
            Self::DropOldest => "drop_oldest",
        }
    }
}

/// The settings of one queue. Nothing set means no limit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueSettings {
    /// Since when nothing is handed out; what runs goes on.
    pub paused_since: Option<Timestamp>,
    /// Most jobs in flight in the whole fleet.
    pub concurrency: Option<u32>,
    /// Most jobs of one limit key in flight in the whole fleet.
    pub key_concurrency: Option<u32>,
    /// Starts of one limit key in a time: so many may begin at once, then they keep their distance.
    pub key_rate: Option<(u32, Duration)>,
    /// Jobs of one limit key run one at a time and in order, failed ones included: a retry goes before the next.
    pub is_key_order_strict: bool,
    /// Most jobs that may wait (ready, parked and scheduled).
    pub capacity: Option<u64>,
    /// What happens with one more.
    pub on_full: OnFull,
}

/// A change: `None` leaves a setting as it is, `Some(None)` unsets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueueChange {
    /// Pause or resume.
    pub paused: Option<bool>,
    /// As [`QueueSettings::concurrency`].
    pub concurrency: Option<Option<u32>>,
    /// As [`QueueSettings::key_concurrency`].
    pub key_concurrency: Option<Option<u32>>,
    /// As [`QueueSettings::key_rate`].
    pub key_rate: Option<Option<(u32, Duration)>>,
    /// As [`QueueSettings::is_key_order_strict`].
    pub is_key_order_strict: Option<bool>,
    /// As [`QueueSettings::capacity`].
    pub capacity: Option<Option<u64>>,
    /// As [`QueueSettings::on_full`].
    pub on_full: Option<OnFull>,
}

impl QueueChange {
    /// What the audit stream calls it.
    const fn act(&self) -> Act {
        match self.paused {
            Some(true) => Act::Paused,
            Some(false) => Act::Resumed,
            None => Act::QueueSet,
        }
    }

    /// The fields to write, and their texts; an empty text unsets.
    fn fields(&self) -> Vec<(&'static str, String)> {
        let mut fields = Vec::new();
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        if let Some(is_paused) = self.paused {
            let since = if is_paused { Timestamp::now().nanos().to_string() } else { String::new() };
            fields.push(("paused", since));
        }
        if let Some(n) = self.concurrency {
            fields.push(("concurrency", number(n.map(u64::from))));
        }
        if let Some(n) = self.key_concurrency {
            fields.push(("key_concurrency", number(n.map(u64::from))));
        }
        if let Some(rate) = self.key_rate {
            fields.push(("key_rate", number(rate.map(|(n, _)| u64::from(n)))));
            let ms = rate.map(|(_, period)| u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1));
            fields.push(("key_rate_ms", number(ms)));
        }
        if let Some(is_strict) = self.is_key_order_strict {
            fields.push(("key_order", if is_strict { "strict".to_owned() } else { String::new() }));
            fields.push(("key_concurrency", if is_strict { "1".to_owned() } else { String::new() }));
        }
        if let Some(n) = self.capacity {
            fields.push(("capacity", number(n)));
        }
        if let Some(on_full) = self.on_full {
            fields.push(("on_full", on_full.as_str().to_owned()));
        }
        fields
    }
}

/// The settings as a script answers them: name and value of each.
pub(super) fn read(mut reply: Reply) -> Result<QueueSettings, Error> {
    let mut settings = QueueSettings::default();
    let (mut rate, mut rate_ms) = (None, 1000);
    while !reply.is_empty() {
        let (name, value) = (reply.text()?, reply.text()?);
        let count = || value.parse::<u32>().ok().filter(|n| *n > 0);
        match name.as_str() {
            "paused" => settings.paused_since = Some(Timestamp::from_nanos(value.parse().unwrap_or(0))),
            "concurrency" => settings.concurrency = count(),
            "key_concurrency" => settings.key_concurrency = count(),
            "key_rate" => rate = count(),
            "key_rate_ms" => rate_ms = value.parse().unwrap_or(1000),
            "key_order" => settings.is_key_order_strict = value == "strict",
            "capacity" => settings.capacity = value.parse().ok(),
            "on_full" if value == OnFull::DropOldest.as_str() => settings.on_full = OnFull::DropOldest,
            _ => {}
        }
    }
    settings.key_rate = rate.map(|n| (n, Duration::from_millis(rate_ms)));
    Ok(settings)
}

impl Store {
    /// What is set for a queue.
    ///
    /// # Errors
    /// When the name breaks the rules, a key is of the wrong type, or Redis cannot be reached.
    pub async fn queue_settings(&self, queue: &str) -> Result<QueueSettings, Error> {
        self.set_queue(queue, &QueueChange::default()).await
    }

    /// Changes what is set for a queue, for all hosts and at once, and answers what is set now.
    ///
    /// # Errors
    /// As [`Store::queue_settings`].
    pub async fn set_queue(&self, queue: &str, change: &QueueChange) -> Result<QueueSettings, Error> {
        crate::job::check_name("queue", queue).map_err(Error::Refused)?;
        let mut lanes = Lanes::default();
        lanes.place(queue);
        let mut call = self.call(&script::SET_QUEUE, &lanes, &[]);
        let fields = change.fields();
        self.sign(&mut call);
        call.arg(change.act().as_str()).arg(fields.len());
        for (name, value) in fields {
            call.arg(name).arg(value);
        }
        read(self.send("the settings of a queue", &script::SET_QUEUE, &call).await?)
    }
}
