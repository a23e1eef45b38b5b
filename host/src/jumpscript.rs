//! A jumpscript: Wasm code plus its manifest, published under `organization/name`, addressed by its SHA-256 digest.
//!
//! A script's text is one too: `source`.
//!
//! Invariant: nothing here touches Redis or the engine; the record is the JSON that lies in `workers:jumpscripts:id`
//! and `:name` (JumpScale's fields and ours), and it never carries the code.

mod source;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::effects::{BUCKET_TTL_MAX, BUCKET_TTL_MIN};
use crate::job::visible;
use crate::permissions::{Permissions, StatePattern};
use crate::retry::RetryWish;
use crate::signatures::Signature;

pub use source::{LANGUAGES, Language, SOURCE_BYTES_MAX, Source};

/// The organization of the jumpscripts that ship with wasmhost, and of a type without one.
pub const OWN_ORGANIZATION: &str = "wasmhost";
/// Largest Wasm file in bytes.
pub const WASM_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest manifest in bytes, in its file or its custom section.
pub const MANIFEST_BYTES_MAX: usize = 64 * 1024;
/// The custom section of a Wasm file that carries the manifest's TOML text.
pub const MANIFEST_SECTION: &str = "wasmhost:manifest";
/// The file beside a Wasm file that carries its manifest.
pub const MANIFEST_FILE: &str = "jumpscript.toml";

/// The SHA-256 of a Wasm file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }

    /// The first twelve hexadecimal digits, for people.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string()[..12].to_owned()
    }
}

impl fmt::Display for Digest {
    /// 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({})", self.short())
    }
}

impl FromStr for Digest {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let bad = || format!("`{}` is not a digest (64 hexadecimal digits)", visible(text));
        if text.len() != 64 || !text.is_ascii() {
            return Err(bad());
        }
        let mut bytes = [0_u8; 32];
        for (n, byte) in bytes.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * n..2 * n + 2], 16).map_err(|_| bad())?;
        }
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What a Wasm file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A component that exports `run` of the world `jumpscript`.
    Component,
    /// A WASI command, preview 1 or 2: payload on stdin, result on stdout.
    Command,
    /// A text that an interpreter, itself a component, runs.
    Source,
}

impl Kind {
    /// The word in records and on screens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Component => "component",
            Self::Command => "command",
            Self::Source => "source",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// `organization/name`. Both parts are made of letters, digits, `-`, `_` and `.`, start with a letter or digit, have
/// at most 64 characters, and contain no `__` (JumpScale joins them with it).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ScriptName {
    organization: String,
    name: String,
}

impl ScriptName {
    /// A name of two parts.
    ///
    /// # Errors
    /// A sentence that names the part and the rule.
    pub fn new(organization: &str, name: &str) -> Result<Self, String> {
        check_part("organization", organization)?;
        check_part("name", name)?;
        Ok(Self { organization: organization.to_owned(), name: name.to_owned() })
    }

    /// The organization.
    #[must_use]
    pub fn organization(&self) -> &str {
        &self.organization
    }

    /// The name within the organization.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `organization__name`, the field in `workers:jumpscripts:name`.
    #[must_use]
    pub fn field(&self) -> String {
        format!("{}__{}", self.organization, self.name)
    }

    /// The shortest text that means this name: bare in organization [`OWN_ORGANIZATION`].
    #[must_use]
    pub fn short(&self) -> String {
        if self.organization == OWN_ORGANIZATION { self.name.clone() } else { self.to_string() }
    }

    /// The name that a field of `workers:jumpscripts:name` stands for.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn from_field(field: &str) -> Result<Self, String> {
        let (organization, name) = field
            .split_once("__")
            .ok_or_else(|| format!("the field `{}` is not `organization__name`", visible(field)))?;
        Self::new(organization, name)
    }
}

fn check_part(what: &str, part: &str) -> Result<(), String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if part.is_empty() || part.len() > 64 || !part.chars().all(is_plain) || part.contains("__") {
        let shown: String = part.chars().take(80).collect();
        return Err(format!(
            "the jumpscript's {what} `{}` must have 1 to 64 letters, digits, `-`, `_` or `.`, and no `__`",
            visible(&shown)
        ));
    }
    if !part.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err(format!("the jumpscript's {what} `{part}` must start with a letter or digit"));
    }
    Ok(())
}

impl fmt::Display for ScriptName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.organization, self.name)
    }
}

impl FromStr for ScriptName {
    type Err = String;

    /// Reads `organization/name`, or a bare name in organization [`OWN_ORGANIZATION`].
    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('/') {
            Some((organization, name)) => Self::new(organization, name),
            None => Self::new(OWN_ORGANIZATION, text),
        }
    }
}

/// What a jumpscript says about itself: `jumpscript.toml` beside its file, or the custom section
/// [`MANIFEST_SECTION`]. Every key is optional; unknown keys are refused by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Manifest {
    /// Who publishes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// Its name within the organization.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `major.minor.patch`; a scripts folder publishes at start only what is absent or higher.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// One line for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Bare words that name this jumpscript in a job's `type`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Wall time of an attempt when the job names none, such as `30s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<String>,
    /// Linear memory it may have, in MiB; the node's limit holds above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_mib: Option<u32>,
    /// How its Wasm file is made of its sources. For the machine of its author: never part of a record.
    #[serde(skip_serializing)]
    pub build: Option<Build>,
    /// How its failed jobs run again, where the job does not say. The tables come last.
    #[serde(skip_serializing_if = "Retry::is_empty")]
    pub retry: Retry,
    /// What it asks to reach outside its sandbox.
    #[serde(skip_serializing_if = "Permissions::is_empty")]
    pub permissions: Permissions,
    /// What it says of buckets that it writes, by their names.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub state: BTreeMap<String, BucketLife>,
}

/// The table `[state."NAME"]` of a manifest; unknown keys are refused by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BucketLife {
    /// How long the bucket lives after each write of this jumpscript, such as `7d`.
    pub expires: String,
}

impl BucketLife {
    /// As a duration.
    ///
    /// # Errors
    /// The end of a sentence with the rule.
    fn duration(&self) -> Result<Duration, String> {
        let found = crate::clock::parse_duration(self.expires.trim())
            .map_err(|_| "must be a number and a unit, such as 90m, 12h or 7d".to_owned())?;
        if (BUCKET_TTL_MIN..=BUCKET_TTL_MAX).contains(&found) {
            return Ok(found);
        }
        Err("must be between 1m and 365d".to_owned())
    }
}

/// The table `[build]` of a manifest; unknown keys are refused by name.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Build {
    /// A command for the shell, run in the folder of the manifest.
    pub command: String,
    /// The Wasm file that it makes, below that folder.
    pub output: String,
    /// Files and folders whose changes count; empty: every one but hidden ones and build output.
    #[serde(default)]
    pub watch: Vec<String>,
}

impl Build {
    fn check(&self) -> Result<(), String> {
        if self.command.trim().is_empty() {
            return Err("manifest key `build.command` is empty; name the command that makes the Wasm file".to_owned());
        }
        let is_inside = |path: &str| {
            use std::path::{Component, Path};
            let mut parts = Path::new(path).components().peekable();
            parts.peek().is_some() && parts.all(|part| matches!(part, Component::Normal(_) | Component::CurDir))
        };
        if !is_inside(&self.output) || !self.output.ends_with(".wasm") {
            return Err(format!(
                "manifest key `build.output` is `{}`, must be a .wasm file below the folder of the manifest",
                visible(&self.output)
            ));
        }
        match self.watch.iter().find(|path| !is_inside(path)) {
            Some(path) => Err(format!(
                "manifest key `build.watch` has `{}`, must be files and folders below the folder of the manifest",
                visible(path)
            )),
            None => Ok(()),
        }
    }
}

/// The table `[retry]` of a manifest. Every key is optional; unknown keys are refused by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retry {
    /// Delay before the second execution, before jitter, such as `1s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Longest delay, before jitter, such as `10m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap: Option<String>,
    /// Executions in all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
}

impl Retry {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn check(&self) -> Result<(), String> {
        for (key, text) in [("base", &self.base), ("cap", &self.cap)] {
            if let Some(text) = text {
                crate::clock::parse_duration(text).map_err(|e| format!("manifest key `retry.{key}`: {e}"))?;
            }
        }
        self.wish().check(|field| format!("manifest key `retry.{field}`"))
    }

    fn wish(&self) -> RetryWish {
        let duration = |text: &Option<String>| crate::clock::parse_duration(text.as_deref()?).ok();
        RetryWish { base: duration(&self.base), cap: duration(&self.cap), max_attempts: self.max_attempts }
    }
}

impl Manifest {
    /// Reads a manifest's TOML text and checks every value.
    ///
    /// # Errors
    /// A text that names the line or the key, the value and the rule.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MANIFEST_BYTES_MAX {
            return Err(format!("the manifest has {} bytes, at most {MANIFEST_BYTES_MAX} are allowed", text.len()));
        }
        if let Ok(table) = text.parse::<toml::Table>()
            && let Some(toml::Value::Table(permissions)) = table.get("permissions")
        {
            Permissions::check_keys(permissions, |key| format!("manifest key `permissions.{key}`"))?;
        }
        let manifest: Self = toml::from_str(text).map_err(|error| format!("the manifest does not parse: {error}"))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The name that it is published under, when the file's own would be `default_name`.
    ///
    /// # Errors
    /// A sentence that names the part and the rule.
    pub fn script_name(&self, default_name: &str) -> Result<ScriptName, String> {
        let organization = self.organization.as_deref().unwrap_or(OWN_ORGANIZATION);
        ScriptName::new(organization, self.name.as_deref().unwrap_or(default_name))
    }

    /// The timeout of an attempt whose job names none.
    #[must_use]
    pub fn attempt_timeout(&self) -> Option<Duration> {
        crate::clock::parse_duration(self.timeout.as_deref()?).ok()
    }

    /// What it says about the retries of its jobs; a value that makes no sense says nothing.
    #[must_use]
    pub fn retry_wish(&self) -> RetryWish {
        self.retry.wish().clamped()
    }

    /// How long buckets live after a write of its, by name.
    #[must_use]
    pub fn bucket_lives(&self) -> BTreeMap<String, Duration> {
        self.state.iter().filter_map(|(name, life)| Some((name.clone(), life.duration().ok()?))).collect()
    }

    /// The linear memory it asks for, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> Option<usize> {
        Some((self.memory_mib? as usize).saturating_mul(1024 * 1024))
    }

    /// Checks every value.
    ///
    /// # Errors
    /// A sentence that names the key, the value and the rule.
    pub fn check(&self) -> Result<(), String> {
        if let Some(organization) = &self.organization {
            check_part("organization", organization)?;
        }
        if let Some(name) = &self.name {
            check_part("name", name)?;
        }
        if let Some(version) = &self.version {
            parse_version(version)?;
        }
        if let Some(timeout) = &self.timeout {
            let parsed = crate::clock::parse_duration(timeout).map_err(|e| format!("manifest key `timeout`: {e}"))?;
            if parsed.is_zero() || parsed > crate::job::TIMEOUT_MAX {
                return Err(format!("manifest key `timeout` is `{timeout}`, must be more than 0 and at most 24h"));
            }
        }
        if self.memory_mib == Some(0) {
            return Err("manifest key `memory_mib` is 0, must be at least 1".to_owned());
        }
        self.build.as_ref().map_or(Ok(()), Build::check)?;
        self.retry.check()?;
        self.permissions.check(|key| format!("manifest key `permissions.{key}`"))?;
        for (name, life) in &self.state {
            let shown = visible(name);
            life.duration().map_err(|rule| {
                format!("manifest key `state.\"{shown}\".expires` is `{}`, {rule}", visible(&life.expires))
            })?;
            let writes = |pattern: &StatePattern| !pattern.is_read_only && pattern.bucket.matches(name);
            if !self.permissions.state.iter().any(writes) {
                return Err(format!(
                    "manifest key `state.\"{shown}\"` is about a bucket that it may not write; add \"{shown}\" to `state` \
                     under [permissions]"
                ));
            }
        }
        for word in &self.types {
            crate::job::check_name("manifest key `types`: type", word)?;
            if word.contains('/') {
                return Err(format!("manifest key `types`: `{}` must be a bare word without `/`", visible(word)));
            }
        }
        Ok(())
    }
}

/// Everything a job's `type` may say to mean this jumpscript.
#[must_use]
pub fn words(name: &ScriptName, manifest: &Manifest) -> Vec<String> {
    let mut words = vec![name.to_string()];
    if name.organization() == OWN_ORGANIZATION {
        words.push(name.name().to_owned());
    }
    for word in &manifest.types {
        if !words.contains(word) {
            words.push(word.clone());
        }
    }
    words
}

/// Appends a manifest to a Wasm file as its section [`MANIFEST_SECTION`], so that the digest covers it and a lone
/// file is complete. A section that the file has already is overruled: of several, the last one counts.
#[must_use]
pub fn embed_manifest(wasm: &[u8], manifest: &str) -> Vec<u8> {
    let mut body = Vec::with_capacity(manifest.len() + MANIFEST_SECTION.len() + 4);
    write_leb128(&mut body, MANIFEST_SECTION.len());
    body.extend_from_slice(MANIFEST_SECTION.as_bytes());
    body.extend_from_slice(manifest.as_bytes());
    let mut whole = Vec::with_capacity(wasm.len() + body.len() + 8);
    whole.extend_from_slice(wasm);
    // Section number 0 is a custom section, in modules and components alike.
    whole.push(0);
    write_leb128(&mut whole, body.len());
    whole.extend_from_slice(&body);
    whole
}

/// A number in the variable-length form of the Wasm binary format.
fn write_leb128(to: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        to.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    to.push(number as u8);
}

/// Reads `major.minor.patch` (later parts may be missing) so that versions can be compared.
///
/// # Errors
/// A sentence that names the text and the form.
pub fn parse_version(text: &str) -> Result<(u64, u64, u64), String> {
    let bad = || format!("version `{}` must be numbers such as 1.2.3", visible(text));
    let mut parts = text.split('.').map(|part| part.parse::<u64>().map_err(|_| bad()));
    let mut next = || parts.next().unwrap_or(Ok(0));
    let version = (next()?, next()?, next()?);
    if parts.next().is_some() { Err(bad()) } else { Ok(version) }
}

/// The record in `workers:jumpscripts:id` and `:name`: the fields that JumpScale's programs read, and ours (`kind`,
/// `digest`, `size`, `manifest`, `published_at`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Jumpscript {
    /// The number under which `workers:jumpscripts:id` lists it.
    pub id: u64,
    /// Who published it.
    pub organization: String,
    /// Its name within the organization.
    pub name: String,
    /// `major.minor.patch`.
    #[serde(default)]
    pub version: String,
    /// One line for people (JumpScale's spelling).
    #[serde(default)]
    pub descr: String,
    /// JumpScale's switch; a disabled jumpscript runs no job.
    #[serde(default = "yes")]
    pub enable: bool,
    /// What the file is.
    pub kind: Kind,
    /// The jumpscript that runs it, for kind `source`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interpreter: Option<String>,
    /// The address of the code in `workers:jumpscripts:wasm`.
    pub digest: Digest,
    /// Bytes of the Wasm file.
    pub size: u64,
    /// What it says about itself.
    #[serde(default)]
    pub manifest: Manifest,
    /// Unix seconds of the publish.
    #[serde(default)]
    pub published_at: i64,
    /// Who vouches for it, see [`Jumpscript::signature`]; null when nobody does.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub signature: serde_json::Value,
}

const fn yes() -> bool {
    true
}

impl Jumpscript {
    /// Its signature, when it has one. Whether it is good is not looked at.
    ///
    /// # Errors
    /// A sentence when what stands there is no signature.
    pub fn signature(&self) -> Result<Option<Signature>, String> {
        match &self.signature {
            serde_json::Value::Null => Ok(None),
            other => Signature::parse(&other.to_string()).map(Some),
        }
    }

    /// The id of the key that signed it, for people; empty when nobody did.
    #[must_use]
    pub fn signed_by(&self) -> String {
        match self.signature() {
            Ok(signature) => signature.map(|signature| signature.key.id()).unwrap_or_default(),
            Err(_) => "(no signature)".to_owned(),
        }
    }

    /// Its full name.
    ///
    /// # Errors
    /// A sentence when the record's own parts break the rules of a name.
    pub fn script_name(&self) -> Result<ScriptName, String> {
        ScriptName::new(&self.organization, &self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_name_belongs_to_our_own_organization() {
        assert_eq!("echo".parse::<ScriptName>().unwrap().to_string(), "wasmhost/echo");
        assert_eq!("acme/resize".parse::<ScriptName>().unwrap().field(), "acme__resize");
        assert_eq!(ScriptName::from_field("acme__resize").unwrap().to_string(), "acme/resize");
    }

    #[test]
    fn names_that_leave_their_place_are_refused() {
        for bad in ["../etc", "a/../b", "a/b/c", "a__b", "", "-x", "a b", "ü"] {
            assert!(bad.parse::<ScriptName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_manifest_names_the_unknown_key_and_the_bad_value() {
        assert!(Manifest::parse("nmae = 'x'").unwrap_err().contains("nmae"));
        assert!(Manifest::parse("timeout = '0s'").unwrap_err().contains("`timeout`"));
        assert!(Manifest::parse("version = 'one'").unwrap_err().contains("`one`"));
        assert_eq!(Manifest::parse("types = ['echo']").unwrap().types, ["echo"]);
    }

    #[test]
    fn the_life_of_a_bucket_is_checked_and_read() {
        let parse = |name: &str, expires: &str| {
            Manifest::parse(&format!(
                "[permissions]\nstate = ['mine-*', 'read:ro']\n[state.'{name}']\nexpires = '{expires}'\n"
            ))
        };
        let life = |expires: &str| parse("mine-x", expires).unwrap().bucket_lives()["mine-x"];
        assert_eq!(life("7d"), Duration::from_secs(7 * 86_400));
        assert_eq!(life("90m"), Duration::from_secs(5_400));
        for (name, expires, part) in [
            ("mine-x", "59s", "between 1m and 365d"),
            ("mine-x", "366d", "between 1m and 365d"),
            ("mine-x", "soon", "a number and a unit"),
            ("read", "7d", "may not write"),
            ("other", "7d", "add \"other\" to `state`"),
        ] {
            let error = parse(name, expires).unwrap_err();
            assert!(error.contains(part), "{name} {expires}: {error}");
        }
        let manifest = parse("mine-x", "7d").unwrap();
        assert_eq!(Manifest::parse(&toml::to_string(&manifest).unwrap()), Ok(manifest));
    }

    #[test]
    fn the_retry_table_of_a_manifest_is_checked_and_read() {
        for (text, part) in [
            ("base = '0s'", "`retry.base`"),
            ("base = 'soon'", "`retry.base`"),
            ("cap = '25h'", "`retry.cap`"),
            ("base = '2s'\ncap = '1s'", "`retry.cap`"),
            ("max_attempts = 0", "`retry.max_attempts`"),
            ("max_attempts = 1001", "`retry.max_attempts`"),
            ("max_attempts = -1", "max_attempts"),
            ("bsae = '1s'", "bsae"),
        ] {
            let error = Manifest::parse(&format!("[retry]\n{text}")).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
        let manifest = Manifest::parse("[retry]\nbase = '5ms'\nmax_attempts = 2").unwrap();
        let wish = RetryWish { base: Some(Duration::from_millis(5)), cap: None, max_attempts: Some(2) };
        assert_eq!(manifest.retry_wish(), wish);
        assert_eq!(toml::from_str::<Manifest>(&toml::to_string(&manifest).unwrap()).unwrap(), manifest);
    }

    #[test]
    fn an_embedded_manifest_is_a_custom_section_of_its_length() {
        let wasm = embed_manifest(b"\0asm", &"x".repeat(200));
        let body = 1 + MANIFEST_SECTION.len() + 200;
        assert_eq!(wasm.len(), 4 + 1 + 2 + body);
        assert_eq!(&wasm[4..8], &[0, (body & 0x7f) as u8 | 0x80, (body >> 7) as u8, MANIFEST_SECTION.len() as u8]);
    }

    #[test]
    fn versions_compare_as_numbers() {
        assert!(parse_version("1.10").unwrap() > parse_version("1.9.9").unwrap());
        assert!(parse_version("1.2.3.4").is_err());
    }

    #[test]
    fn a_digest_reads_what_it_writes() {
        let digest = Digest::of(b"wasm");
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!("abc".parse::<Digest>().is_err());
    }
}
