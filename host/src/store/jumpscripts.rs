//! The jumpscript cache in Redis: records, code, and which code a job's type means.
//!
//! Invariant: publishing is one script; at any moment a type means one digest whose code lies in
//! `workers:jumpscripts:wasm`. Code is addressed by its digest and checked against it whenever it is read.
//!
//! Next: `lua/publish.lua`; the reserve reads the same route.

use std::collections::BTreeMap;

use redis::Value;

use super::past::{self, Past};
use super::script::{self, Lanes, Reply};
use super::{Act, Error, Store};
use crate::jumpscript::{Digest, Jumpscript, Kind, Manifest, ScriptName, Source, WASM_BYTES_MAX, words};
use crate::ports::{BoxFuture, CodeSource, PublishRule};
use crate::signatures::Signature;

/// Longest record in bytes: a manifest of 64 KiB, quoted, and a signature.
const RECORD_BYTES_MAX: usize = 256 * 1024;
/// Names of one digest whose signatures are looked at.
const NAMES_MAX: usize = 20;

/// What is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewJumpscript {
    /// Its full name.
    pub name: ScriptName,
    /// What the file is.
    pub kind: Kind,
    /// What it says about itself.
    pub manifest: Manifest,
}

/// How code comes to be live, for the history and the audit stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct How {
    /// [`Act::Published`] or [`Act::RolledBack`].
    pub act: Act,
    /// Whether what is live already under the name stays.
    pub rule: PublishRule,
    /// Who vouches for it.
    pub signature: Option<Signature>,
}

impl From<PublishRule> for How {
    fn from(rule: PublishRule) -> Self {
        Self { act: Act::Published, rule, signature: None }
    }
}

/// What a publish did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// The number of the record.
    pub id: u64,
    /// The revision now.
    pub rev: u64,
    /// The digest that is live now under the name.
    pub digest: Digest,
    /// The digest that was live before, if it was another.
    pub replaced: Option<Digest>,
    /// Whether anything was written; the same record again writes nothing.
    pub is_new: bool,
}

/// Everything that is published.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// The revision; 0 when nothing is published.
    pub rev: u64,
    /// The records by name.
    pub scripts: Vec<Jumpscript>,
    /// Fields of `workers:jumpscripts:name` that are no jumpscript of ours, with the reason.
    pub refused: Vec<(String, String)>,
}

/// What was found in the cache that another program wrote.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Adopted {
    /// Names that are live now as the record says.
    pub adopted: Vec<ScriptName>,
    /// Fields that were skipped, with the reason.
    pub refused: Vec<(String, String)>,
}

impl Store {
    /// Publishes code under a name, live on every node at once.
    ///
    /// # Errors
    /// [`Error::Claimed`] when a type word belongs to another jumpscript; when the code is too large; when Redis
    /// cannot be reached or is full.
    pub async fn publish(&self, script: &NewJumpscript, wasm: &[u8], how: impl Into<How>) -> Result<Published, Error> {
        let How { act, rule, signature } = how.into();
        if wasm.len() > WASM_BYTES_MAX {
            return Err(Error::Refused(format!(
                "jumpscript `{}` has {} bytes of code, at most {WASM_BYTES_MAX} are allowed",
                script.name,
                wasm.len()
            )));
        }
        script.manifest.check().map_err(|why| Error::Refused(format!("jumpscript `{}`: {why}", script.name)))?;
        let digest = Digest::of(wasm);
        let words = words(&script.name, &script.manifest);
        let mut call = self.call(&script::PUBLISH, &Lanes::default(), &self.publish_keys());
        call.arg(script.name.field()).arg(script.name.to_string()).arg(digest.to_string()).arg(wasm);
        call.arg(record_text(script, digest, wasm, signature.as_ref()))
            .arg(script.manifest.version.as_deref().unwrap_or(""));
        let past = Past {
            at: 0,
            act: act.as_str().to_owned(),
            by: self.who().to_owned(),
            digest: Some(digest),
            version: script.manifest.version.clone().unwrap_or_default(),
            size: wasm.len() as u64,
            signed_by: signature.as_ref().map(|signature| signature.key.id()).unwrap_or_default(),
        };
        call.arg(u8::from(rule == PublishRule::AbsentOrNewer));
        call.arg(self.who()).arg(act.as_str()).arg(past::line(&past));
        call.arg(signature.map(|signature| signature.text()).unwrap_or_default()).arg(words.len());
        for word in &words {
            call.arg(word);
        }
        let mut reply = self.send("a publish", &script::PUBLISH, &call).await?;
        let answer = reply.text()?;
        if answer == "claimed" {
            let (word, owner) = (reply.text()?, reply.text()?);
            return Err(Error::Claimed { word, name: script.name.to_string(), owner });
        }
        let id = reply.number()?.unsigned_abs();
        let rev = reply.text()?.parse().unwrap_or(0);
        let live = reply.text()?.parse().unwrap_or(digest);
        let is_new = answer == "new";
        let replaced = if is_new { reply.text()?.parse().ok() } else { None };
        Ok(Published { id, rev, digest: live, replaced, is_new })
    }

    /// The keys of `lua/past.lua`.
    pub(super) fn publish_keys(&self) -> [String; 7] {
        let keys = &self.keys;
        [
            keys.scripts_by_id(),
            keys.wasm(),
            keys.last_id(),
            keys.history(),
            keys.owners(),
            keys.signatures(),
            keys.published(),
        ]
    }

    /// Every record.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn index(&self) -> Result<Index, Error> {
        let mut index = Index { rev: self.rev().await?, ..Index::default() };
        for (field, text) in self.records().await? {
            match text.and_then(|text| parse(&field, &text)) {
                Ok(Some(record)) => index.scripts.push(record),
                Ok(None) => {
                    index.refused.push((field, "it has no Wasm digest: not a jumpscript of wasmhost".to_owned()))
                }
                Err(reason) => index.refused.push((field, reason)),
            }
        }
        index.scripts.sort_by(|a, b| (&a.organization, &a.name).cmp(&(&b.organization, &b.name)));
        index.refused.sort();
        Ok(index)
    }

    pub(super) async fn rev(&self) -> Result<u64, Error> {
        let mut command = redis::cmd("GET");
        command.arg(self.keys.rev());
        let value = self.link.command("the revision", &command).await?;
        Ok(match value {
            Value::BulkString(bytes) => {
                std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
            }
            _ => 0,
        })
    }

    /// The hash of records as it is: field, and text or why it is not looked at.
    async fn records(&self) -> Result<Vec<(String, Result<Vec<u8>, String>)>, Error> {
        let mut call = self.call(&script::RECORDS, &Lanes::default(), &[]);
        call.arg(RECORD_BYTES_MAX);
        let mut reply = self.send("the jumpscripts", &script::RECORDS, &call).await?;
        let mut records = Vec::with_capacity(reply.len() / 3);
        while !reply.is_empty() {
            let (field, length, text) = (reply.text()?, reply.number()?.unsigned_abs(), reply.bytes()?);
            let text = if length <= RECORD_BYTES_MAX as u64 {
                Ok(text)
            } else {
                Err(format!("it has {length} bytes, at most {RECORD_BYTES_MAX} are allowed"))
            };
            records.push((field, text));
        }
        Ok(records)
    }

    /// One record; `None` when the name is not published.
    ///
    /// # Errors
    /// When Redis cannot be reached, or the record does not parse.
    pub async fn script(&self, name: &ScriptName) -> Result<Option<Jumpscript>, Error> {
        let (what, key, field) = ("a jumpscript", self.keys.scripts_by_name(), name.field());
        let mut command = redis::cmd("HSTRLEN");
        command.arg(&key).arg(&field);
        if let Value::Int(length) = self.link.command(what, &command).await?
            && length > RECORD_BYTES_MAX as i64
        {
            return Err(Error::Refused(format!("the record of jumpscript `{name}` has {length} bytes: it is none")));
        }
        let mut command = redis::cmd("HGET");
        command.arg(key).arg(field);
        match self.link.command(what, &command).await? {
            Value::BulkString(text) => parse(&name.field(), &text)
                .map_err(|reason| Error::Refused(format!("the record of jumpscript `{name}` is broken: {reason}"))),
            _ => Ok(None),
        }
    }

    /// The digest that a job's type means now.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn route(&self, job_type: &str) -> Result<Option<Digest>, Error> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.route()).arg(job_type);
        Ok(match self.link.command("a route", &command).await? {
            Value::BulkString(route) => route_digest(&route),
            _ => None,
        })
    }

    /// Words that a job's type may say and that something serves: all of them, or some hundred of very many.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn types_served(&self) -> Result<Vec<String>, Error> {
        let mut command = redis::cmd("HSCAN");
        command.arg(self.keys.route()).arg(0).arg("COUNT").arg(500);
        let what = "the types that are served";
        let mut reply = Reply::new(self.link.command(what, &command).await?, self.address(), what);
        reply.next()?;
        let mut pairs = reply.nested()?;
        let mut types = Vec::with_capacity(pairs.len() / 2);
        while !pairs.is_empty() {
            types.push(pairs.text()?);
            pairs.next()?;
        }
        Ok(types)
    }

    /// The code of a digest, checked against it; `None` when it is not there.
    ///
    /// # Errors
    /// When the bytes are not those of the digest, or Redis cannot be reached.
    pub async fn wasm(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.wasm()).arg(digest.to_string());
        match self.link.command("the code of a jumpscript", &command).await? {
            Value::BulkString(wasm) if Digest::of(&wasm) == *digest => Ok(Some(wasm)),
            Value::BulkString(_) => Err(Error::Refused(format!(
                "the code stored under digest {} is not that code: it is not run; publish the jumpscript again",
                digest.short()
            ))),
            _ => Ok(None),
        }
    }

    /// The signatures of a digest, one for each name that it was live under. What is no signature is passed over.
    async fn signatures_of(&self, digest: &Digest) -> Result<Vec<Signature>, Error> {
        let what = "the signatures of a jumpscript";
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.owners()).arg(digest.to_string());
        let Value::BulkString(owners) = self.link.command(what, &command).await? else { return Ok(Vec::new()) };
        let owners = String::from_utf8_lossy(&owners).into_owned();
        let mut command = redis::cmd("HMGET");
        command.arg(self.keys.signatures());
        for owner in owners.split_whitespace().take(NAMES_MAX) {
            command.arg(format!("{digest} {owner}"));
        }
        let Value::Array(found) = self.link.command(what, &command).await? else { return Ok(Vec::new()) };
        let text = |value: Value| match value {
            Value::BulkString(bytes) => Signature::parse(std::str::from_utf8(&bytes).ok()?).ok(),
            _ => None,
        };
        Ok(found.into_iter().filter_map(text).collect())
    }

    /// Removes code that no name means, no history tells of, and no row may name any more; answers what was removed,
    /// at most 50.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn drop_unused(&self) -> Result<Vec<Digest>, Error> {
        let call = self.call(&script::DROP_UNUSED, &Lanes::default(), &self.publish_keys());
        let mut reply = self.send("a removal of unused code", &script::DROP_UNUSED, &call).await?;
        let mut removed = Vec::with_capacity(reply.len());
        while !reply.is_empty() {
            removed.extend(reply.text()?.parse::<Digest>().ok());
        }
        Ok(removed)
    }

    /// Looks through `workers:jumpscripts:name` for records that another program wrote, changed or removed: a sound
    /// one is routed to, any other skipped and named, and a name without a record means nothing any more.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn adopt_foreign(&self) -> Result<Adopted, Error> {
        self.adopt_foreign_if(&|_| Ok(())).await
    }

    /// As [`Store::adopt_foreign`], but takes only records that `admits` lets pass; the others are skipped and named with
    /// its reason.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn adopt_foreign_if(
        &self,
        admits: &(dyn Fn(&Jumpscript) -> Result<(), String> + Sync),
    ) -> Result<Adopted, Error> {
        let mut found = Adopted::default();
        // In this order: what is published in between looks removed or changed, and the script sees that it is not.
        let records = self.records().await?;
        let mut routes = self.routes().await?;
        for (field, text) in records {
            let text = match text {
                Ok(text) => text,
                Err(reason) => {
                    found.refused.push((field, reason));
                    continue;
                }
            };
            let record = match parse(&field, &text) {
                Ok(Some(record)) => record,
                // JumpScale's own jumpscripts are source text for its own workers.
                Ok(None) => continue,
                Err(reason) => {
                    found.refused.push((field, reason));
                    continue;
                }
            };
            let Ok(name) = record.script_name() else { continue };
            let live = routes.remove(&name.to_string());
            let words = if record.enable { words(&name, &record.manifest) } else { Vec::new() };
            if live == record.enable.then_some(record.digest) {
                continue;
            }
            if let Err(reason) = admits(&record) {
                found.refused.push((field, reason));
                continue;
            }
            match self.adopt(&name, &text, Some(&record), &words).await? {
                None => found.adopted.push(name),
                Some(reason) => found.refused.push((field, reason)),
            }
        }
        for gone in routes.into_keys() {
            if let Ok(name) = gone.parse::<ScriptName>() {
                self.adopt(&name, b"", None, &[]).await?;
            }
        }
        Ok(found)
    }

    /// Digest by full name, of every name that is routed.
    async fn routes(&self) -> Result<BTreeMap<String, Digest>, Error> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.route());
        let answer = self.link.command("the routes", &command).await?;
        let mut reply = Reply::new(answer, self.address(), "the routes");
        let mut routes = BTreeMap::new();
        while !reply.is_empty() {
            let (word, route) = (reply.text()?, reply.bytes()?);
            if let (true, Some(digest)) = (word.contains('/'), route_digest(&route)) {
                routes.insert(word, digest);
            }
        }
        Ok(routes)
    }

    /// Lets one record take effect; a reason when it must not. Without a record the name means nothing any more.
    async fn adopt(
        &self,
        name: &ScriptName,
        text: &[u8],
        record: Option<&Jumpscript>,
        words: &[String],
    ) -> Result<Option<String>, Error> {
        let act = if record.is_some() { Act::Adopted } else { Act::Removed };
        let digest = record.map(|record| record.digest.to_string()).unwrap_or_default();
        let past = Past {
            at: 0,
            act: act.as_str().to_owned(),
            by: format!("another program, seen by {}", self.who()),
            digest: record.map(|record| record.digest),
            version: record.map(|record| record.version.clone()).unwrap_or_default(),
            size: record.map(|record| record.size).unwrap_or_default(),
            signed_by: record.map(Jumpscript::signed_by).unwrap_or_default(),
        };
        let mut call = self.call(&script::ADOPT, &Lanes::default(), &self.publish_keys());
        call.arg(name.field()).arg(name.to_string()).arg(text).arg(&digest);
        call.arg(&past.by).arg(act.as_str()).arg(past::line(&past));
        let signature = record.and_then(|record| record.signature().ok().flatten());
        call.arg(signature.map(|signature| signature.text()).unwrap_or_default()).arg(words.len());
        for word in words {
            call.arg(word);
        }
        let mut reply = self.send("the adoption of a jumpscript", &script::ADOPT, &call).await?;
        Ok(match reply.text()?.as_str() {
            "set" => None,
            "changed" => Some("it is being changed right now".to_owned()),
            "missing" => Some(format!("its code {digest} is not in `workers:jumpscripts:wasm`")),
            _ => Some(format!("its type `{}` already belongs to `{}`", reply.text()?, reply.text()?)),
        })
    }
}

/// The record without `id` and `published_at`, which the script puts before it: from the first field on.
fn record_text(script: &NewJumpscript, digest: Digest, wasm: &[u8], signature: Option<&Signature>) -> String {
    let is_text = script.kind == Kind::Source;
    let interpreter = Source::decode(wasm).ok().filter(|_| is_text).map(|source| source.interpreter);
    let record = Jumpscript {
        id: 0,
        organization: script.name.organization().to_owned(),
        name: script.name.name().to_owned(),
        version: script.manifest.version.clone().unwrap_or_default(),
        descr: script.manifest.description.clone().unwrap_or_default(),
        enable: true,
        kind: script.kind,
        interpreter: interpreter.map(|name| name.to_string()),
        digest,
        size: wasm.len() as u64,
        manifest: script.manifest.clone(),
        published_at: 0,
        signature: signature.and_then(|signature| serde_json::to_value(signature).ok()).unwrap_or_default(),
    };
    let mut object = match serde_json::to_value(&record) {
        Ok(serde_json::Value::Object(object)) => object,
        // A struct of text, numbers and lists always becomes an object.
        _ => serde_json::Map::new(),
    };
    object.remove("id");
    object.remove("published_at");
    serde_json::Value::Object(object).to_string().split_off(1)
}

/// Reads a record; `None` for one without a digest, which is another program's and none of our business.
fn parse(field: &str, text: &[u8]) -> Result<Option<Jumpscript>, String> {
    let value: serde_json::Value =
        serde_json::from_slice(text).map_err(|error| format!("its JSON does not parse: {error}"))?;
    let Some(object) = value.as_object() else { return Err("its JSON is not an object".to_owned()) };
    if !object.contains_key("digest") {
        return Ok(None);
    }
    let record: Jumpscript = serde_json::from_value(value).map_err(|error| format!("its JSON is odd: {error}"))?;
    let name = record.script_name()?;
    if name.field() != field {
        return Err(format!("it stands under `{}`, but calls itself `{name}`", crate::job::visible(field)));
    }
    record.manifest.check()?;
    Ok(Some(record))
}

/// The digest of a route: `digest owner`.
fn route_digest(route: &[u8]) -> Option<Digest> {
    std::str::from_utf8(route.get(..64)?).ok()?.parse().ok()
}

impl CodeSource for Store {
    fn resolve<'a>(&'a self, name: &'a str) -> BoxFuture<'a, Result<Option<Digest>, String>> {
        Box::pin(async move { self.route(name).await.map_err(|error| error.to_string()) })
    }

    fn fetch<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Option<Vec<u8>>, String>> {
        Box::pin(async move { self.wasm(digest).await.map_err(|error| error.to_string()) })
    }

    fn signatures<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<Vec<Signature>, String>> {
        Box::pin(async move { self.signatures_of(digest).await.map_err(|error| error.to_string()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_know_the_longest_record() {
        for text in [
            include_str!("lua/sweep.lua"),
            include_str!("lua/publish.lua"),
            include_str!("lua/unpublish.lua"),
            include_str!("lua/drop_unused.lua"),
        ] {
            assert!(text.contains(&format!("local RECORD_BYTES_MAX = {RECORD_BYTES_MAX}\n")));
        }
    }
}
