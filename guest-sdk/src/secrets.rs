//! Secrets of the node, by name: passwords, tokens, keys.
//!
//! ```
//! use wasmhost_guest::{Job, JobError, secrets};
//!
//! fn run(job: Job<String>) -> Result<usize, JobError> {
//!     let token = secrets::get("api-token")?;
//!     let header = format!("Bearer {}", token.text()?);
//!     Ok(header.len() + job.args.len())
//! }
//! # wasmhost_guest::secrets::set("api-token", "hunter22");
//! # assert_eq!(run(Job::test(String::new())).unwrap(), 15);
//! ```
//!
//! The operator says in the configuration of the node where they come from. The manifest requests them:
//!
//! ```toml
//! [permissions]
//! secrets = ["api-token"]
//! ```
//!
//! From the moment that an attempt has read a secret, the host hides its value in whatever the attempt logs, reports as
//! progress or gives as its error. A [`Secret`] prints as `***`; what you take out of it, encode and print is yours to
//! keep, and so is what you return, store, enqueue or send.
//!
//! On another target than Wasm the secrets lie in the memory of the thread: a test of a job function gives them with [`set`]
//! and takes them away with [`clear`].

use std::fmt;

/// Why there is no secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is not permitted, in the host's words.
    Denied(String),
    /// The node has none of this name; the text says what to do.
    Missing(String),
    /// It cannot be read now; trying again may help.
    Unreadable(String),
    /// It is not UTF-8, and was asked for as text.
    NoText {
        /// Its name.
        name: String,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Denied(text) | Self::Missing(text) | Self::Unreadable(text) => f.write_str(text),
            Self::NoText { name } => write!(f, "the secret `{name}` is not UTF-8 text; take its bytes"),
        }
    }
}

impl std::error::Error for Error {}

/// The value of a secret. It is not shown by accident.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret {
    name: String,
    value: Vec<u8>,
}

impl Secret {
    /// The value as it is.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.value
    }

    /// The value as text.
    ///
    /// # Errors
    /// [`Error::NoText`] when it is not UTF-8.
    pub fn text(&self) -> Result<&str, Error> {
        std::str::from_utf8(&self.value).map_err(|_| Error::NoText { name: self.name.clone() })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({}: ***)", self.name)
    }
}

/// Reads a secret.
///
/// # Errors
/// See [`Error`].
pub fn get(name: &str) -> Result<Secret, Error> {
    inner::get(name).map(|value| Secret { name: name.to_owned(), value })
}

/// Gives a secret to the job functions that this thread tests.
#[cfg(not(target_family = "wasm"))]
pub fn set(name: &str, value: impl Into<Vec<u8>>) {
    inner::SECRETS.with_borrow_mut(|secrets| secrets.insert(name.to_owned(), value.into()));
}

/// Takes all secrets of this thread away, for the next test.
#[cfg(not(target_family = "wasm"))]
pub fn clear() {
    inner::SECRETS.take();
}

#[cfg(target_family = "wasm")]
mod inner {
    use super::Error;
    use crate::contract::wasmhost::jumpscript::secrets;

    pub(super) fn get(name: &str) -> Result<Vec<u8>, Error> {
        secrets::get(name).map_err(|error| match error {
            secrets::SecretError::Denied(text) => Error::Denied(text),
            secrets::SecretError::Missing(text) => Error::Missing(text),
            secrets::SecretError::Unreadable(text) => Error::Unreadable(text),
        })
    }
}

#[cfg(not(target_family = "wasm"))]
mod inner {
    use std::cell::RefCell;
    use std::collections::BTreeMap;

    use super::Error;

    thread_local! {
        pub(super) static SECRETS: RefCell<BTreeMap<String, Vec<u8>>> = const { RefCell::new(BTreeMap::new()) };
    }

    pub(super) fn get(name: &str) -> Result<Vec<u8>, Error> {
        let found = SECRETS.with_borrow(|secrets| secrets.get(name).cloned());
        found.ok_or_else(|| {
            Error::Missing(format!("there is no secret `{name}`; give it to the test with `secrets::set`"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_gives_the_secrets_that_a_job_function_reads() {
        assert!(get("key").unwrap_err().to_string().contains("`secrets::set`"));
        set("key", "hunter22");
        set("raw", [0xff]);
        assert_eq!(get("key").unwrap().text(), Ok("hunter22"));
        assert_eq!(get("raw").unwrap().bytes(), [0xff]);
        assert!(get("raw").unwrap().text().unwrap_err().to_string().contains("`raw`"));
        assert_eq!(format!("{:?}", get("key").unwrap()), "Secret(key: ***)");
        clear();
        assert!(get("key").is_err());
    }
}
