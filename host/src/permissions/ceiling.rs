//! What a node allows by its configuration, by the names of jumpscripts.

use std::collections::BTreeMap;

use super::{Directory, HttpPattern, NamePattern, Permissions, StatePattern};
use crate::job::visible;

/// The name under which every jumpscript is meant.
pub const EVERY_SCRIPT: &str = "*";

/// The tables `[permissions."NAME"]` of a node: `organization/name`, `organization/*` or `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ceiling(BTreeMap<String, Permissions>);

impl Ceiling {
    /// Reads and checks the tables.
    ///
    /// # Errors
    /// A sentence that names the table, the key, the value and the rule.
    pub fn from_tables(tables: &toml::Table) -> Result<Self, String> {
        let mut ceiling = BTreeMap::new();
        for (name, value) in tables {
            let shown = visible(name);
            check_script_table(name)?;
            let toml::Value::Table(table) = value else {
                return Err(format!("must have a table `[permissions.\"{shown}\"]`"));
            };
            let named = |key: &str| format!("but `permissions.\"{shown}\".{key}`");
            Permissions::check_keys(table, named)?;
            let permissions: Permissions = value
                .clone()
                .try_into()
                .map_err(|error: toml::de::Error| format!("but in `permissions.\"{shown}\"` {}", error.message()))?;
            permissions.check(named)?;
            ceiling.insert(name.clone(), permissions);
        }
        Ok(Self(ceiling))
    }

    /// Adds hosts for every jumpscript: the node's `allow_http`.
    pub fn allow_http(&mut self, patterns: &[HttpPattern]) {
        let hosts = Permissions { http: patterns.to_vec(), ..Permissions::default() };
        self.0.entry(EVERY_SCRIPT.to_owned()).or_default().add(&hosts);
    }

    /// Allows every jumpscript whatever it requests, but HTTP: for a developer's own code.
    pub fn allow_requested(&mut self) {
        let every = || vec![NamePattern::every()];
        let all = Permissions {
            http: Vec::new(),
            state: vec![StatePattern { bucket: NamePattern::every(), is_read_only: false }],
            enqueue: every(),
            env: every(),
            files: vec![Directory::root()],
            config: every(),
            secrets: every(),
            facts: every(),
        };
        self.0.entry(EVERY_SCRIPT.to_owned()).or_default().add(&all);
    }

    /// What the jumpscripts of these names (`organization/name`) may be given: the table of each, of its organization,
    /// and that of all. Without a name only the last.
    #[must_use]
    pub fn of<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> Permissions {
        let mut sum = self.0.get(EVERY_SCRIPT).cloned().unwrap_or_default();
        for name in names {
            for key in [Some(name.to_owned()), organization_table(name)].into_iter().flatten() {
                if let Some(table) = self.0.get(&key) {
                    sum.add(table);
                }
            }
        }
        sum
    }

    /// The tables by name.
    pub fn tables(&self) -> impl Iterator<Item = (&str, &Permissions)> {
        self.0.iter().map(|(name, permissions)| (name.as_str(), permissions))
    }
}

/// The name of the table about all jumpscripts of one's organization.
#[must_use]
pub fn organization_table(name: &str) -> Option<String> {
    name.split_once('/').map(|(organization, _)| format!("{organization}/*"))
}

/// Checks the name of a table about jumpscripts.
///
/// # Errors
/// The end of a sentence that names it and the rule.
pub fn check_script_table(name: &str) -> Result<(), String> {
    let is_part = |part: &str| {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.is_empty() && part.chars().all(is_plain)
    };
    let is_name = |(organization, rest)| is_part(organization) && (rest == "*" || is_part(rest));
    if name == EVERY_SCRIPT || name.split_once('/').is_some_and(is_name) {
        return Ok(());
    }
    Err(format!("has a table `{}`, must be named `organization/name`, `organization/*` or `*`", visible(name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ceiling(text: &str) -> Result<Ceiling, String> {
        Ceiling::from_tables(&text.parse().unwrap())
    }

    #[test]
    fn a_name_has_its_own_table_that_of_its_organization_and_that_of_all() {
        let ceiling = ceiling("'*' = { env = ['A'] }\n'acme/*' = { env = ['B'] }\n'acme/x' = { env = ['C'] }").unwrap();
        let env = |names: &[&str]| ceiling.of(names.iter().copied()).flags();
        assert_eq!(env(&[]), " --env A");
        assert_eq!(env(&["acme/y"]), " --env A --env B");
        assert_eq!(env(&["acme/x"]), " --env A --env C --env B");
        assert_eq!(env(&["other/x"]), " --env A");
    }

    #[test]
    fn wrong_tables_are_refused_with_their_name() {
        for (text, part) in [
            ("'acme' = {}", "`acme`"),
            ("'acme/x*' = {}", "`acme/x*`"),
            ("'*' = 1", "must have a table"),
            ("'*' = { htpp = [] }", "did you mean `http`?"),
            ("'*' = { env = ['JOB_ID'] }", "permissions.\"*\".env"),
            ("'*' = { files = ['x'] }", "absolute"),
        ] {
            let error = ceiling(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
