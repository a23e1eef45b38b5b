//! What a node gives to jumpscripts that may have it: values of its configuration, secrets from its environment and its
//! files, and facts about the machine.
//!
//! Invariant: whether a jumpscript may have something is decided before it is asked for here. A new configuration counts for
//! the next thing that is asked for, without a restart. However many guests ask, the machine is asked for what takes time
//! once a second at most.
//!
//! Next: `secrets` and `machine` for how they are read, `config/script_config.rs` for what the configuration says.

pub mod machine;
mod secrets;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use tokio::sync::Mutex;

use crate::config;
use crate::facts::{Component, Disk, Load, MemoryUse};
use crate::ports::{BoxFuture, SecretError, Supply};
use crate::secret::SecretValue;

/// How old an answer of the machine may be.
pub const FACTS_AGE_MAX: Duration = Duration::from_secs(1);
/// How long the machine may take for one.
const FACTS_LIMIT: Duration = Duration::from_secs(5);

/// Reads the components of the health hashes.
pub type ReadHealth = dyn Fn() -> BoxFuture<'static, Result<Vec<Component>, String>> + Send + Sync;

/// What one node gives.
#[derive(Default)]
pub struct Supplies {
    told: RwLock<Arc<config::Supplies>>,
    disks: Arc<Recent<Vec<Disk>>>,
    processes: Arc<Recent<HashMap<Vec<u8>, u32>>>,
    components: Arc<Recent<Vec<Component>>>,
    /// `None` where there is no Redis.
    read_health: Option<Arc<ReadHealth>>,
}

impl fmt::Debug for Supplies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supplies").field("told", &self.told).finish_non_exhaustive()
    }
}

/// An answer that is asked for anew when it is too old; whoever asks meanwhile waits for the same one.
#[derive(Default)]
struct Recent<T>(Mutex<Option<Answered<T>>>);

/// When something was asked for, and the answer.
type Answered<T> = (Instant, Result<Arc<T>, String>);

impl<T> Recent<T> {
    async fn get(&self, ask: impl AsyncFnOnce() -> Result<T, String>) -> Result<Arc<T>, String> {
        let mut known = self.0.lock().await;
        if let Some((_, answer)) = known.as_ref().filter(|(at, _)| at.elapsed() < FACTS_AGE_MAX) {
            return answer.clone();
        }
        let answer = match tokio::time::timeout(FACTS_LIMIT, ask()).await {
            Ok(answer) => answer.map(Arc::new),
            Err(_) => Err("the machine did not answer within 5 seconds".to_owned()),
        };
        *known = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// Asks the machine on a thread that may wait.
async fn asked<T: Send + 'static>(ask: fn() -> Result<T, String>) -> Result<T, String> {
    tokio::task::spawn_blocking(ask).await.unwrap_or_else(|_| Err("the machine cannot be asked now".to_owned()))
}

impl Supplies {
    /// What a configuration says.
    #[must_use]
    pub fn new(told: config::Supplies) -> Self {
        Self { told: RwLock::new(Arc::new(told)), ..Self::default() }
    }

    /// Has the health hashes read so.
    #[must_use]
    pub fn with_health(self, read: Arc<ReadHealth>) -> Self {
        Self { read_health: Some(read), ..self }
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

    fn disks(&self) -> BoxFuture<'static, Result<Vec<Disk>, String>> {
        let recent = Arc::clone(&self.disks);
        Box::pin(async move { recent.get(async || asked(machine::disks).await).await.map(|disks| disks.to_vec()) })
    }

    fn memory(&self) -> Result<MemoryUse, String> {
        machine::memory()
    }

    fn load(&self) -> Result<Load, String> {
        machine::load()
    }

    fn uptime(&self) -> Result<u64, String> {
        machine::uptime()
    }

    fn processes(&self, names: Vec<String>) -> BoxFuture<'static, Result<Vec<u32>, String>> {
        let recent = Arc::clone(&self.processes);
        Box::pin(async move {
            let counted = recent.get(async || asked(machine::processes).await).await?;
            Ok(names.iter().map(|name| machine::count_of(&counted, name)).collect())
        })
    }

    fn health(&self) -> BoxFuture<'static, Result<Vec<Component>, String>> {
        let (recent, read) = (Arc::clone(&self.components), self.read_health.clone());
        Box::pin(async move {
            let Some(read) = read else {
                return Err("the health hashes lie in Redis, which this attempt has none of".to_owned());
            };
            recent.get(async || read().await).await.map(|components| components.to_vec())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_machine_is_asked_once_for_many_who_ask_together() {
        static ASKED: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let read: Arc<ReadHealth> = Arc::new(|| {
            ASKED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Box::pin(std::future::ready(Ok(vec![Component { name: "disks".to_owned(), ..Component::default() }])))
        });
        let supplies = Supplies::default().with_health(read);
        let found = tokio::join!(supplies.health(), supplies.health(), supplies.health());
        assert_eq!(found.0.unwrap()[0].name, "disks");
        assert!(found.1.is_ok() && found.2.is_ok());
        assert_eq!(ASKED.load(std::sync::atomic::Ordering::Relaxed), 1);
        assert!(Supplies::default().health().await.unwrap_err().contains("Redis"));
    }
}
