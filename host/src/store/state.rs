//! Reading the state of jumpscripts. It is written with the end of an attempt (`turn`, `lua/effects.lua`).
//!
//! Invariant: every read is bounded: named fields of one hash, or one step through its keys.

use redis::Value;

use super::script::{self, Call, Reply};
use super::{Error, Store};
use crate::effects::Bucket;
use crate::ports::{BoxFuture, State, StatePage, StateValues};

/// Keys of one page, about.
const PAGE: u32 = 50;

impl Store {
    /// The values of some keys of a bucket, in their order.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the bucket's key is not a hash.
    pub async fn state_values(&self, bucket: &Bucket, keys: &[String]) -> Result<StateValues, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.bucket(bucket)).arg(keys);
        let values = self.link.command("reading state", &command).await?;
        let mut reply = Reply::new(values, self.address(), "reading state");
        let mut found = Vec::with_capacity(keys.len());
        for _ in keys {
            found.push(match reply.next()? {
                Value::Nil => None,
                Value::BulkString(value) => Some(value),
                other => return Err(reply.odd(&format!("{other:?}"))),
            });
        }
        Ok(found)
    }

    /// Some keys of a bucket, from a cursor on; 0 begins.
    ///
    /// # Errors
    /// As [`Store::state_values`].
    pub async fn state_keys(&self, bucket: &Bucket, cursor: u64) -> Result<StatePage, Error> {
        let mut call = Call::of_key(&script::BUCKET_KEYS, &self.keys, self.at, self.keys.bucket(bucket));
        call.arg(cursor).arg(PAGE);
        let mut reply = self.send("listing state", &script::BUCKET_KEYS, &call).await?;
        let version = match reply.next()? {
            Value::BulkString(version) => Some(version),
            _ => None,
        };
        let next = reply.text()?.parse().map_err(|_| reply.odd("no cursor"))?;
        let mut listed = reply.nested()?;
        let mut keys = Vec::with_capacity(listed.len());
        while !listed.is_empty() {
            keys.push(listed.text()?);
        }
        Ok(StatePage { keys, next, version })
    }
}

impl State for Store {
    fn values(&self, bucket: Bucket, keys: Vec<String>) -> BoxFuture<'static, Result<StateValues, String>> {
        let store = self.clone();
        Box::pin(async move { store.state_values(&bucket, &keys).await.map_err(|error| for_authors(&error)) })
    }

    fn keys(&self, bucket: Bucket, cursor: u64) -> BoxFuture<'static, Result<StatePage, String>> {
        let store = self.clone();
        Box::pin(async move { store.state_keys(&bucket, cursor).await.map_err(|error| for_authors(&error)) })
    }
}

/// An error without addresses: what a jumpscript is told ends up in results and logs.
fn for_authors(error: &Error) -> String {
    tracing::warn!(%error, "state of a jumpscript not read");
    if error.is_transient() {
        "the state cannot be read now: Redis does not answer; trying again may help".to_owned()
    } else {
        "the state cannot be read: Redis refuses it, the host's log says why".to_owned()
    }
}
