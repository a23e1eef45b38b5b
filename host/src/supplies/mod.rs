//! What a node gives to jumpscripts that may have it: values of its configuration, and secrets from its environment and
//! its files.
//!
//! Invariant: whether a jumpscript may have something is decided before it is asked for here. A new configuration counts for
//! the next thing that is asked for, without a restart.
//!
//! Next: `secrets` for how they are read, `config/script_config.rs` for what the configuration says.

mod secrets;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use crate::config;
use crate::ports::{BoxFuture, SecretError, Supply};
use crate::secret::SecretValue;

/// What one node gives.
#[derive(Debug, Default)]
pub struct Supplies {
    told: RwLock<Arc<config::Supplies>>,
}

impl Supplies {
    /// What a configuration says.
    #[must_use]
    pub fn new(told: config::Supplies) -> Self {
        Self { told: RwLock::new(Arc::new(told)) }
    }

    /// Takes what a changed configuration says.
    pub fn replace(&self, told: config::Supplies) {
        *self.told.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(told);
    }

    fn told(&self) -> Arc<config::Supplies> {
        Arc::clone(&self.told.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Supply for Supplies {
    fn value(&self, names: &[String], key: &str) -> Option<String> {
        self.told().values.value(names, key).map(str::to_owned)
    }

    fn values(&self, names: &[String]) -> BTreeMap<String, String> {
        self.told().values.values(names)
    }

    fn secret(&self, name: String) -> BoxFuture<'static, Result<SecretValue, SecretError>> {
        let told = self.told();
        Box::pin(async move {
            // A file may lie on a disk that hangs: no thread that runs guests waits for it.
            let shown = name.clone();
            let read = tokio::task::spawn_blocking(move || secrets::read(&told, &name)).await;
            read.unwrap_or_else(|_| Err(SecretError::Unreadable(format!("secret `{shown}` cannot be read now"))))
        })
    }
}
