//! The job as the jumpscript sees it, and how bytes become values and back.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::JobError;

/// One attempt at one job, with its payload decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job<A> {
    /// The id of the job; a job that is run again keeps it. Use it to make outside effects idempotent.
    pub id: String,
    /// The queue it waited in.
    pub queue: String,
    /// The type it named; one jumpscript may serve several.
    pub job_type: String,
    /// The name of the node that runs it.
    pub node: String,
    /// Which execution this is, from 1.
    pub attempt: u32,
    /// Executions in all.
    pub max_attempts: u32,
    /// When this attempt will be stopped, in milliseconds since the Unix epoch; 0 when nobody knows.
    pub deadline_ms: u64,
    /// When the job was enqueued, in milliseconds since the Unix epoch; 0 when nobody knows.
    pub enqueued_at_ms: u64,
    /// What the payload is; empty says nothing.
    pub content_type: String,
    /// Name and value pairs of the producer.
    pub metadata: Vec<(String, String)>,
    /// The decoded payload.
    pub args: A,
}

impl<A> Job<A> {
    /// A first attempt with these arguments, for native tests of a job function.
    #[must_use]
    pub fn test(args: A) -> Self {
        Self {
            id: "test".to_owned(),
            queue: "default".to_owned(),
            job_type: "test".to_owned(),
            node: "test".to_owned(),
            attempt: 1,
            max_attempts: 1,
            deadline_ms: 0,
            enqueued_at_ms: 0,
            content_type: String::new(),
            metadata: Vec::new(),
            args,
        }
    }

    /// Whether a failure of this attempt is final.
    #[must_use]
    pub const fn is_last_attempt(&self) -> bool {
        self.attempt >= self.max_attempts
    }

    /// The first value of a name in the producer's metadata.
    #[must_use]
    pub fn metadata(&self, name: &str) -> Option<&str> {
        self.metadata.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// Bytes as they are, instead of JSON: `Job<Raw>` for the payload, `Result<Raw, JobError>` for the result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Raw(pub Vec<u8>);

/// A type that a payload can be read into: every type with `serde::Deserialize` (from JSON), and [`Raw`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be read from a payload",
    label = "the arguments of a job need `serde::Deserialize`",
    note = "derive it: `#[derive(serde::Deserialize)]`, or take the bytes as they are: `Job<wasmhost_guest::Raw>`"
)]
pub trait FromPayload: Sized {
    /// Reads a payload.
    ///
    /// # Errors
    /// A sentence for the producer: what does not fit, and where.
    fn from_payload(payload: Vec<u8>) -> Result<Self, String>;
}

impl<T: DeserializeOwned> FromPayload for T {
    fn from_payload(payload: Vec<u8>) -> Result<Self, String> {
        // A job without arguments has an empty payload, which JSON does not know.
        let text: &[u8] = if payload.is_empty() { b"null" } else { &payload };
        serde_json::from_slice(text).map_err(|error| format!("the payload does not fit the job's arguments: {error}"))
    }
}

impl FromPayload for Raw {
    fn from_payload(payload: Vec<u8>) -> Result<Self, String> {
        Ok(Self(payload))
    }
}

/// A type that can be a job's result: every type with `serde::Serialize` (as JSON), and [`Raw`].
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be a job's result",
    label = "the result of a job needs `serde::Serialize`",
    note = "derive it: `#[derive(serde::Serialize)]`, or return bytes as they are: `Result<wasmhost_guest::Raw, JobError>`"
)]
pub trait IntoResult {
    /// Writes the result.
    ///
    /// # Errors
    /// [`JobError::failed`] when the value cannot be written as JSON.
    fn into_result(self) -> Result<Vec<u8>, JobError>;
}

impl<T: Serialize> IntoResult for T {
    fn into_result(self) -> Result<Vec<u8>, JobError> {
        serde_json::to_vec(&self).map_err(|error| JobError::failed(format!("the result is not JSON: {error}")))
    }
}

impl IntoResult for Raw {
    fn into_result(self) -> Result<Vec<u8>, JobError> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_payload_is_explained_in_serdes_words() {
        let error = u32::from_payload(b"\"x\"".to_vec()).unwrap_err();
        assert!(error.contains("invalid type: string \"x\", expected u32 at line 1 column 3"), "{error}");
    }

    #[test]
    fn no_payload_is_no_arguments() {
        assert_eq!(<()>::from_payload(Vec::new()), Ok(()));
        assert_eq!(Option::<u32>::from_payload(Vec::new()), Ok(None));
    }

    #[test]
    fn raw_bytes_stay_as_they_are() {
        assert_eq!(Raw::from_payload(vec![0, 255]), Ok(Raw(vec![0, 255])));
        assert_eq!(Raw(vec![0, 255]).into_result(), Ok(vec![0, 255]));
        assert_eq!("x".into_result(), Ok(b"\"x\"".to_vec()));
    }
}
