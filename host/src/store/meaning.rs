//! What an error of the crate or of the server means to a caller.
//!
//! Invariant: kinds and codes decide, never words; and no text has a password in it.

use std::time::Duration;

use redis::{ErrorKind, RedisError, ServerErrorKind};

use super::Error;
use super::link::Link;
use super::place::is_tls_trouble;
use super::slots::Node;

impl Link {
    pub(super) fn unreachable(&self, reason: String) -> Error {
        Error::Unreachable { address: self.address().to_owned(), reason }
    }

    pub(super) fn timed_out(&self, what: &'static str, after: Duration) -> Error {
        Error::TimedOut { address: self.address().to_owned(), what, after }
    }

    pub(super) fn connect_error(&self, error: &RedisError, at: Option<&Node>) -> Error {
        let address = self.address().to_owned();
        let code = error.code().unwrap_or_default();
        if error.kind() == ErrorKind::AuthenticationFailed || matches!(code, "WRONGPASS" | "NOAUTH") {
            return self.login_error(error);
        }
        match error.kind() {
            _ if self.place().is_tls() && is_tls_trouble(error) => self.place().tls_error(words(error)),
            // A key that does not belong to its certificate.
            ErrorKind::InvalidClientConfig => self.place().tls_error(words(error)),
            ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Error::NotRedis { address, reason: words(error) },
            ErrorKind::Server(ServerErrorKind::NoPerm) => self.not_allowed("to connect", error),
            ErrorKind::Server(ServerErrorKind::ResponseError) => {
                Error::Server { address, what: "the connection", reason: words(error) }
            }
            _ => {
                let at = at.map(|at| format!("{at}: ")).unwrap_or_default();
                let perhaps = self.place().perhaps(error);
                self.unreachable(format!("{at}{}{perhaps}", words(error)))
            }
        }
    }

    /// What an error of the crate means to a caller.
    pub(super) fn error(&self, what: &'static str, error: &RedisError) -> Error {
        let address = self.address().to_owned();
        match (error.kind(), error.code().unwrap_or_default()) {
            (_, "OOM") => Error::Full { address, what },
            (_, "NOAUTH" | "WRONGPASS") => self.login_error(error),
            (ErrorKind::Server(ServerErrorKind::NoPerm), _) => self.not_allowed(what, error),
            (ErrorKind::Parse, _) => Error::NotRedis { address, reason: words(error) },
            (_, "QUEUEFULL") => Error::QueueFull(error.detail().unwrap_or("the queue is full").to_owned()),
            (_, "REFUSED") => {
                Error::Server { address, what, reason: error.detail().unwrap_or("no reason given").to_owned() }
            }
            _ if self.place().is_tls() && is_tls_trouble(error) => self.place().tls_error(words(error)),
            (_, code) if self.is_gone(error) => {
                let reason = if code.is_empty() { words(error) } else { format!("the server says {}", words(error)) };
                self.unreachable(reason)
            }
            _ => Error::Server { address, what, reason: words(error) },
        }
    }

    fn login_error(&self, error: &RedisError) -> Error {
        let user = self.place().user();
        // The server's own words never repeat the password, but neither do they say more than this.
        let reason = match error.code() {
            Some("NOAUTH") => "it wants a password, none was given".to_owned(),
            _ => format!("wrong password for user `{user}`, or no such user"),
        };
        Error::Login { address: self.address().to_owned(), reason }
    }

    fn not_allowed(&self, what: &'static str, error: &RedisError) -> Error {
        let reason = crate::job::visible(error.detail().unwrap_or_default());
        Error::NotAllowed { address: self.address().to_owned(), user: self.place().user().to_owned(), what, reason }
    }

    /// Whether trying again on a new connection, or later, is what helps.
    pub(super) fn is_gone(&self, error: &RedisError) -> bool {
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
        if let Some((address, _)) = error.redirect_node() {
            self.place().prefer(address);
        }
        error.is_io_error()
            || error.is_connection_dropped()
            || error.is_unrecoverable_error()
            || matches!(
                error.kind(),
                ErrorKind::Server(BusyLoading | MasterDown | ReadOnly | Moved | Ask | TryAgain | ClusterDown)
            )
            // A blocked connection of a server that has become a replica; a master that has too few of them.
            || matches!(error.code(), Some("UNBLOCKED" | "NOREPLICAS"))
    }
}

pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

pub(super) fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

/// The crate's words without what it repeats.
pub(super) fn words(error: &RedisError) -> String {
    crate::job::visible(error.to_string().trim())
}

/// The URL with `***` in place of a password, for texts.
pub(super) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return crate::job::visible(url) };
    let (authority, tail) = rest.split_at(rest.rfind('@').map_or(0, |at| at));
    let shown = match authority.split_once(':') {
        Some((user, _)) => format!("{scheme}://{user}:***{tail}"),
        None => format!("{scheme}://{authority}{tail}"),
    };
    // `unix:///path?pass=...`
    let shown = match shown.find("pass=") {
        Some(at) => {
            let end = shown[at..].find('&').map_or(shown.len(), |n| at + n);
            format!("{}pass=***{}", &shown[..at], &shown[end..])
        }
        None => shown,
    };
    crate::job::visible(&shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Options;

    #[test]
    fn a_url_is_shown_without_its_password() {
        assert_eq!(without_password("redis://:s3cret@h:1/2"), "redis://:***@h:1/2");
        assert_eq!(without_password("redis://me:s3:c@ret@h:1"), "redis://me:***@h:1");
        assert_eq!(without_password("unix:///s?pass=s3cret&db=1"), "unix:///s?pass=***&db=1");
        assert_eq!(without_password("redis://h:1"), "redis://h:1");
    }

    #[test]
    fn a_wrong_url_is_refused_by_name() {
        let options = Options { url: "http://user:s3cret@h".to_owned(), ..Options::default() };
        let error = Link::new(&options).unwrap_err().to_string();
        assert!(error.contains("http://user:***@h") && !error.contains("s3cret"), "{error}");
    }
}
