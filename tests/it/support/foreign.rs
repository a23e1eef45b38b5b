//! TaskHarbor's producer, worker and admin, written anew from how they behave on the wire.
//!
//! As theirs: every operation is one EVAL, the time is the caller's, nothing is bounded, a reserve looks at no
//! status, expiries are compared as floating point numbers, and numbers that do not parse read as 0.

use redis::FromRedisValue;
use redis::aio::MultiplexedConnection;
use wasmhost::clock::Timestamp;

/// What every script begins with. KEYS[1] is the prefix; ARGV[1] the caller's time in nanoseconds.
const HEAD: &str = r"
local now = tonumber(ARGV[1])
local function row(id) return KEYS[1] .. ':job:' .. id end
local function lane(queue, part) return KEYS[1] .. ':queue:' .. queue .. ':' .. part end
local function wait(queue, id, seconds, member)
  if member == '' then
    redis.call('RPUSH', lane(queue, 'ready'), id)
  else
    redis.call('ZADD', lane(queue, 'scheduled'), seconds, member)
  end
end
-- 1 the caller holds it, 2 not in flight, 3 another token, 4 too late; and the queue.
local function holder(id, token)
  local is = redis.call('HMGET', row(id), 'status', 'lease_token', 'lease_expires_at_nano', 'queue')
  if is[1] ~= 'inflight' or not is[2] or not is[3] then return 2 end
  if is[2] ~= token then return 3 end
  if tonumber(is[3]) <= now then return 4 end
  return 1, is[4]
end
";

const ENQUEUE: &str = r"
local _, id, queue, idem, seconds, member = unpack(ARGV)
local mark = idem ~= '' and KEYS[1] .. ':idem:' .. queue .. ':' .. idem
local first = mark and redis.call('GET', mark)
if first and first ~= '' then return { first, 1 } end
redis.call('HSET', row(id), 'queue', queue, 'idempotency_key', idem, 'status', member == '' and 'ready' or 'scheduled',
  'lease_token', '', 'lease_expires_at_nano', '0', 'last_error', '', 'failed_at_nano', '0', unpack(ARGV, 7))
wait(queue, id, seconds, member)
if mark then redis.call('SET', mark, id) end
return { id, 0 }
";

const RESERVE: &str = r"
local _, queue, seconds, nanos, now_ms, token, end_ms, end_nano = unpack(ARGV)
local ready, scheduled, inflight = lane(queue, 'ready'), lane(queue, 'scheduled'), lane(queue, 'inflight')
for _, id in ipairs(redis.call('ZRANGEBYSCORE', inflight, 0, now_ms)) do
  redis.call('ZREM', inflight, id)
  if redis.call('HGET', row(id), 'status') == 'inflight' then
    redis.call('HSET', row(id), 'status', 'ready', 'run_at_nano', '0', 'lease_token', '', 'lease_expires_at_nano', '0')
    redis.call('RPUSH', ready, id)
  end
end
for _, entry in ipairs(redis.call('ZRANGEBYSCORE', scheduled, 0, seconds, 'WITHSCORES')) do
  local digits, id = string.match(entry, '^(%d+):(.*)$')
  local score = digits and redis.call('ZSCORE', scheduled, entry)
  if score and (tonumber(score) < tonumber(seconds) or tonumber(digits) <= tonumber(nanos)) then
    redis.call('ZREM', scheduled, entry)
    if redis.call('HGET', row(id), 'status') == 'scheduled' then
      redis.call('HSET', row(id), 'status', 'ready', 'run_at_nano', '0')
      redis.call('RPUSH', ready, id)
    end
  end
end
local id = redis.call('LPOP', ready)
if id then
  redis.call('HSET', row(id), 'status', 'inflight', 'lease_token', token, 'lease_expires_at_nano', end_nano,
    'run_at_nano', '0')
  redis.call('ZADD', inflight, end_ms, id)
  -- For who compares leases: the moment by the server, where the caller's may be long past.
  local time = redis.call('TIME')
  return { id, time[1] * 1000 + math.floor(time[2] / 1000) }
end
return false
";

const EXTEND: &str = r"
local _, id, token, end_nano, end_ms = unpack(ARGV)
local code, queue = holder(id, token)
if code == 1 then
  redis.call('HSET', row(id), 'lease_expires_at_nano', end_nano)
  redis.call('ZADD', lane(queue, 'inflight'), end_ms, id)
end
return code
";

const ACK: &str = r"
local _, id, token = unpack(ARGV)
local code, queue = holder(id, token)
if code == 1 then
  redis.call('HSET', row(id), 'status', 'done', 'lease_token', '', 'lease_expires_at_nano', '0')
  redis.call('RPUSH', lane(queue, 'done'), id)
  redis.call('ZREM', lane(queue, 'inflight'), id)
end
return code
";

const RETRY: &str = r"
local _, id, token, run_at, attempts, text, seconds, member = unpack(ARGV)
local code, queue = holder(id, token)
if code == 1 then
  redis.call('HSET', row(id), 'status', member == '' and 'ready' or 'scheduled', 'run_at_nano', run_at,
    'attempts', attempts, 'last_error', text, 'failed_at_nano', ARGV[1], 'lease_token', '', 'lease_expires_at_nano', '0')
  redis.call('ZREM', lane(queue, 'inflight'), id)
  wait(queue, id, seconds, member)
end
return code
";

const FAIL: &str = r"
local _, id, token, reason = unpack(ARGV)
local code, queue = holder(id, token)
if code == 1 then
  redis.call('HSET', row(id), 'status', 'dlq', 'lease_token', '', 'lease_expires_at_nano', '0', 'dlq_reason', reason,
    'dlq_failed_at_nano', tostring(now))
  redis.call('ZREM', lane(queue, 'inflight'), id)
  redis.call('RPUSH', lane(queue, 'dlq'), id)
end
return code
";

const REQUEUE: &str = r"
local _, id, guard, is_reset = unpack(ARGV)
local is = redis.call('HMGET', row(id), 'status', 'queue')
if redis.call('EXISTS', row(id)) == 0 then return 0 end
if is[1] ~= 'dlq' then return -1 end
if guard ~= '' and guard ~= is[2] then return -2 end
redis.call('LREM', lane(is[2], 'dlq'), 0, id)
redis.call('HSET', row(id), 'status', 'ready', 'run_at_nano', '0', 'dlq_reason', '', 'dlq_failed_at_nano', '0',
  'lease_token', '', 'lease_expires_at_nano', '0')
if is_reset == '1' then
  redis.call('HSET', row(id), 'attempts', '0', 'last_error', '', 'failed_at_nano', '0')
end
wait(is[2], id, 0, '')
return 1
";

/// A program of the TaskHarbor family on one prefix.
#[derive(Clone)]
pub struct TaskHarbor {
    raw: MultiplexedConnection,
    prefix: String,
    /// How far its clock is ahead of the real one.
    pub ahead_ms: i64,
}

/// What its producer is told.
#[derive(Clone, Debug, Default)]
pub struct Order {
    pub id: String,
    pub queue: String,
    pub job_type: String,
    pub payload: String,
    pub run_at: Option<Timestamp>,
    pub timeout_nano: i64,
    pub max_attempts: i64,
    pub idempotency_key: String,
}

/// A job as it reads it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub id: String,
    pub job_type: String,
    pub queue: String,
    pub payload: Vec<u8>,
    pub status: String,
    pub run_at: i64,
    pub timeout: i64,
    pub created_at: i64,
    pub attempts: i64,
    pub max_attempts: i64,
    pub last_error: String,
    pub failed_at: i64,
    pub lease_token: String,
    pub lease_expires_at: i64,
    pub dlq_reason: String,
    pub dlq_failed_at: i64,
}

/// A job that its worker holds.
#[derive(Clone, Debug)]
pub struct Held {
    pub record: Record,
    pub token: String,
    /// By the server's clock.
    pub granted_ms: i64,
    /// By the holder's.
    pub expires_nano: i64,
}

/// Why a holder's call was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    NotInflight,
    Mismatch,
    Expired,
}

impl TaskHarbor {
    pub fn new(raw: MultiplexedConnection, prefix: &str) -> Self {
        Self { raw, prefix: prefix.to_owned(), ahead_ms: 0 }
    }

    /// Its own idea of the time, in nanoseconds.
    pub fn now(&self) -> i64 {
        Timestamp::now().nanos() + self.ahead_ms * 1_000_000
    }

    async fn eval<T: FromRedisValue>(&self, script: &str, now: i64, words: &[&[u8]]) -> T {
        let mut command = redis::cmd("EVAL");
        command.arg(format!("{HEAD}{script}")).arg(1).arg(&self.prefix).arg(now.to_string());
        for word in words {
            command.arg(*word);
        }
        command.query_async(&mut self.raw.clone()).await.unwrap_or_else(|error| panic!("{error}\n{script}"))
    }

    /// Answers the id that stands for the job, and whether it was there.
    pub async fn enqueue(&self, order: &Order) -> (String, bool) {
        let (seconds, member) = place(order.run_at, &order.id);
        let run_at = order.run_at.map_or(0, Timestamp::nanos).to_string();
        let (created, timeout, most) =
            (self.now().to_string(), order.timeout_nano.to_string(), order.max_attempts.to_string());
        let head = [&order.id, &order.queue, order.idempotency_key.trim(), &seconds, &member];
        let fields = [
            ("type", order.job_type.as_str()),
            ("payload", &order.payload),
            ("run_at_nano", &run_at),
            ("timeout_nano", &timeout),
            ("created_at_nano", &created),
            ("attempts", "0"),
            ("max_attempts", &most),
        ];
        let words: Vec<&[u8]> = head
            .into_iter()
            .chain(fields.into_iter().flat_map(|(name, value)| [name, value]))
            .map(str::as_bytes)
            .collect();
        let (id, existed): (String, i64) = self.eval(ENQUEUE, self.now(), &words).await;
        (id, existed == 1)
    }

    /// Takes one job at its own time `now`, for `lease_ms`.
    pub async fn reserve_at(&self, queue: &str, now: i64, lease_ms: i64) -> Option<Held> {
        let token = wasmhost::store::new_token();
        let expires_nano = now + lease_ms * 1_000_000;
        let (second, nanos) = (now.div_euclid(1_000_000_000), now.rem_euclid(1_000_000_000));
        let words = [
            queue,
            &second.to_string(),
            &nanos.to_string(),
            &now.div_euclid(1_000_000).to_string(),
            &token,
            // Rounded up; an extension rounds down.
            &(expires_nano + 999_999).div_euclid(1_000_000).to_string(),
            &expires_nano.to_string(),
        ];
        let taken: Option<(String, i64)> = self.eval(RESERVE, now, &words.map(str::as_bytes)).await;
        let (id, granted_ms) = taken?;
        let record = self.inspect(&id).await.unwrap_or_default();
        Some(Held { record, token, granted_ms, expires_nano })
    }

    pub async fn reserve(&self, queue: &str, lease_ms: i64) -> Option<Held> {
        self.reserve_at(queue, self.now(), lease_ms).await
    }

    pub async fn extend(&self, held: &Held, now: i64, lease_ms: i64) -> Result<i64, Refused> {
        let expires = now + lease_ms * 1_000_000;
        let (nano, ms) = (expires.to_string(), expires.div_euclid(1_000_000).to_string());
        let words = [held.record.id.as_str(), &held.token, &nano, &ms].map(str::as_bytes);
        let code = self.eval(EXTEND, now, &words).await;
        self.answer(code, held, now, false).await.map(|()| expires)
    }

    /// Whether this call ended the job; a job that is done counts as a success, whoever did it.
    pub async fn ack(&self, held: &Held, now: i64) -> Result<bool, Refused> {
        let words = [held.record.id.as_str(), &held.token].map(str::as_bytes);
        let code: i64 = self.eval(ACK, now, &words).await;
        if code == 2 && self.status(held).await == "done" {
            return Ok(false);
        }
        self.answer(code, held, now, true).await.map(|()| true)
    }

    pub async fn retry(&self, held: &Held, now: i64, run_at: Option<Timestamp>) -> Result<(), Refused> {
        let (seconds, member) = place(run_at, &held.record.id);
        let run_at = run_at.map_or(0, Timestamp::nanos).to_string();
        let attempts = (held.record.attempts + 1).to_string();
        let words = [&held.record.id, &held.token, &run_at, &attempts, "handler error: no luck", &seconds, &member];
        let code = self.eval(RETRY, now, &words.map(str::as_bytes)).await;
        self.answer(code, held, now, false).await
    }

    /// As [`TaskHarbor::ack`], for a job that is dead or done.
    pub async fn fail(&self, held: &Held, now: i64, reason: &str) -> Result<bool, Refused> {
        let words = [held.record.id.as_str(), &held.token, reason].map(str::as_bytes);
        let code: i64 = self.eval(FAIL, now, &words).await;
        if code != 1 && matches!(self.status(held).await.as_str(), "dlq" | "done") {
            return Ok(false);
        }
        self.answer(code, held, now, false).await.map(|()| true)
    }

    /// 1 done, 0 no such job, -1 not dead, -2 another queue.
    pub async fn requeue(&self, id: &str, guard: &str, is_reset: bool) -> i64 {
        let words = [id, guard, if is_reset { "1" } else { "0" }].map(str::as_bytes);
        self.eval(REQUEUE, self.now(), &words).await
    }

    async fn status(&self, held: &Held) -> String {
        self.inspect(&held.record.id).await.unwrap_or_default().status
    }

    /// Only an ack is told of a foreign token before it is told of the time.
    async fn answer(&self, code: i64, held: &Held, now: i64, is_ack: bool) -> Result<(), Refused> {
        match code {
            1 => Ok(()),
            3 if is_ack => Err(Refused::Mismatch),
            4 if is_ack => Err(Refused::Expired),
            _ => {
                let row = self.inspect(&held.record.id).await.unwrap_or_default();
                if row.status != "inflight" || row.lease_token.is_empty() {
                    Err(Refused::NotInflight)
                } else if row.lease_expires_at <= now {
                    Err(Refused::Expired)
                } else {
                    Err(Refused::Mismatch)
                }
            }
        }
    }

    /// Everything about a job, read field by field as its program does.
    pub async fn inspect(&self, id: &str) -> Option<Record> {
        let mut command = redis::cmd("HGETALL");
        command.arg(format!("{}:job:{id}", self.prefix));
        let fields: Vec<(String, Vec<u8>)> = command.query_async(&mut self.raw.clone()).await.expect("a hash");
        if fields.is_empty() {
            return None;
        }
        let bytes = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone());
        let text = |name: &str| String::from_utf8_lossy(&bytes(name).unwrap_or_default()).into_owned();
        let number = |name: &str| text(name).parse::<i64>().unwrap_or(0);
        let mut record = Record {
            id: id.to_owned(),
            job_type: text("type"),
            queue: text("queue"),
            payload: bytes("payload").unwrap_or_default(),
            status: text("status"),
            run_at: number("run_at_nano"),
            timeout: number("timeout_nano"),
            created_at: number("created_at_nano"),
            attempts: number("attempts"),
            max_attempts: number("max_attempts"),
            last_error: text("last_error"),
            failed_at: number("failed_at_nano"),
            lease_token: text("lease_token"),
            lease_expires_at: number("lease_expires_at_nano"),
            dlq_reason: text("dlq_reason"),
            dlq_failed_at: number("dlq_failed_at_nano"),
        };
        if record.status == "dlq" && record.dlq_failed_at == 0 {
            record.dlq_failed_at = record.failed_at;
        }
        Some(record)
    }

    /// A page of a queue's jobs in one state (`ready`, `scheduled`, `inflight`, `dlq`, `done`), by creation and id,
    /// after the last one of the page before; and whether there is more.
    pub async fn list(
        &self,
        queue: &str,
        state: &str,
        limit: usize,
        after: Option<(i64, &str)>,
    ) -> (Vec<Record>, bool) {
        let now = self.now();
        let cap = (10 * limit).clamp(200, 2000) - 1;
        // What is due counts as ready, whatever its structure.
        let parts: &[&str] = if state == "ready" { &["ready", "scheduled"] } else { &[state] };
        let mut found = Vec::new();
        for part in parts {
            let command = if matches!(*part, "scheduled" | "inflight") { "ZRANGE" } else { "LRANGE" };
            let key = format!("{}:queue:{queue}:{part}", self.prefix);
            let mut command = redis::cmd(command);
            let ids: Vec<String> =
                command.arg(key).arg(0).arg(cap).query_async(&mut self.raw.clone()).await.expect("a page");
            for id in ids {
                let id = if *part == "scheduled" { id.split_once(':').map_or("", |(_, id)| id) } else { &id };
                let Some(record) = self.inspect(id).await else { continue };
                let is = match record.status.as_str() {
                    known @ ("inflight" | "dlq" | "done") => known,
                    _ if record.run_at <= now => "ready",
                    _ => "scheduled",
                };
                if is == state && !found.contains(&record) {
                    found.push(record);
                }
            }
        }
        found.sort_by(|a, b| (a.created_at, &a.id).cmp(&(b.created_at, &b.id)));
        found.retain(|record| after.is_none_or(|last| (record.created_at, record.id.as_str()) > last));
        let is_more = found.len() > limit;
        found.truncate(limit);
        (found, is_more)
    }
}

/// Where a job waits: seconds, and the member of `scheduled`; an empty member means `ready`.
fn place(run_at: Option<Timestamp>, id: &str) -> (String, String) {
    run_at.map_or_else(
        || ("0".to_owned(), String::new()),
        |at| (at.seconds().to_string(), format!("{:09}:{id}", at.nanos_in_second())),
    )
}
