//! Everything that lies in Redis: one file of keys, one Lua file a transition, and their typed calls.
//!
//! Invariant: a transition is one script call. Leases are measured by the server's clock, every write of a holder
//! carries its token, every scan is bounded, and a script frees and checks before it writes, because a Lua error does
//! not roll back.
//!
//! Next: `keys` for what lies where, `turn` for the hot path, `lua/` for the transitions themselves.

mod audit;
mod bell;
mod cancel;
pub mod embedded;
mod ended;
mod enqueue;
mod error;
mod foreign;
mod grants;
mod jumpscripts;
pub mod keys;
mod link;
mod list;
mod meaning;
mod measure;
pub mod node;
mod past;
mod peek;
mod place;
mod purge;
mod queue_settings;
mod reconcile;
mod records;
mod requeue;
mod script;
mod server;
mod slots;
mod state;
mod sweep;
mod turn;

use std::sync::Arc;
use std::time::{Duration, Instant};

use self::keys::Keys;
use self::link::Link;

pub use self::audit::{AUDIT_MAX, AUDIT_PAGE_MAX, Act, AuditEntry, AuditPage};
pub use self::bell::{Bell, Ring};
pub use self::cancel::Cancelled;
pub use self::ended::Ends;
pub use self::enqueue::{Enqueued, Replicas};
pub use self::error::Error;
pub use self::foreign::{Found, Look, TakenOver, Told};
pub use self::grants::{GrantList, GrantRecord};
pub use self::jumpscripts::{Adopted, How, Index, NewJumpscript, Published};
pub use self::list::{Filter, LOOKED_MAX, Listed, PAGE_MAX, Page, TimeOf};
pub use self::measure::Spent;
pub use self::past::{HISTORY_MAX, HISTORY_REMOVED_DAYS, Past};
pub use self::peek::{Peek, PeekStop, Peeked, Signal, Signals};
pub use self::purge::Purge;
pub use self::queue_settings::{OnFull, QueueChange, QueueSettings};
pub use self::reconcile::{Finding, KINDS, Kind, Pace, Repairer, Survey, kinds_document};
pub use self::records::{JobRecord, QueueInfo};
pub use self::requeue::{DeadWalk, OfDead};
pub use self::script::PRODUCER_SCRIPT;
pub use self::sweep::{Swept, Watched};
pub use self::turn::{
    Drawn, End, LEASE_MAX, Lease, Lost, QueueShare, Reservation, Reserve, SetAside, Settle, Settled, Turn,
};
use crate::clock::Timestamp;
use crate::config::RedisTls;
use crate::job::StoreId;
use crate::protocol::Source;

/// Most jobs one reserve hands out.
pub const RESERVE_MAX: u32 = 256;
/// Most jobs one enqueue script writes; larger batches are sent in pieces.
pub const ENQUEUE_MAX: usize = 256;
/// Most attempts one turn settles; larger batches are sent in pieces.
pub const SETTLE_MAX: usize = 256;

/// Ids that a queue's list of done jobs keeps.
pub const DONE_MAX: u32 = 100_000;
/// Rows of a queue's DLQ; the oldest go first, and are counted.
pub const DLQ_MAX: u32 = 10_000;
/// Days a dead row is kept.
pub const DLQ_DAYS: u32 = 30;
/// Entries of a queue's list of ids that were set aside.
pub const ASIDE_MAX: u32 = 1000;
/// Ids that a queue's list of cancelled jobs keeps.
pub const CANCELLED_MAX: u32 = 10_000;
/// Hours a cancelled job's row is kept.
pub const CANCELLED_HOURS: u32 = 24;
/// Days an idempotency key is remembered.
pub const IDEMPOTENCY_DAYS: u32 = 7;
/// Hand-outs of a job whose workers are lost, at least; more when it has more attempts.
pub const DELIVERIES_MIN: u32 = 3;
/// Entries one script looks at in one structure.
pub const SCAN_MAX: u32 = 100;

/// Where Redis is and under which names we work there.
#[derive(Clone, PartialEq, Eq)]
pub struct Options {
    /// `redis://[user:password@]host:port[/db]`, `rediss://` for TLS, `unix:///path`, `host:port`,
    /// `redis+sentinel://host:port,host:port/service[/db]` or `redis+cluster://host:port,host:port`.
    pub url: String,
    /// A password from elsewhere; it wins over the URL's.
    pub password: Option<String>,
    /// What every key of ours begins with.
    pub prefix: String,
    /// What the node's hashes (`workers:*`) begin with; other programs read them, so normally nothing. On a Cluster
    /// nothing means the prefix.
    pub node_prefix: String,
    /// Time for a connection to stand.
    pub connect_timeout: Duration,
    /// Time for an answer.
    pub command_timeout: Duration,
    /// Connections that short commands share, at least one.
    pub pool: usize,
    /// The files of TLS, for a URL that asks for it.
    pub tls: RedisTls,
    /// The password of Sentinels.
    pub sentinel_password: Option<String>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            url: "redis://127.0.0.1:6379".to_owned(),
            password: None,
            prefix: "wasmhost".to_owned(),
            node_prefix: String::new(),
            connect_timeout: Duration::from_secs(5),
            command_timeout: Duration::from_secs(5),
            pool: 1,
            tls: RedisTls::default(),
            sentinel_password: None,
        }
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = meaning::without_password(&self.url);
        f.debug_struct("Options").field("url", &url).field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

/// A handle on one Redis, cheap to clone. It reconnects by itself.
#[derive(Clone, Debug)]
pub struct Store {
    id: StoreId,
    link: Arc<Link>,
    keys: Arc<Keys>,
    notes: Arc<Vec<String>>,
    /// A time that the scripts use in place of the server's; tests only.
    at: Option<Timestamp>,
    /// Who acts, for the audit stream.
    who: Arc<str>,
    /// Other systems' lists that a reserve takes from as well.
    sources: Arc<[Source]>,
}

impl Store {
    /// Connects and checks the server.
    ///
    /// # Errors
    /// When the URL or a prefix is wrong, nobody answers, the login is refused, or the server is not fit for jobs.
    pub async fn connect(id: StoreId, options: &Options) -> Result<Self, Error> {
        let keys = Keys::new(&options.prefix, &options.node_prefix).map_err(Error::Refused)?;
        let link = Link::new(options)?;
        let notes = server::check(&link).await?;
        let keys = if link.place().is_cluster() { cluster_keys(options, keys)? } else { keys };
        server::check_layout(&link, &keys).await?;
        Ok(Self {
            id,
            link,
            keys: Arc::new(keys),
            notes: Arc::new(notes),
            at: None,
            who: "a program".into(),
            sources: [].into(),
        })
    }

    /// Whether the server belongs to a Redis Cluster, where all keys must share the prefix's hash tag.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        self.link.place().is_cluster()
    }

    /// What the set-up of the server is.
    #[must_use]
    pub fn setup(&self) -> Setup {
        let place = self.link.place();
        Setup {
            is_tls: place.is_tls(),
            user: place.user().to_owned(),
            service: place.service().map(str::to_owned),
            is_cluster: place.is_cluster(),
            server: self.link.at().map(|node| node.to_string()),
            servers: place.nodes().iter().chain(&self.link.at()).map(slots::Node::parts).collect(),
        }
    }

    /// Which of the host's stores this is.
    #[must_use]
    pub const fn id(&self) -> StoreId {
        self.id
    }

    /// What an operator should know about this server, as it was at the start: eviction, persistence.
    #[must_use]
    pub fn server_notes(&self) -> Vec<String> {
        self.notes.to_vec()
    }

    /// Where it is, without password, for people.
    #[must_use]
    pub fn address(&self) -> &str {
        self.link.address()
    }

    /// The names of what lies there.
    #[must_use]
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// One round trip.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn ping(&self) -> Result<Duration, Error> {
        let start = Instant::now();
        self.link.command("a ping", &redis::cmd("PING")).await?;
        Ok(start.elapsed())
    }

    /// A handle whose scripts take `now` for the time, in place of the server's clock. For tests of what happens at
    /// an exact moment; a host never does this.
    #[must_use]
    pub fn at(&self, now: Timestamp) -> Self {
        Self { at: Some(now), ..self.clone() }
    }

    /// A handle whose reserves also take what lies plain in these lists, when the queues of their jobs have nothing else
    /// to give ([`crate::protocol::Plain`]). All other messages are for [`Store::take_over`].
    #[must_use]
    pub fn taking_from(&self, sources: impl IntoIterator<Item = Source>) -> Self {
        Self { sources: sources.into_iter().filter(|source| source.plain.is_some()).collect(), ..self.clone() }
    }

    /// The queues of the lists that reserves take from.
    pub fn queues_taken_from(&self) -> impl Iterator<Item = &str> {
        self.sources.iter().map(|source| source.queue.as_str())
    }
}

/// The keys on a Cluster: those of the node take the prefix, too, because the scripts touch both.
fn cluster_keys(options: &Options, keys: Keys) -> Result<Keys, Error> {
    let (prefix, node_prefix) = (&options.prefix, &options.node_prefix);
    if node_prefix.is_empty() {
        return Keys::new(prefix, prefix).map_err(Error::Refused);
    }
    if slots::hash_tag(node_prefix) != slots::hash_tag(prefix) {
        return Err(Error::Refused(format!(
            "on a Cluster the node prefix `{node_prefix}` needs the hash tag of prefix `{prefix}`, or leave it out"
        )));
    }
    Ok(keys)
}

/// What the set-up of a store's server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Whether TLS is spoken.
    pub is_tls: bool,
    /// The user who logs in.
    pub user: String,
    /// The service that Sentinels know the master of.
    pub service: Option<String>,
    /// Whether the server is a node of a Cluster.
    pub is_cluster: bool,
    /// The server that was connected to last, when it is looked for each time.
    pub server: Option<String>,
    /// Host and port of everything that is known: the server, its Sentinels, the nodes of its Cluster.
    pub servers: Vec<(String, u16)>,
}

/// A fresh lease token: 32 hexadecimal digits.
#[must_use]
pub fn new_token() -> String {
    let mut bytes = [0_u8; 16];
    // Without an entropy source no lease is safe; the caller could not do better than stop.
    getrandom::fill(&mut bytes).expect("the system has a source of random bytes");
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
