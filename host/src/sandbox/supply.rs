//! Values of the node's configuration, secrets, and facts about the node, as guests ask for them.
//!
//! Invariant: what is not granted is not looked for. A secret that is handed out is hidden in the attempt's log from
//! that moment on.

use super::contract::{Wasi, config, facts, secrets};
use super::guest::Guest;
use super::host_calls::host_call;
use super::output::Log;
use super::run::Call;
use crate::facts::PROCESS_NAMES_MAX;
use crate::job::visible;
use crate::permissions::Granted;
use crate::ports::{Level, SecretError, Supply};

const CONFIG: &str = "wasi:config/store";
const SECRETS: &str = "wasmhost:jumpscript/secrets";
const FACTS: &str = "wasmhost:jumpscript/facts";

/// Says in the job's log and to the guest what was not permitted.
fn denied(log: &Log, what: &str, name: &str, key: &str) -> String {
    let name = visible(name);
    let text = format!(
        "{what} `{name}` denied: the jumpscript does not request it; add \"{name}\" to `{key}` under [permissions] in its \
         jumpscript.toml"
    );
    log.line(Level::Warn, key, &text);
    text
}

impl config::Host for Guest<Wasi> {
    fn get(&mut self, key: String) -> Result<Option<String>, config::Error> {
        host_call(CONFIG, "get");
        if !self.granted.may_read_config(&key) {
            return Err(config::Error::Upstream(denied(&self.log, "the configuration key", &key, "config")));
        }
        Ok(self.supply.as_ref().and_then(|supply| supply.value(self.granted.names(), &key)))
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, config::Error> {
        host_call(CONFIG, "get-all");
        Ok(granted_values(self.supply.as_deref(), &self.granted))
    }
}

/// The values that code may read.
fn granted_values(supply: Option<&dyn Supply>, granted: &Granted) -> Vec<(String, String)> {
    if granted.request().config.is_empty() {
        return Vec::new();
    }
    let values = supply.map(|supply| supply.values(granted.names())).unwrap_or_default();
    values.into_iter().filter(|(key, _)| granted.may_read_config(key)).collect()
}

impl secrets::Host for Guest<Wasi> {
    async fn get(&mut self, name: String) -> wasmtime::Result<Result<Vec<u8>, secrets::SecretError>> {
        host_call(SECRETS, "get");
        if !self.granted.may_read_secret(&name) {
            let text = denied(&self.log, "the secret", &name, "secrets");
            return Ok(Err(secrets::SecretError::Denied(text)));
        }
        let Some(supply) = &self.supply else {
            let text = format!("there is no secret `{}`: this attempt has none", visible(&name));
            return Ok(Err(secrets::SecretError::Missing(text)));
        };
        Ok(match supply.secret(name).await {
            Ok(value) => {
                self.log.hide(&value);
                Ok(value.reveal().to_vec())
            }
            Err(SecretError::Missing(text)) => Err(secrets::SecretError::Missing(text)),
            Err(SecretError::Unreadable(text)) => Err(secrets::SecretError::Unreadable(text)),
        })
    }
}

impl Guest<Wasi> {
    /// Who is asked for facts of an area that the guest may read.
    fn facts(&self, area: &'static str) -> Result<&dyn Supply, facts::FactsError> {
        host_call(FACTS, area);
        if !self.granted.may_read_facts(area) {
            return Err(facts::FactsError::Denied(denied(&self.log, "facts about", area, "facts")));
        }
        let none = || facts::FactsError::Unreadable("this attempt has no node that says anything".to_owned());
        self.supply.as_deref().ok_or_else(none)
    }
}

fn unreadable(why: String) -> facts::FactsError {
    facts::FactsError::Unreadable(why)
}

impl facts::Host for Guest<Wasi> {
    async fn disks(&mut self) -> wasmtime::Result<Result<Vec<facts::Disk>, facts::FactsError>> {
        let disks = match self.facts("disks") {
            Ok(supply) => supply.disks(),
            Err(error) => return Ok(Err(error)),
        };
        let disk = |disk: crate::facts::Disk| facts::Disk {
            mount: disk.mount,
            device: disk.device,
            kind: disk.kind,
            total_bytes: disk.total_bytes,
            available_bytes: disk.available_bytes,
            total_inodes: disk.total_inodes,
            available_inodes: disk.available_inodes,
            is_read_only: disk.is_read_only,
        };
        Ok(disks.await.map(|disks| disks.into_iter().map(disk).collect()).map_err(unreadable))
    }

    fn memory(&mut self) -> Result<facts::MemoryUse, facts::FactsError> {
        let memory = self.facts("memory")?.memory().map_err(unreadable)?;
        Ok(facts::MemoryUse {
            total_bytes: memory.total,
            available_bytes: memory.available,
            swap_total_bytes: memory.swap_total,
            swap_free_bytes: memory.swap_free,
        })
    }

    fn load(&mut self) -> Result<facts::LoadAverage, facts::FactsError> {
        let load = self.facts("load")?.load().map_err(unreadable)?;
        Ok(facts::LoadAverage { one: load.one, five: load.five, fifteen: load.fifteen, cores: load.cores })
    }

    fn uptime(&mut self) -> Result<u64, facts::FactsError> {
        self.facts("uptime")?.uptime().map_err(unreadable)
    }

    async fn processes(&mut self, names: Vec<String>) -> wasmtime::Result<Result<Vec<u32>, facts::FactsError>> {
        if names.len() > PROCESS_NAMES_MAX {
            let n = names.len();
            return Ok(Err(facts::FactsError::Limit(format!(
                "one call counts the processes of at most {PROCESS_NAMES_MAX} names, these are {n}"
            ))));
        }
        let counts = match self.facts("processes") {
            Ok(supply) => supply.processes(names),
            Err(error) => return Ok(Err(error)),
        };
        Ok(counts.await.map_err(unreadable))
    }

    async fn health(&mut self) -> wasmtime::Result<Result<Vec<facts::Component>, facts::FactsError>> {
        let components = match self.facts("health") {
            Ok(supply) => supply.health(),
            Err(error) => return Ok(Err(error)),
        };
        let component = |one: crate::facts::Component| facts::Component {
            name: one.name,
            is_well: one.is_well,
            checked_at_ms: one.checked_at_ms,
        };
        Ok(components.await.map(|all| all.into_iter().map(component).collect()).map_err(unreadable))
    }
}

/// What a command finds in its environment: `JOB_CONFIG_*` for the values that it may read, and `JOB_SECRET_*` for the
/// secrets that its manifest requests by their whole names. One that requests neither costs nothing.
pub(super) async fn variables(call: &Call, log: &Log) -> Vec<(String, String)> {
    let (supply, granted) = (call.supply.as_deref(), &call.granted);
    let values = granted_values(supply, granted);
    let mut variables: Vec<_> = values.into_iter().map(|(key, value)| (variable("JOB_CONFIG_", &key), value)).collect();
    for name in granted.request().secrets.iter().filter_map(|pattern| pattern.name()) {
        let Some(supply) = supply else { break };
        let why = match supply.secret(name.to_owned()).await {
            Ok(value) => {
                log.hide(&value);
                match std::str::from_utf8(value.reveal()) {
                    Ok(text) if !text.contains('\0') => {
                        variables.push((variable("JOB_SECRET_", name), text.to_owned()));
                        continue;
                    }
                    _ => format!("secret `{name}` is no text, so it fits no variable"),
                }
            }
            Err(SecretError::Missing(why) | SecretError::Unreadable(why)) => why,
        };
        log.line(Level::Warn, "secrets", &why);
    }
    variables
}

/// The variable of a name: capital letters, digits and `_`.
fn variable(front: &str, name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' };
    front.chars().chain(name.chars().map(plain)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_has_the_letters_that_every_shell_takes() {
        assert_eq!(variable("JOB_CONFIG_", "limit.mib-2"), "JOB_CONFIG_LIMIT_MIB_2");
        assert_eq!(variable("JOB_SECRET_", "öl"), "JOB_SECRET__L");
    }
}
