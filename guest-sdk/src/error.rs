//! How a job ends without a result.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// How a job ends without a result. `?` turns any error into [`JobError::failed`].
///
/// It is not itself a [`std::error::Error`], because then `?` could not take every other one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobError(Kind);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Retry { after: Option<Duration>, reason: String },
    Reject(String),
    Failed(String),
}

impl JobError {
    /// It failed; the host's retry policy decides whether and when the job runs again.
    #[must_use]
    pub fn failed(message: impl fmt::Display) -> Self {
        Self(Kind::Failed(message.to_string()))
    }

    /// Running the job again cannot help: it goes straight to the dead-letter queue.
    #[must_use]
    pub fn reject(reason: impl fmt::Display) -> Self {
        Self(Kind::Reject(reason.to_string()))
    }

    /// Run the job again, when the host's retry policy says so.
    #[must_use]
    pub fn retry(reason: impl fmt::Display) -> Self {
        Self(Kind::Retry { after: None, reason: reason.to_string() })
    }

    /// Run the job again, not before `after` has passed.
    #[must_use]
    pub fn retry_after(after: Duration, reason: impl fmt::Display) -> Self {
        Self(Kind::Retry { after: Some(after), reason: reason.to_string() })
    }

    /// Whether it asks to be run again.
    #[must_use]
    pub const fn is_retry(&self) -> bool {
        matches!(self.0, Kind::Retry { .. })
    }

    /// Whether it says that running it again cannot help.
    #[must_use]
    pub const fn is_reject(&self) -> bool {
        matches!(self.0, Kind::Reject(_))
    }

    /// The wait that it asks for before it is run again.
    #[must_use]
    pub const fn retry_delay(&self) -> Option<Duration> {
        if let Kind::Retry { after, .. } = &self.0 { *after } else { None }
    }

    /// Its words, without what will happen.
    #[must_use]
    pub fn message(&self) -> &str {
        match &self.0 {
            Kind::Retry { reason: text, .. } | Kind::Reject(text) | Kind::Failed(text) => text,
        }
    }

    /// An error with all its causes as one [`JobError::failed`].
    #[must_use]
    pub fn from_error(error: &dyn Error) -> Self {
        let mut text = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            text.push_str("\n  caused by: ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        Self(Kind::Failed(text))
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn into_contract(self) -> crate::__private::types::JobError {
        use crate::__private::types;
        match self.0 {
            Kind::Retry { after, reason } => types::JobError::Retry(types::RetryInfo {
                after_ms: after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX)),
                reason,
            }),
            Kind::Reject(reason) => types::JobError::Reject(reason),
            Kind::Failed(message) => types::JobError::Failed(message),
        }
    }
}

impl<E: Error> From<E> for JobError {
    fn from(error: E) -> Self {
        Self::from_error(&error)
    }
}

impl fmt::Display for JobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Kind::Retry { after: Some(after), reason } => write!(f, "retry after {after:?}: {reason}"),
            Kind::Retry { after: None, reason } => write!(f, "retry: {reason}"),
            Kind::Reject(reason) => write!(f, "rejected: {reason}"),
            Kind::Failed(message) => write!(f, "failed: {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer(std::num::ParseIntError);

    impl fmt::Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("line 3 is not a number")
        }
    }

    impl Error for Outer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn the_question_mark_keeps_every_cause() {
        let read = || -> Result<i32, JobError> { Ok("x".parse().map_err(Outer)?) };
        let text = read().unwrap_err().to_string();
        assert_eq!(text, "failed: line 3 is not a number\n  caused by: invalid digit found in string");
    }

    #[test]
    fn each_kind_says_what_will_happen() {
        assert_eq!(JobError::reject("no name").to_string(), "rejected: no name");
        let later = JobError::retry_after(Duration::from_secs(5), "busy");
        assert_eq!(later.to_string(), "retry after 5s: busy");
        assert!(later.is_retry() && !later.is_reject());
        assert_eq!((later.retry_delay(), later.message()), (Some(Duration::from_secs(5)), "busy"));
        assert!(!JobError::failed("no").is_retry() && JobError::reject("no").is_reject());
    }
}
