//! What the node says about itself: heartbeats, health, sessions.
//!
//! Three services that share a [`Board`]: [`Health`] looks at the node, [`Watchdog`] tells Redis that the host is
//! alive and how well it is, [`Reloader`] takes a changed configuration file. They live on the I/O runtime, which no
//! guest can starve.
//!
//! Invariant: nothing here stops a job. A Redis that is away, a hash of the wrong type or a full disk turns health
//! red, is logged once, and is written as soon as it can be.
//!
//! Next: `watchdog` for what is written and when, `checks` for what is looked at.

pub mod checks;
pub mod doctor;
mod health;
mod reload;
mod watchdog;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, watch};

pub use self::checks::{Check, Loop, State};
pub use self::health::Health;
pub use self::reload::Reloader;
pub use self::watchdog::{BEAT_INTERVAL, SWEEP_AFTER, Watchdog};
use crate::clock::Timestamp;
use crate::config;
use crate::signatures::Fault;
use crate::store::Store;
use crate::store::node::Presence;

/// What the services of a node are made of.
#[derive(Debug)]
pub struct Params {
    /// The Redis of the host.
    pub store: Store,
    /// The name of the node.
    pub node: String,
    /// The number of the grid.
    pub gid: u32,
    /// The number of the node.
    pub nid: u32,
    /// The roles of the node.
    pub roles: Vec<String>,
    /// The queues that are served.
    pub queues: Vec<String>,
    /// The loops whose pulse decides whether a worker is alive.
    pub loops: Vec<Loop>,
    /// The folder whose file system is watched.
    pub data: PathBuf,
    /// Sandboxes that can exist at once.
    pub pool_size: usize,
    /// What is wrong with files of the scripts folder, each a sentence; empty while all is well.
    pub file_faults: watch::Receiver<Vec<String>>,
    /// Published jumpscripts that request what nobody has granted, each a sentence; empty while all is well.
    pub denied: watch::Receiver<Vec<String>>,
    /// Live code that no trusted key vouches for; empty while all is well.
    pub code_faults: watch::Receiver<Vec<Fault>>,
    /// What keeps queues from being served, each a sentence; empty while all is well.
    pub queue_faults: watch::Receiver<Vec<String>>,
    /// What keeps lists of other systems from being read, each a sentence; empty while all is well.
    pub list_faults: watch::Receiver<Vec<String>>,
    /// The thresholds; a new value takes effect at once.
    pub limits: watch::Receiver<config::Health>,
}

/// Makes the services that keep the node's hashes current, and the board they share.
#[must_use]
pub fn services(params: Params) -> (Watchdog, Health, Board) {
    let presence = presence(&params);
    let board = Board::new();
    let watchdog = Watchdog::new(
        params.store.clone(),
        presence,
        params.queues.clone(),
        params.loops.clone(),
        params.limits.clone(),
        board.clone(),
    );
    let health = Health::new(params, board.clone());
    (watchdog, health, board)
}

fn presence(params: &Params) -> Presence {
    let pid = std::process::id();
    let random = crate::store::new_token();
    let redis = checks::redis_component(params.store.address());
    let components = [
        "disks",
        "memory",
        "swap",
        "map_count",
        "loops",
        "clock",
        "hashes",
        "scripts",
        "permissions",
        "signatures",
        "queues",
    ];
    Presence {
        node: params.node.clone(),
        session: format!("{}_{}_{pid}_{}", params.gid, params.nid, &random[..16]),
        gid: params.gid,
        nid: params.nid,
        pid,
        app: "wasmhost".to_owned(),
        started: Timestamp::now().seconds(),
        queues: params.queues.clone(),
        components: components.map(str::to_owned).into_iter().chain([redis]).collect(),
        roles: params.roles.clone(),
    }
}

/// The last health report.
#[derive(Clone, Debug)]
pub struct Report {
    /// Every check, in a fixed order.
    pub checks: Vec<Check>,
    /// When they were made.
    pub checked: std::time::Instant,
}

impl Report {
    /// The worst state of all checks.
    #[must_use]
    pub fn state(&self) -> State {
        self.checks.iter().map(|check| check.state).max().unwrap_or(State::Ok)
    }
}

/// What the services of a node know of each other; cheap to clone, for readers such as HTTP too.
#[derive(Clone, Debug)]
pub struct Board(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    report: watch::Sender<Option<Arc<Report>>>,
    beat: Mutex<BeatState>,
    nudge: Notify,
}

/// What the last heartbeat met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeatState {
    /// The number of this process on its node, once known.
    pub number: Option<u32>,
    /// Keys of the wrong type, with that type.
    pub wrong_keys: Vec<(String, String)>,
    /// Why the last heartbeat could not be written; `None` when it was.
    pub failure: Option<String>,
}

impl Board {
    fn new() -> Self {
        let shared = Shared { report: watch::Sender::new(None), beat: Mutex::default(), nudge: Notify::new() };
        Self(Arc::new(shared))
    }

    /// The last health report; `None` before the first.
    #[must_use]
    pub fn report(&self) -> Option<Arc<Report>> {
        self.0.report.borrow().clone()
    }

    /// Reports as they come.
    #[must_use]
    pub fn reports(&self) -> watch::Receiver<Option<Arc<Report>>> {
        self.0.report.subscribe()
    }

    /// What the last heartbeat met.
    #[must_use]
    pub fn beat(&self) -> BeatState {
        self.0.beat.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for a heartbeat now, for example after a FLUSHALL.
    pub fn nudge(&self) {
        self.0.nudge.notify_one();
    }

    fn set_report(&self, report: Report) {
        self.0.report.send_replace(Some(Arc::new(report)));
    }

    fn set_beat(&self, state: BeatState) {
        *self.0.beat.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}
