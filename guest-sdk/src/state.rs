//! State that outlives the job: values by key, in buckets.
//!
//! ```
//! use serde::{Deserialize, Serialize};
//! use wasmhost_guest::{Job, JobError, state};
//!
//! #[derive(Default, Serialize, Deserialize)]
//! struct Seen {
//!     times: u32,
//! }
//!
//! fn run(job: Job<String>) -> Result<u64, JobError> {
//!     let visitors = state::open("visitors")?;
//!     let mut seen: Seen = visitors.get(&job.args)?.unwrap_or_default();
//!     seen.times += 1;
//!     visitors.set(&job.args, &seen)?;
//!     Ok(visitors.increment("total", 1)?)
//! }
//! # assert_eq!(run(Job::test("eve".to_owned())).unwrap(), 1);
//! # assert_eq!(run(Job::test("eve".to_owned())).unwrap(), 2);
//! # assert_eq!(state::open("visitors").unwrap().get::<Seen>("eve").unwrap().unwrap().times, 2);
//! ```
//!
//! [`own`] is the job's own bucket: it needs no permission and lives 2 hours after the last write. Every other bucket
//! belongs to the jumpscript's organization, and the manifest requests it:
//!
//! ```toml
//! [permissions]
//! state = ["visitors", "rates:ro"]
//! ```
//!
//! A bucket lives until its last key is removed, or so long after the last write as the manifest says:
//!
//! ```toml
//! [state."visitors"]
//! expires = "7d"
//! ```
//!
//! **One attempt is one transaction.** What it writes commits together with its result, or not at all; it reads its own
//! writes. If anything that it has read is changed by another job before it ends, the job runs again in a fresh instance,
//! without counting the attempt. So there are no locks, and no update is lost. An attempt that ends with
//! [`JobError::retry`](crate::JobError::retry) keeps what it wrote to the job's own bucket, for the next attempt.
//!
//! Values are JSON; [`Bucket::get_raw`] and [`Bucket::set_raw`] take bytes as they are. A key has at most 256 bytes, a
//! value 256 KiB; one attempt writes at most 256 keys and reads at most 1,024, each 1 MiB together.
//!
//! On another target than Wasm the buckets lie in the memory of the thread, and every write is kept at once: a test of a
//! job function sees what it stored. [`clear`] empties them.

use std::fmt;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Why an operation failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The manifest does not request the bucket, requests it read-only, or it is not granted.
    Denied {
        /// The bucket.
        bucket: String,
    },
    /// A value is not JSON of the type that was asked for, or cannot be written as JSON.
    Value {
        /// Its key.
        key: String,
        /// What does not fit, and where.
        reason: String,
    },
    /// A limit, or Redis did not answer: in the host's words.
    Other(String),
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied { bucket } => write!(
                f,
                "bucket `{bucket}` denied: request it with state = [\"{bucket}\"] under [permissions] in jumpscript.toml, \
                 and have it granted; the job's log says which of both is missing"
            ),
            Self::Value { key, reason } => write!(f, "the value of key `{key}` does not fit: {reason}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl std::error::Error for Error {}

/// Opens the job's own bucket.
///
/// # Errors
/// [`Error::Other`] when the host has none to give.
pub fn own() -> Result<Bucket, Error> {
    open("")
}

/// Opens a bucket of the jumpscript's organization. Costs nothing: Redis is asked when a value is.
///
/// # Errors
/// [`Error::Denied`] when it is not permitted.
pub fn open(name: &str) -> Result<Bucket, Error> {
    inner::open(name)
}

/// An open bucket.
#[derive(Debug)]
pub struct Bucket {
    name: String,
    #[cfg(target_family = "wasm")]
    inner: crate::contract::wasi::keyvalue::store::Bucket,
}

impl Bucket {
    /// Its name; empty for the job's own.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value of a key; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::Value`] when it is not JSON of this type; [`Error::Other`].
    pub fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Error> {
        self.get_raw(key)?.map(|bytes| read(key, &bytes)).transpose()
    }

    /// The values of several keys, in their order, in one round trip.
    ///
    /// # Errors
    /// As [`Bucket::get`].
    pub fn get_many<T: DeserializeOwned>(&self, keys: &[&str]) -> Result<Vec<Option<T>>, Error> {
        let values = inner::get_many(self, keys)?.into_iter().zip(keys);
        values.map(|(bytes, key)| bytes.map(|bytes| read(key, &bytes)).transpose()).collect()
    }

    /// Sets a value.
    ///
    /// # Errors
    /// [`Error::Denied`] when the bucket may only be read; [`Error::Other`] for a limit.
    pub fn set<T: Serialize + ?Sized>(&self, key: &str, value: &T) -> Result<(), Error> {
        self.set_raw(key, write(key, value)?)
    }

    /// The bytes of a key, as they are.
    ///
    /// # Errors
    /// [`Error::Other`] when Redis does not answer, or for a limit.
    pub fn get_raw(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        inner::get(self, key)
    }

    /// Sets bytes as they are.
    ///
    /// # Errors
    /// As [`Bucket::set`].
    pub fn set_raw(&self, key: &str, value: impl Into<Vec<u8>>) -> Result<(), Error> {
        inner::set(self, key, value.into())
    }

    /// Removes a key; one that is not there is no error.
    ///
    /// # Errors
    /// As [`Bucket::set`].
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        inner::delete(self, key)
    }

    /// Adds to a number and returns the sum; a key without a value counts as 0. Jobs that add to one key at the same time
    /// run again one by one.
    ///
    /// # Errors
    /// [`Error::Other`] when the value is not a number of decimal digits, or the sum is over 2^64 - 1.
    pub fn increment(&self, key: &str, delta: u64) -> Result<u64, Error> {
        inner::increment(self, key, delta)
    }

    /// Compares and swaps: sets `new` if the value is `expected` (`None`: there is none), else changes nothing and
    /// returns `false`. `None` for `new` removes the key.
    ///
    /// # Errors
    /// As [`Bucket::get`] and [`Bucket::set`].
    pub fn cas<T: Serialize>(&self, key: &str, expected: Option<&T>, new: Option<&T>) -> Result<bool, Error> {
        let expected = expected.map(|value| write(key, value)).transpose()?;
        if self.get_raw(key)? != expected {
            return Ok(false);
        }
        match new {
            Some(value) => self.set(key, value)?,
            None => self.delete(key)?,
        }
        Ok(true)
    }

    /// All keys, in no particular order. Large buckets take a round trip for some dozens of keys.
    ///
    /// # Errors
    /// [`Error::Other`] when Redis does not answer.
    pub fn keys(&self) -> Result<Vec<String>, Error> {
        let mut keys = inner::keys(self)?;
        keys.sort_unstable();
        keys.dedup();
        Ok(keys)
    }
}

fn read<T: DeserializeOwned>(key: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Value { key: key.to_owned(), reason: error.to_string() })
}

fn write<T: Serialize + ?Sized>(key: &str, value: &T) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Value { key: key.to_owned(), reason: error.to_string() })
}

/// Empties the buckets of this thread, for the next test.
#[cfg(not(target_family = "wasm"))]
pub fn clear() {
    inner::clear();
}

#[cfg(target_family = "wasm")]
mod inner {
    use super::{Bucket, Error};
    use crate::contract::wasi::keyvalue::{atomics, batch, store};

    fn explained(name: &str) -> impl Fn(store::Error) -> Error {
        move |error| match error {
            store::Error::AccessDenied => Error::Denied { bucket: name.to_owned() },
            store::Error::NoSuchStore => Error::Other(format!("there is no bucket `{name}`")),
            store::Error::Other(text) => Error::Other(text),
        }
    }

    pub(super) fn open(name: &str) -> Result<Bucket, Error> {
        let inner = store::open(name).map_err(explained(name))?;
        Ok(Bucket { name: name.to_owned(), inner })
    }

    pub(super) fn get(bucket: &Bucket, key: &str) -> Result<Option<Vec<u8>>, Error> {
        bucket.inner.get(key).map_err(explained(&bucket.name))
    }

    pub(super) fn get_many(bucket: &Bucket, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        let keys: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        let pairs = batch::get_many(&bucket.inner, &keys).map_err(explained(&bucket.name))?;
        Ok(pairs.into_iter().map(|pair| pair.map(|(_, value)| value)).collect())
    }

    pub(super) fn set(bucket: &Bucket, key: &str, value: Vec<u8>) -> Result<(), Error> {
        bucket.inner.set(key, &value).map_err(explained(&bucket.name))
    }

    pub(super) fn delete(bucket: &Bucket, key: &str) -> Result<(), Error> {
        bucket.inner.delete(key).map_err(explained(&bucket.name))
    }

    pub(super) fn increment(bucket: &Bucket, key: &str, delta: u64) -> Result<u64, Error> {
        atomics::increment(&bucket.inner, key, delta).map_err(explained(&bucket.name))
    }

    pub(super) fn keys(bucket: &Bucket) -> Result<Vec<String>, Error> {
        let (mut keys, mut cursor) = (Vec::new(), None);
        loop {
            let page = bucket.inner.list_keys(cursor).map_err(explained(&bucket.name))?;
            keys.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(keys);
            }
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod inner {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::{Bucket, Error};

    type Values = BTreeMap<String, Vec<u8>>;

    thread_local! {
        static BUCKETS: RefCell<BTreeMap<String, Values>> = const { RefCell::new(BTreeMap::new()) };
    }

    /// Calls a function with the values of a bucket.
    fn with<R>(bucket: &Bucket, call: impl FnOnce(&mut Values) -> R) -> R {
        let name = if bucket.name == "job" { "" } else { &bucket.name };
        BUCKETS.with_borrow_mut(|buckets| call(buckets.entry(name.to_owned()).or_default()))
    }

    pub(super) fn clear() {
        BUCKETS.take();
    }

    #[expect(clippy::unnecessary_wraps, reason = "a host may refuse; memory does not")]
    pub(super) fn open(name: &str) -> Result<Bucket, Error> {
        Ok(Bucket { name: name.to_owned() })
    }

    fn check(key: &str, value: &[u8]) -> Result<(), Error> {
        if key.is_empty() || key.len() > 256 {
            return Err(Error::Other(format!("a key in a bucket has 1 to 256 bytes, this one has {}", key.len())));
        }
        if value.len() > 256 * 1024 {
            return Err(Error::Other(format!("the value of key `{key}` has {} bytes, at most 262144", value.len())));
        }
        Ok(())
    }

    pub(super) fn get(bucket: &Bucket, key: &str) -> Result<Option<Vec<u8>>, Error> {
        check(key, &[])?;
        Ok(with(bucket, |values| values.get(key).cloned()))
    }

    pub(super) fn get_many(bucket: &Bucket, keys: &[&str]) -> Result<Vec<Option<Vec<u8>>>, Error> {
        keys.iter().map(|key| get(bucket, key)).collect()
    }

    pub(super) fn set(bucket: &Bucket, key: &str, value: Vec<u8>) -> Result<(), Error> {
        check(key, &value)?;
        with(bucket, |values| values.insert(key.to_owned(), value));
        Ok(())
    }

    pub(super) fn delete(bucket: &Bucket, key: &str) -> Result<(), Error> {
        check(key, &[])?;
        with(bucket, |values| values.remove(key));
        Ok(())
    }

    pub(super) fn increment(bucket: &Bucket, key: &str, delta: u64) -> Result<u64, Error> {
        let number = match get(bucket, key)? {
            None => Some(0),
            Some(text) => std::str::from_utf8(&text).ok().and_then(|text| text.parse::<u64>().ok()),
        };
        let number = number.ok_or_else(|| Error::Other(format!("the value of key `{key}` is not a number")))?;
        let sum = number.checked_add(delta).ok_or_else(|| Error::Other(format!("key `{key}` goes over 2^64 - 1")))?;
        set(bucket, key, sum.to_string().into_bytes())?;
        Ok(sum)
    }

    #[expect(clippy::unnecessary_wraps, reason = "a host may refuse; memory does not")]
    pub(super) fn keys(bucket: &Bucket) -> Result<Vec<String>, Error> {
        Ok(with(bucket, |values| values.keys().cloned().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_function_stores_is_seen_by_its_test() {
        let bucket = open("orders").unwrap();
        assert_eq!(bucket.get::<u32>("a"), Ok(None));
        bucket.set("a", &7).unwrap();
        assert_eq!(open("orders").unwrap().get("a"), Ok(Some(7)));
        assert_eq!(own().unwrap().get::<u32>("a"), Ok(None), "another bucket");
        assert_eq!(bucket.get_many::<u32>(&["b", "a"]), Ok(vec![None, Some(7)]));
        assert_eq!(bucket.keys().unwrap(), ["a"]);
        bucket.delete("a").unwrap();
        assert_eq!(bucket.get::<u32>("a"), Ok(None));
    }

    #[test]
    fn a_swap_needs_the_value_that_was_expected() {
        let bucket = own().unwrap();
        assert_eq!(bucket.cas("k", None, Some(&"x")), Ok(true));
        assert_eq!(bucket.cas("k", None, Some(&"y")), Ok(false));
        assert_eq!(bucket.cas("k", Some(&"x"), Some(&"z")), Ok(true));
        assert_eq!(bucket.cas("k", Some(&"z"), None), Ok(true));
        assert_eq!(bucket.keys().unwrap(), [""; 0]);
    }

    #[test]
    fn what_is_not_a_number_or_not_the_type_is_told() {
        let bucket = own().unwrap();
        bucket.set("word", "ten").unwrap();
        assert!(bucket.increment("word", 1).unwrap_err().to_string().contains("not a number"));
        assert!(bucket.get::<u32>("word").unwrap_err().to_string().contains("invalid type: string"));
        assert_eq!(bucket.increment("n", 2), Ok(2));
        assert_eq!(bucket.increment("n", 3), Ok(5));
        clear();
        assert_eq!(bucket.get_raw("n"), Ok(None));
    }
}
