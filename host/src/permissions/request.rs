//! The table `[permissions]`: what a manifest requests, what a ceiling allows, what a grant adds. All have one form.

use std::fmt::{Display, Write as _};

use serde::{Deserialize, Serialize};

use super::{Directory, HTTP_PATTERNS_MAX, HttpPattern, NamePattern, StatePattern};
use crate::facts::FACT_AREAS;
use crate::job::visible;

/// Most entries of one key but `http`.
pub const PATTERNS_MAX: usize = 100;
/// The keys of the table, in the order of the documentation.
pub const PERMISSION_KEYS: [&str; 8] = ["http", "state", "enqueue", "env", "files", "config", "secrets", "facts"];

/// Permissions by kind. In a manifest they are requested, on a node and in a grant they are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Permissions {
    /// Hosts and ports that it sends HTTP requests to.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpPattern>,
    /// Buckets of state beside the job's own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub state: Vec<StatePattern>,
    /// Queues that it enqueues jobs into.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub enqueue: Vec<NamePattern>,
    /// Variables of the host's environment.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<NamePattern>,
    /// Directories that it reads.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<Directory>,
    /// Keys of the values that the node's configuration has for jumpscripts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub config: Vec<NamePattern>,
    /// Secrets of the node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub secrets: Vec<NamePattern>,
    /// Areas of facts about the node: of [`FACT_AREAS`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<NamePattern>,
}

impl Permissions {
    /// Whether nothing is named.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks what the types do not hold. `named` says what a key is called where it stands, such as
    /// ``manifest key `permissions.http` ``.
    ///
    /// # Errors
    /// A sentence that names the key, the value and the rule.
    pub fn check(&self, named: impl Fn(&str) -> String) -> Result<(), String> {
        let most = |key: &str, n: usize, n_max: usize| {
            if n > n_max { Err(format!("{} has {n} entries, at most {n_max} are allowed", named(key))) } else { Ok(()) }
        };
        most("http", self.http.len(), HTTP_PATTERNS_MAX)?;
        most("state", self.state.len(), PATTERNS_MAX)?;
        most("files", self.files.len(), PATTERNS_MAX)?;
        let names = [
            ("enqueue", &self.enqueue),
            ("env", &self.env),
            ("config", &self.config),
            ("secrets", &self.secrets),
            ("facts", &self.facts),
        ];
        for (key, patterns) in names {
            most(key, patterns.len(), PATTERNS_MAX)?;
            for pattern in patterns {
                if key == "facts" && !FACT_AREAS.iter().any(|area| pattern.matches(area)) {
                    return Err(unknown_area(&named(key), pattern));
                }
                if let Some(rule) = broken_rule(key, pattern.text()) {
                    return Err(format!("{} names `{}`, {rule}", named(key), visible(&pattern.to_string())));
                }
            }
        }
        Ok(())
    }

    /// What of it `allowed` does not cover. HTTP is left out: it is judged when a request is sent, because a pattern may
    /// be allowed in part, and `*` in a manifest means whatever the node allows.
    #[must_use]
    pub fn missing(&self, allowed: &Self) -> Self {
        let names = |wanted: &[NamePattern], allowed: &[NamePattern]| uncovered(wanted, allowed, NamePattern::covers);
        Self {
            http: Vec::new(),
            state: uncovered(&self.state, &allowed.state, StatePattern::covers),
            enqueue: names(&self.enqueue, &allowed.enqueue),
            env: names(&self.env, &allowed.env),
            files: uncovered(&self.files, &allowed.files, Directory::covers),
            config: names(&self.config, &allowed.config),
            secrets: names(&self.secrets, &allowed.secrets),
            facts: names(&self.facts, &allowed.facts),
        }
    }

    /// Adds everything that `other` names.
    pub fn add(&mut self, other: &Self) {
        extend(&mut self.http, &other.http);
        extend(&mut self.state, &other.state);
        extend(&mut self.enqueue, &other.enqueue);
        extend(&mut self.env, &other.env);
        extend(&mut self.files, &other.files);
        extend(&mut self.config, &other.config);
        extend(&mut self.secrets, &other.secrets);
        extend(&mut self.facts, &other.facts);
    }

    /// Takes away every entry that `other` spells the same.
    pub fn remove(&mut self, other: &Self) {
        self.http.retain(|one| !other.http.contains(one));
        self.state.retain(|one| !other.state.contains(one));
        self.enqueue.retain(|one| !other.enqueue.contains(one));
        self.env.retain(|one| !other.env.contains(one));
        self.files.retain(|one| !other.files.contains(one));
        self.config.retain(|one| !other.config.contains(one));
        self.secrets.retain(|one| !other.secrets.contains(one));
        self.facts.retain(|one| !other.facts.contains(one));
    }

    /// Every entry as a pair of key and value, in the order of the documentation.
    #[must_use]
    pub fn entries(&self) -> Vec<(&'static str, String)> {
        let mut entries = Vec::new();
        push(&mut entries, "http", &self.http);
        push(&mut entries, "state", &self.state);
        push(&mut entries, "enqueue", &self.enqueue);
        push(&mut entries, "env", &self.env);
        push(&mut entries, "files", &self.files);
        push(&mut entries, "config", &self.config);
        push(&mut entries, "secrets", &self.secrets);
        push(&mut entries, "facts", &self.facts);
        entries
    }

    /// The flags of `wasmhost grants allow` that name the same, for a shell: ` --state orders --env HOME`.
    #[must_use]
    pub fn flags(&self) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@%+,".contains(c);
        self.entries().iter().fold(String::new(), |mut text, (key, value)| {
            let (key, value) = (Self::flag(key), visible(value));
            let _ = if value.chars().all(is_plain) {
                write!(text, " --{key} {value}")
            } else {
                write!(text, " --{key} '{}'", value.replace('\'', r"'\''"))
            };
            text
        })
    }

    /// The flag of `wasmhost grants` for a key. It is the key itself, but where a flag of every command has that name.
    #[must_use]
    pub fn flag(key: &str) -> &str {
        if key == "config" { "config-key" } else { key }
    }

    /// The entries in words: `state orders, env HOME`.
    #[must_use]
    pub fn in_words(&self) -> String {
        self.entries().iter().map(|(key, value)| format!("{key} `{}`", visible(value))).collect::<Vec<_>>().join(", ")
    }

    /// The keys of a table `[permissions]` that are not known, as a sentence with the nearest one.
    ///
    /// # Errors
    /// The sentence; `named` is what the table is called where it stands.
    pub fn check_keys(table: &toml::Table, named: impl Fn(&str) -> String) -> Result<(), String> {
        let Some(key) = table.keys().find(|key| !PERMISSION_KEYS.contains(&key.as_str())) else { return Ok(()) };
        let distance = |known: &&str| strsim::damerau_levenshtein(known, &key.to_lowercase());
        let near = PERMISSION_KEYS.iter().copied().min_by_key(distance).filter(|known| distance(known) <= 3);
        let rest = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("known are {}", PERMISSION_KEYS.join(", ")),
        };
        Err(format!("{} is not known; {rest}", named(&visible(key))))
    }
}

/// Whether a text, or the beginning of one, can be the name of a secret.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    !name.starts_with('.') && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
}

/// A request for facts that there are not.
fn unknown_area(key: &str, pattern: &NamePattern) -> String {
    let text = pattern.text().to_lowercase();
    let distance = |area: &&str| strsim::damerau_levenshtein(area, &text);
    let near = FACT_AREAS.iter().copied().min_by_key(distance).filter(|area| distance(area) <= 2);
    let rest =
        near.map_or_else(|| format!("there are {}", FACT_AREAS.join(", ")), |area| format!("did you mean `{area}`?"));
    format!("{key} names `{}`, which is no area of facts; {rest}", visible(&pattern.to_string()))
}

/// Why a name does not fit its key, as the end of a sentence.
fn broken_rule(key: &str, name: &str) -> Option<&'static str> {
    match key {
        "env" if name.contains('=') => Some("must not contain `=`"),
        "env" if name.starts_with("JOB_") => Some("but `JOB_*` is what each job is told itself"),
        // They are names of files in a folder.
        "secrets" if !is_secret_name(name) => {
            Some("must have letters, digits, `-`, `_` and `.` only, and not begin with `.`")
        }
        _ => None,
    }
}

fn uncovered<T: Clone>(wanted: &[T], allowed: &[T], covers: impl Fn(&T, &T) -> bool) -> Vec<T> {
    wanted.iter().filter(|one| !allowed.iter().any(|pattern| covers(pattern, one))).cloned().collect()
}

fn extend<T: Clone + PartialEq>(to: &mut Vec<T>, from: &[T]) {
    for one in from {
        if !to.contains(one) {
            to.push(one.clone());
        }
    }
}

fn push<T: Display>(entries: &mut Vec<(&'static str, String)>, key: &'static str, values: &[T]) {
    entries.extend(values.iter().map(|value| (key, value.to_string())));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Permissions {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn every_key_is_read_written_and_compared() {
        let all = table(
            "http = ['a.b:1']\nstate = ['orders', 'cache-*:ro']\nenqueue = ['mail-*']\nenv = ['HOME']\nfiles = ['/etc/ssl']\n\
             config = ['limit.*']\nsecrets = ['db-password']\nfacts = ['disks', 'load']",
        );
        assert_eq!(table(&toml::to_string(&all).unwrap()), all);
        let keys: Vec<&str> = all.entries().iter().map(|(key, _)| *key).collect();
        assert!(PERMISSION_KEYS.iter().all(|key| keys.contains(key)), "{keys:?}");
        assert!(all.missing(&all).is_empty());
        let missing = all.missing(&Permissions::default());
        assert_eq!(missing.entries().len(), all.entries().len() - 1, "all but http");
        let mut sum = Permissions::default();
        sum.add(&all);
        sum.add(&all);
        assert_eq!(sum, all);
        sum.remove(&all);
        assert!(sum.is_empty());
    }

    #[test]
    fn flags_can_be_pasted_into_a_shell() {
        let some = table("state = ['orders:ro']\nenqueue = ['mail-*']\nenv = ['HOME']");
        assert_eq!(some.flags(), " --state orders:ro --enqueue 'mail-*' --env HOME");
        assert_eq!(some.in_words(), "state `orders:ro`, enqueue `mail-*`, env `HOME`");
    }

    #[test]
    fn wrong_values_are_refused_with_key_value_and_rule() {
        for (text, parts) in [
            ("env = ['A=B']", ["permissions.env", "A=B", "`=`"]),
            ("env = ['JOB_ID']", ["permissions.env", "JOB_ID", "each job"]),
        ] {
            let error = table(text).check(|key| format!("manifest key `permissions.{key}`")).unwrap_err();
            assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
        }
        let many: Vec<String> = (0..=PATTERNS_MAX).map(|n| format!("'q{n}'")).collect();
        assert!(table(&format!("enqueue = [{}]", many.join(","))).check(str::to_owned).unwrap_err().contains("101"));
        for (text, part) in [("state = ['a:rx']", "`:ro`"), ("files = ['etc']", "absolute")] {
            let error = toml::from_str::<Permissions>(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn an_unknown_area_of_facts_is_answered_with_the_nearest() {
        let said = |text: &str| table(text).check(str::to_owned).unwrap_err();
        assert!(said("facts = ['disk']").contains("did you mean `disks`?"));
        assert!(said("facts = ['network']").contains("there are disks, memory"));
        assert_eq!(table("facts = ['*', 'up*', 'health']").check(str::to_owned), Ok(()));
    }

    #[test]
    fn an_unknown_key_is_answered_with_the_nearest() {
        let error = Permissions::check_keys(&"file = []".parse().unwrap(), |key| format!("key `{key}`")).unwrap_err();
        assert_eq!(error, "key `file` is not known; did you mean `files`?");
        let error = Permissions::check_keys(&"kubernetes = []".parse().unwrap(), str::to_owned).unwrap_err();
        assert!(error.contains("known are http"), "{error}");
    }
}
