//! What jumpscripts are told by the node's configuration: values by key, and where secrets come from.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::{Error, Origin};
use super::keys;
use super::merge::Merge;
use super::readable_by_all;
use super::value::Value;
use crate::job::{check_name, visible};
use crate::permissions::{EVERY_SCRIPT, check_script_table, is_secret_name, organization_table};

/// Largest value of a key in bytes.
pub const SCRIPT_CONFIG_VALUE_BYTES_MAX: usize = 64 * 1024;
/// Most keys of one table.
pub const SCRIPT_CONFIG_KEYS_MAX: usize = 1_000;
/// Most secrets that are named one by one; a folder may have any number.
pub const SECRETS_MAX: usize = 1_000;

/// The tables `[script_config."NAME"]` of a node: `organization/name`, `organization/*` or `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScriptConfig(BTreeMap<String, BTreeMap<String, String>>);

impl ScriptConfig {
    /// Reads and checks the tables.
    ///
    /// # Errors
    /// The end of a sentence that names the table, the key and the rule.
    fn from_tables(tables: &toml::Table) -> Result<Self, String> {
        let mut found = BTreeMap::new();
        for (name, value) in tables {
            check_script_table(name)?;
            let shown = visible(name);
            let table = value.as_table().ok_or_else(|| format!("must have a table `[script_config.\"{shown}\"]`"))?;
            if table.len() > SCRIPT_CONFIG_KEYS_MAX {
                return Err(format!(
                    "but `script_config.\"{shown}\"` has {} keys, at most {SCRIPT_CONFIG_KEYS_MAX} are allowed",
                    table.len()
                ));
            }
            let mut values = BTreeMap::new();
            for (key, value) in table {
                let named = format!("`script_config.\"{shown}\".\"{}\"`", visible(key));
                check_name("the key", key).map_err(|rule| format!("but in `script_config.\"{shown}\"` {rule}"))?;
                let text = value.as_str().ok_or_else(|| {
                    format!("but {named} is no text; put it in quotes, a jumpscript reads it as text")
                })?;
                if text.len() > SCRIPT_CONFIG_VALUE_BYTES_MAX {
                    return Err(format!(
                        "but {named} has {} bytes, at most {SCRIPT_CONFIG_VALUE_BYTES_MAX} are allowed",
                        text.len()
                    ));
                }
                values.insert(key.clone(), text.to_owned());
            }
            found.insert(name.clone(), values);
        }
        Ok(Self(found))
    }

    /// The tables that fit code of these names, the most specific first.
    fn tables(&self, names: &[String]) -> Vec<&BTreeMap<String, String>> {
        let organizations = names.iter().filter_map(|name| organization_table(name));
        let keys = names.iter().cloned().chain(organizations).chain([EVERY_SCRIPT.to_owned()]);
        keys.filter_map(|key| self.0.get(&key)).collect()
    }

    /// The value of a key for code of these names.
    #[must_use]
    pub fn value(&self, names: &[String], key: &str) -> Option<&str> {
        self.tables(names).into_iter().find_map(|table| table.get(key)).map(String::as_str)
    }

    /// Every value for code of these names, by key.
    #[must_use]
    pub fn values(&self, names: &[String]) -> BTreeMap<String, String> {
        let mut all = BTreeMap::new();
        for (key, value) in self.tables(names).into_iter().flatten() {
            all.entry(key.clone()).or_insert_with(|| value.clone());
        }
        all
    }
}

impl Value for ScriptConfig {
    const EXPECTED: &'static str =
        "must be tables such as { \"acme/mail\" = { api-url = \"https://api.example.com\" } }";

    fn from_text(text: &str) -> Result<Self, String> {
        inline(text).map_or_else(|| Err(Self::EXPECTED.to_owned()), |value| Self::from_toml(&value))
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        value.as_table().map_or_else(|| Err(Self::EXPECTED.to_owned()), Self::from_tables)
    }

    fn show(&self) -> String {
        let pair = |(key, value): (&String, &String)| format!("{}=`{}`", visible(key), visible(value));
        let table = |(name, values): (&String, &BTreeMap<String, String>)| {
            format!("{}: {}", visible(name), values.iter().map(pair).collect::<Vec<_>>().join(", "))
        };
        self.0.iter().map(table).collect::<Vec<_>>().join("; ")
    }
}

/// Where a secret comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretSource {
    /// A variable of the host's environment.
    Variable(String),
    /// A file.
    File(PathBuf),
}

/// The table `[secrets]` of a node: names, and where their values come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, SecretSource>);

impl Secrets {
    /// Where a secret comes from; `None` when the table does not name it.
    #[must_use]
    pub fn source(&self, name: &str) -> Option<&SecretSource> {
        self.0.get(name)
    }

    /// Where all of them come from.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &SecretSource)> {
        self.0.iter().map(|(name, source)| (name.as_str(), source))
    }
}

/// Reads `{ env = "VAR" }` or `{ file = "/path" }`. No error shows the value: it may be the secret itself.
fn read_source(name: &str, value: &toml::Value) -> Result<SecretSource, String> {
    let rule = || {
        format!(
            "must be {{ {name} = {{ env = \"VARIABLE\" }} }} or {{ {name} = {{ file = \"/path\" }} }}; a secret itself never \
             stands in the configuration"
        )
    };
    let mut entries = value.as_table().ok_or_else(rule)?.iter();
    let (Some((key, value)), None) = (entries.next(), entries.next()) else { return Err(rule()) };
    let text = value.as_str().filter(|text| !text.is_empty()).ok_or_else(rule)?;
    match key.as_str() {
        "env" if !text.contains('=') => Ok(SecretSource::Variable(text.to_owned())),
        "file" if text.starts_with('/') => Ok(SecretSource::File(PathBuf::from(text))),
        "file" => Err(format!("but the file of `{name}` is not an absolute path")),
        _ => Err(rule()),
    }
}

impl Value for Secrets {
    const EXPECTED: &'static str = "must be a table such as { db-password = { env = \"DB_PASSWORD\" }, api-key = { file = \"/run/secrets/api-key\" } }";

    fn from_text(text: &str) -> Result<Self, String> {
        inline(text).map_or_else(|| Err(Self::EXPECTED.to_owned()), |value| Self::from_toml(&value))
    }

    fn from_toml(value: &toml::Value) -> Result<Self, String> {
        let table = value.as_table().ok_or_else(|| Self::EXPECTED.to_owned())?;
        if table.len() > SECRETS_MAX {
            return Err(format!("names {} secrets, at most {SECRETS_MAX} are allowed; use `secrets_dir`", table.len()));
        }
        let mut found = BTreeMap::new();
        for (name, value) in table {
            check_name("the secret", name).map_err(|rule| format!("but {rule}"))?;
            if !is_secret_name(name) {
                return Err(format!(
                    "but the secret `{}` must have letters, digits, `-`, `_` and `.` only, and not begin with `.`",
                    visible(name)
                ));
            }
            found.insert(name.clone(), read_source(name, value)?);
        }
        Ok(Self(found))
    }

    fn show(&self) -> String {
        let source = |(name, source): (&str, &SecretSource)| match source {
            SecretSource::Variable(variable) => format!("{name}: env {}", visible(variable)),
            SecretSource::File(path) => format!("{name}: file {}", path.show()),
        };
        self.iter().map(source).collect::<Vec<_>>().join("; ")
    }
}

/// An inline table of TOML, as a variable has it.
fn inline(text: &str) -> Option<toml::Value> {
    format!("it = {text}").parse::<toml::Table>().ok()?.remove("it")
}

/// What jumpscripts are told by the node's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Supplies {
    /// Values by key.
    pub values: ScriptConfig,
    /// Where secrets come from, by name.
    pub secrets: Secrets,
    /// The folder that has a file for each secret, beside those that are named.
    pub secrets_dir: Option<PathBuf>,
}

impl Merge<'_> {
    pub(super) fn supplies(&mut self) -> Result<Supplies, Error> {
        let values = self.take("script_config", |g| g.script_config.clone(), ScriptConfig::default, |_| Ok(()))?;
        let secrets = self.take("secrets", |g| g.secrets.clone(), Secrets::default, |_| Ok(()))?;
        for (name, source) in secrets.iter() {
            if let SecretSource::File(path) = source {
                self.notes.extend(readable_by_all(path, &format!("secret `{name}`")));
            }
        }
        let secrets_dir = self.take_optional("secrets_dir", |g| g.secrets_dir.clone());
        if let Some(path) = &secrets_dir
            && !path.is_dir()
        {
            let origin: Origin = self.origin("secrets_dir");
            return Err(Error::bad(keys::spec("secrets_dir"), &origin, &path.show(), "must be a folder")
                .with_hint("make it, or mount it, before the host starts"));
        }
        Ok(Supplies { values, secrets, secrets_dir })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_key_the_most_specific_value_counts() {
        let text = "{ '*' = { a = '1', b = '1', c = '1' }, 'acme/*' = { b = '2', c = '2' }, 'acme/x' = { c = '3' } }";
        let tables = ScriptConfig::from_text(text).unwrap();
        let values = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let all = tables.values(&names);
            assert!(all.iter().all(|(key, value)| tables.value(&names, key) == Some(value)));
            all.into_values().collect::<String>()
        };
        assert_eq!(values(&["acme/x"]), "123");
        assert_eq!(values(&["acme/y"]), "122");
        assert_eq!((values(&["other/x"]), values(&[])), ("111".to_owned(), "111".to_owned()));
    }

    #[test]
    fn wrong_values_are_refused_with_their_place() {
        for (text, part) in [
            ("{ acme = {} }", "`acme`"),
            ("{ '*' = 1 }", "must have a table"),
            ("{ '*' = { n = 1 } }", "script_config.\"*\".\"n\"` is no text"),
            ("{ '*' = { 'a:b' = '' } }", "must not contain `:`"),
            ("7", "must be tables"),
        ] {
            let error = ScriptConfig::from_text(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_names_its_source_and_never_itself() {
        let secrets = Secrets::from_text("{ db = { env = 'DB' }, key = { file = '/run/key' } }").unwrap();
        assert_eq!(secrets.show(), "db: env DB; key: file /run/key");
        for text in [
            "{ db = 'hunter22' }",
            "{ db = { env = '' } }",
            "{ db = { value = 'hunter22' } }",
            "{ db = { env = 'A', file = '/b' } }",
            "{ db = { file = 'hunter22' } }",
            "{ '.db' = { env = 'A' } }",
            "{ 'a/b' = { env = 'A' } }",
        ] {
            let error = Secrets::from_text(text).unwrap_err();
            assert!(!error.contains("hunter22"), "{text}: {error}");
        }
    }
}
