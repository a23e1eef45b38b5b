//! Values of the node's configuration, by key.
//!
//! ```
//! use wasmhost_guest::{Job, JobError, config};
//!
//! fn run(job: Job<String>) -> Result<String, JobError> {
//!     let url = config::get("api-url")?.unwrap_or_else(|| "https://api.example.com".to_owned());
//!     let most: u32 = config::parsed("limit.pages")?.unwrap_or(10);
//!     Ok(format!("{url}/{}?pages={most}", job.args))
//! }
//! # wasmhost_guest::config::set("limit.pages", "3");
//! # assert_eq!(run(Job::test("rates".to_owned())).unwrap(), "https://api.example.com/rates?pages=3");
//! ```
//!
//! The operator has the values in the configuration of the node, by the name of the jumpscript:
//! `[script_config."acme/mail"]`. The manifest requests the keys:
//!
//! ```toml
//! [permissions]
//! config = ["api-url", "limit.*"]
//! ```
//!
//! What must stay secret is not among them: see [`secrets`](crate::secrets).
//!
//! On another target than Wasm the values lie in the memory of the thread: a test of a job function gives them with [`set`]
//! and takes them away with [`clear`].

use std::fmt;
use std::str::FromStr;

/// Why there is no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The key is not permitted, in the host's words.
    Denied(String),
    /// The value is not of the type that was asked for.
    Value {
        /// Its key.
        key: String,
        /// What does not fit.
        reason: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(text) => f.write_str(text),
            Self::Value { key, reason } => write!(f, "the configuration value `{key}` does not fit: {reason}"),
        }
    }
}

impl std::error::Error for Error {}

/// The value of a key; `None` when the node has none for this jumpscript.
///
/// # Errors
/// [`Error::Denied`] when the key is not permitted.
pub fn get(key: &str) -> Result<Option<String>, Error> {
    inner::get(key)
}

/// The value of a key as a number, an address, or any other type that reads texts.
///
/// # Errors
/// [`Error::Denied`] when the key is not permitted, [`Error::Value`] when the text is not of the type.
pub fn parsed<T: FromStr<Err: fmt::Display>>(key: &str) -> Result<Option<T>, Error> {
    let read = |text: String| text.trim().parse().map_err(|error: T::Err| (text, error.to_string()));
    get(key)?
        .map(read)
        .transpose()
        .map_err(|(text, error)| Error::Value { key: key.to_owned(), reason: format!("`{text}`: {error}") })
}

/// Every key that is permitted and has a value, sorted, with its value.
///
/// # Errors
/// [`Error::Denied`] when the host refuses.
pub fn all() -> Result<Vec<(String, String)>, Error> {
    inner::all()
}

/// Gives a value to the job functions that this thread tests.
#[cfg(not(target_family = "wasm"))]
pub fn set(key: &str, value: &str) {
    inner::VALUES.with_borrow_mut(|values| values.insert(key.to_owned(), value.to_owned()));
}

/// Takes all values of this thread away, for the next test.
#[cfg(not(target_family = "wasm"))]
pub fn clear() {
    inner::VALUES.take();
}

#[cfg(target_family = "wasm")]
mod inner {
    use super::Error;
    use crate::contract::wasi::config::store;

    fn explained(error: store::Error) -> Error {
        let (store::Error::Upstream(text) | store::Error::Io(text)) = error;
        Error::Denied(text)
    }

    pub(super) fn get(key: &str) -> Result<Option<String>, Error> {
        store::get(key).map_err(explained)
    }

    pub(super) fn all() -> Result<Vec<(String, String)>, Error> {
        store::get_all().map_err(explained)
    }
}

#[cfg(not(target_family = "wasm"))]
mod inner {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::Error;

    thread_local! {
        pub(super) static VALUES: RefCell<BTreeMap<String, String>> = const { RefCell::new(BTreeMap::new()) };
    }

    #[expect(clippy::unnecessary_wraps, reason = "a host may refuse; memory does not")]
    pub(super) fn get(key: &str) -> Result<Option<String>, Error> {
        Ok(VALUES.with_borrow(|values| values.get(key).cloned()))
    }

    #[expect(clippy::unnecessary_wraps, reason = "a host may refuse; memory does not")]
    pub(super) fn all() -> Result<Vec<(String, String)>, Error> {
        Ok(VALUES.with_borrow(|values| values.clone().into_iter().collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_gives_the_values_that_a_job_function_reads() {
        assert_eq!(get("url"), Ok(None));
        set("url", "https://api.example.com");
        set("pages", " 7 ");
        assert_eq!(get("url").unwrap().as_deref(), Some("https://api.example.com"));
        assert_eq!(parsed::<u32>("pages"), Ok(Some(7)));
        let error = parsed::<u32>("url").unwrap_err().to_string();
        assert!(error.contains("`url`") && error.contains("invalid digit"), "{error}");
        assert_eq!(all().unwrap().len(), 2);
        clear();
        assert_eq!(all(), Ok(Vec::new()));
    }
}
