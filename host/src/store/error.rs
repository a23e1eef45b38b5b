//! What can go wrong between this process and Redis.
//!
//! Invariant: a variant exists only where a caller branches on it, and every text names the address, what happened
//! and what to do about it. A password never appears in one; a URL is shown without its password.
//!
//! A lost lease is not an error: it is a result ([`super::Settled`]).

use std::time::Duration;

/// An error of the store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The URL cannot be read; nothing was tried.
    #[error("`{url}` is not a Redis URL: {reason}")]
    Url {
        /// The URL without its password.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nobody answers, or the connection broke; worth trying again.
    #[error("cannot reach Redis at `{address}`: {reason}")]
    Unreachable {
        /// Where it should be.
        address: String,
        /// The operating system's words.
        reason: String,
    },
    /// No answer within the deadline; the command may have been executed.
    #[error("Redis at `{address}` did not answer {what} within {after:?}")]
    TimedOut {
        /// Where it is.
        address: String,
        /// What was asked.
        what: &'static str,
        /// The deadline.
        after: Duration,
    },
    /// The server wants another password or user.
    #[error("Redis at `{address}` refused the login: {reason}")]
    Login {
        /// Where it is.
        address: String,
        /// The server's words.
        reason: String,
    },
    /// The user may log in, but not do this.
    #[error("Redis at `{address}` does not let user `{user}` do this ({what}): {reason}")]
    NotAllowed {
        /// Where it is.
        address: String,
        /// The user.
        user: String,
        /// What was asked.
        what: &'static str,
        /// The server's words.
        reason: String,
    },
    /// The two sides did not agree on TLS, or its files cannot be used.
    #[error("no TLS with Redis at `{address}`: {reason}")]
    Tls {
        /// Where it is.
        address: String,
        /// Why.
        reason: String,
    },
    /// The server belongs to a Cluster, and the keys of this prefix would lie on several nodes.
    #[error("Redis at `{address}` is a Cluster, and prefix `{prefix}` has no hash tag")]
    NoHashTag {
        /// Where it is.
        address: String,
        /// The prefix.
        prefix: String,
    },
    /// What listens there does not speak Redis.
    #[error("what listens at `{address}` is not a Redis: {reason}")]
    NotRedis {
        /// Where it is.
        address: String,
        /// What it said.
        reason: String,
    },
    /// The server lacks commands that the transitions need.
    #[error("Redis at `{address}` is version {version}, wasmhost needs 6.2 or newer")]
    TooOld {
        /// Where it is.
        address: String,
        /// What the server says it is.
        version: String,
    },
    /// The server may throw jobs away when its memory is full.
    #[error("Redis at `{address}` has maxmemory-policy `{policy}`: it would drop jobs when its memory is full")]
    Evicts {
        /// Where it is.
        address: String,
        /// The policy.
        policy: String,
    },
    /// A newer wasmhost laid out this prefix.
    #[error("prefix `{prefix}` at `{address}` has layout {found}, this wasmhost knows layouts up to {known}")]
    NewerLayout {
        /// Where it is.
        address: String,
        /// The prefix.
        prefix: String,
        /// What `{prefix}:meta` says.
        found: u32,
        /// The newest layout this program knows.
        known: u32,
    },
    /// A queue has as many waiting jobs as it may have; nothing was written.
    #[error("{0}; nothing was written")]
    QueueFull(String),
    /// The server's memory is full; nothing was written.
    #[error("Redis at `{address}` is full (maxmemory): {what} was refused, nothing was written")]
    Full {
        /// Where it is.
        address: String,
        /// What was asked.
        what: &'static str,
    },
    /// What was asked breaks a rule of ours; nothing was sent.
    #[error("{0}")]
    Refused(String),
    /// A cursor that no page of this list ended with.
    #[error("`{0}` is no cursor of this list")]
    Cursor(String),
    /// The word of a type already belongs to another jumpscript; nothing was published.
    #[error("type `{word}` of jumpscript `{name}` already belongs to `{owner}`")]
    Claimed {
        /// The word.
        word: String,
        /// Who wanted it.
        name: String,
        /// Who has it.
        owner: String,
    },
    /// The server refused the command for a reason of its own, such as a key of the wrong type.
    #[error("Redis at `{address}` refused {what}: {reason}")]
    Server {
        /// Where it is.
        address: String,
        /// What was asked.
        what: &'static str,
        /// The server's words.
        reason: String,
    },
}

impl Error {
    /// What to do about it, where that is surely useful.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            Self::Url { .. } => "write redis://host:port/db, rediss://host:port, unix:///path, \
                                   redis+sentinel://host:port,host:port/service or redis+cluster://host:port"
                .to_owned(),
            Self::Unreachable { .. } => {
                "start redis-server there, name another address with --redis or WASMHOST_REDIS, or use --embedded"
                    .to_owned()
            }
            Self::TimedOut { .. } => {
                "look for a busy or overloaded server (redis-cli slowlog get), or raise redis.command_timeout"
                    .to_owned()
            }
            Self::Login { .. } => "give the password in a file: --redis-password-file".to_owned(),
            Self::NotAllowed { .. } => {
                "grant it with ACL SETUSER; examples/redis/acl has what each role needs, docs/redis.md says how"
                    .to_owned()
            }
            Self::Tls { .. } => {
                "name your own authority with redis.ca_file, and the server by a name that its certificate has"
                    .to_owned()
            }
            Self::NoHashTag { prefix, .. } => {
                format!("put it in braces, so that all keys lie on one node: --prefix '{{{prefix}}}'")
            }
            Self::NotRedis { .. } => "check host and port of the address".to_owned(),
            Self::TooOld { .. } => "use Redis 6.2 or newer, or Valkey".to_owned(),
            Self::Evicts { .. } => "run `redis-cli config set maxmemory-policy noeviction`".to_owned(),
            Self::NewerLayout { .. } => "use a wasmhost of that layout, or another --prefix".to_owned(),
            Self::QueueFull(_) => "wait until it drains, or raise its `capacity` with `wasmhost queues set`".to_owned(),
            Self::Full { .. } => "raise maxmemory, or let the queues drain; acknowledgements still pass".to_owned(),
            Self::Claimed { word, .. } => {
                format!("remove `{word}` from `types` in one of the two manifests, or name the job's type in full")
            }
            Self::Cursor(_) => {
                "give the one that the page before ended with, with the same filters, or leave it out to begin anew"
                    .to_owned()
            }
            Self::Refused(_) | Self::Server { .. } => return None,
        };
        Some(hint)
    }

    /// Whether the same call may succeed later without anybody doing anything about it.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::TimedOut { .. } | Self::Full { .. } | Self::QueueFull(_))
    }
}
