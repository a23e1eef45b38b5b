//! Why a command failed: the text, the remedy, the exit code.

use std::process::ExitCode;

use serde::Serialize;

use super::{Output, print};
use crate::ports::PublishError;

/// The end of a command that did not do what it was asked for.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
}

/// Exit code: it was tried and failed.
pub(super) const FAILED: u8 = 1;
/// Exit code: the arguments or the configuration are wrong.
pub(super) const USAGE: u8 = 2;
/// Exit code: Redis is away; trying again may help (`EX_TEMPFAIL` of sysexits.h).
pub(super) const AWAY: u8 = 75;
/// Exit code: a person ended it (128 and the number of the signal, as shells say).
pub(super) const INTERRUPTED: u8 = 130;

impl Failure {
    /// The exit code.
    pub(super) const fn code(&self) -> u8 {
        self.code
    }

    /// Whether another try may help.
    pub(super) const fn is_away(&self) -> bool {
        self.code == AWAY
    }

    /// A failure with exit code 1.
    pub(super) fn new(message: impl Into<String>) -> Self {
        Self { code: FAILED, message: message.into(), hint: None }
    }

    /// A failure of the arguments or the configuration, exit code 2.
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { code: USAGE, message: message.into(), hint: None }
    }

    /// Adds the way out.
    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Prints the failure and gives its exit code.
    pub(super) fn print(&self, output: Output) -> ExitCode {
        if output == Output::Json {
            #[derive(Serialize)]
            struct Shape<'a> {
                error: &'a str,
                hint: Option<&'a str>,
            }
            print::json_line(&Shape { error: &self.message, hint: self.hint.as_deref() });
        }
        print::note(&format!("error: {}", self.message));
        if let Some(hint) = &self.hint {
            print::note(&format!("hint: {hint}"));
        }
        ExitCode::from(self.code)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<crate::sandbox::Error> for Failure {
    fn from(error: crate::sandbox::Error) -> Self {
        let failure = Self::new(error.to_string());
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}

impl From<crate::store::Error> for Failure {
    fn from(error: crate::store::Error) -> Self {
        use crate::store::Error;
        let code = match &error {
            Error::Unreachable { .. } | Error::TimedOut { .. } => AWAY,
            Error::Full { .. } | Error::QueueFull(_) | Error::Claimed { .. } | Error::Server { .. } => FAILED,
            Error::Url { .. }
            | Error::Login { .. }
            | Error::NotAllowed { .. }
            | Error::Tls { .. }
            | Error::NoHashTag { .. }
            | Error::NotRedis { .. }
            | Error::TooOld { .. }
            | Error::Evicts { .. }
            | Error::NewerLayout { .. }
            | Error::Cursor(_)
            | Error::Refused(_) => USAGE,
        };
        Self { code, message: error.to_string(), hint: error.hint() }
    }
}

impl From<crate::config::Error> for Failure {
    fn from(error: crate::config::Error) -> Self {
        Self { code: USAGE, message: error.to_string(), hint: error.hint() }
    }
}

impl From<crate::host::Error> for Failure {
    fn from(error: crate::host::Error) -> Self {
        match error {
            crate::host::Error::Store(error) => error.into(),
            crate::host::Error::Sandbox(error) => error.into(),
            crate::host::Error::Other(text) => Self::from_text(&text),
        }
    }
}

impl From<PublishError> for Failure {
    /// What is refused is what was given: it is wrong, not the try.
    fn from(error: PublishError) -> Self {
        let code = match error {
            PublishError::Refused(_) => USAGE,
            PublishError::Unavailable(_) => AWAY,
        };
        Self { code, ..Self::from_text(&error.to_string()) }
    }
}

impl Failure {
    /// A failure from a text of which a line may be `hint: ...`.
    pub(super) fn from_text(text: &str) -> Self {
        match text.split_once("\nhint: ") {
            Some((message, hint)) => Self::new(message).hint(hint),
            None => Self::new(text),
        }
    }
}
