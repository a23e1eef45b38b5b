//! wasmhost: runs jobs from Redis queues, each in a fresh WebAssembly sandbox.
//!
//! The modules stand in the order of their layers: each imports only from those above it (a test holds that).
//! `ARCHITECTURE.md` is the map.

// Layer 0: words and rules, no outside system.
pub mod clock;
pub mod config;
pub mod effects;
pub mod facts;
pub mod job;
pub mod jumpscript;
pub mod metrics;
pub mod outcome;
pub mod permissions;
pub mod ports;
pub mod protocol;
pub mod retry;
pub mod secret;
pub mod shutdown;
pub mod signatures;
pub mod telemetry;

// Layer 1: adapters, each knows one outside system.
pub mod languages;
pub mod sandbox;
pub mod store;
pub mod supplies;
pub mod watch;

// Layer 2: runs one attempt; shows what the adapters found.
pub mod executor;
pub mod views;

// Layer 3: services.
pub mod bridge;
pub mod dev;
pub mod maintenance;
pub mod node;
pub mod scripts_folder;
pub mod worker;

// Layer 4: what other programs reach.
pub mod http;

// Layer 5: composition.
pub mod host;
pub mod limits;

// Layer 6: the command line.
pub mod cli;
