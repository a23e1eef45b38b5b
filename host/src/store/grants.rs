//! What was granted to code by its digest, and under which names code was published.
//!
//! Invariant: a change counts only if nobody else changed the same grant meanwhile, and every change is a new revision,
//! which every host learns with its next answer from Redis.
//!
//! Next: `lua/grant.lua`, `lua/publish.lua` for the names; `executor/permits.rs` for who asks.

use redis::Value;
use serde::{Deserialize, Serialize};

use super::script::{self, Lanes, Reply};
use super::{Act, Error, Store};
use crate::clock::Timestamp;
use crate::job::visible;
use crate::jumpscript::Digest;
use crate::permissions::Permissions;
use crate::ports::{BoxFuture, CodeGrants, GrantSource};

/// How often a change is tried anew when others change the same grant.
const TRIES: usize = 8;

/// What was granted to one digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantRecord {
    /// The code it was granted to.
    pub digest: Digest,
    /// What the code was called when it was granted; empty when nobody said.
    #[serde(default)]
    pub name: String,
    /// Who granted it last: the user and machine of the command.
    #[serde(default)]
    pub by: String,
    /// Unix seconds of the last change.
    #[serde(default)]
    pub at: i64,
    /// What is granted.
    pub permissions: Permissions,
}

/// Every grant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GrantList {
    /// The grants by digest.
    pub grants: Vec<GrantRecord>,
    /// Fields that are no grant, with the reason; they grant nothing.
    pub refused: Vec<(String, String)>,
}

impl Store {
    /// Every grant.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn grants(&self) -> Result<GrantList, Error> {
        let mut command = redis::cmd("HGETALL");
        command.arg(self.keys.grants());
        let what = "the grants";
        let mut reply = Reply::new(self.link.command(what, &command).await?, self.address(), what);
        let mut list = GrantList::default();
        while !reply.is_empty() {
            let (field, text) = (reply.text()?, reply.bytes()?);
            match parse(&field, &text) {
                Ok(record) => list.grants.push(record),
                Err(reason) => list.refused.push((field, reason)),
            }
        }
        list.grants.sort_by(|a, b| (&a.name, a.digest).cmp(&(&b.name, b.digest)));
        list.refused.sort();
        Ok(list)
    }

    /// Changes what is granted to a digest: `change` is given what is granted now, and its result is what will be.
    /// Nothing left removes the grant. `act` is what the audit stream says. Answers what is granted now.
    ///
    /// # Errors
    /// When a value breaks its rule, when others keep changing the same grant, or when Redis cannot be reached.
    pub async fn change_grant(
        &self,
        digest: Digest,
        name: &str,
        act: Act,
        change: impl Fn(&mut Permissions),
    ) -> Result<Option<GrantRecord>, Error> {
        for _ in 0..TRIES {
            let seen = self.grant_text(&digest).await?;
            let old = parse(&digest.to_string(), &seen).ok();
            let mut permissions = old.as_ref().map(|old| old.permissions.clone()).unwrap_or_default();
            change(&mut permissions);
            permissions.check(|key| format!("the grant of `{key}`")).map_err(Error::Refused)?;
            let record = GrantRecord {
                digest,
                name: if name.is_empty() { old.map(|old| old.name).unwrap_or_default() } else { name.to_owned() },
                by: self.who().to_owned(),
                at: Timestamp::now().millis().div_euclid(1000),
                permissions,
            };
            let record = (!record.permissions.is_empty()).then_some(record);
            let text = record.as_ref().map(serde_json::to_string).transpose();
            let text = text.map_err(|error| Error::Refused(format!("the grant cannot be written: {error}")))?;
            let mut call = self.call(&script::GRANT, &Lanes::default(), &[self.keys.grants()]);
            call.arg(digest.to_string()).arg(seen).arg(text.unwrap_or_default()).arg(self.who()).arg(act.as_str());
            let words = record.as_ref().map_or_else(|| "nothing".to_owned(), |record| record.permissions.in_words());
            call.arg(name).arg(words);
            if self.send("a grant", &script::GRANT, &call).await?.text()? == "set" {
                return Ok(record);
            }
        }
        Err(Error::Refused(format!("others keep changing the grant of {}; try again", digest.short())))
    }

    async fn grant_text(&self, digest: &Digest) -> Result<Vec<u8>, Error> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.grants()).arg(digest.to_string());
        Ok(match self.link.command("a grant", &command).await? {
            Value::BulkString(text) => text,
            _ => Vec::new(),
        })
    }

    /// What Redis says about the permissions of code.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn code_grants(&self, digest: &Digest) -> Result<CodeGrants, Error> {
        // The revision first: what is read after it is at least as new.
        let rev = self.rev().await?;
        let granted = match self.grant_text(digest).await? {
            text if text.is_empty() => Permissions::default(),
            text => parse(&digest.to_string(), &text).map(|record| record.permissions).unwrap_or_else(|reason| {
                tracing::warn!(digest = %digest.short(), reason, "a grant is broken and grants nothing");
                Permissions::default()
            }),
        };
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.published()).arg(digest.to_string());
        let names = match self.link.command("the names of code", &command).await? {
            Value::BulkString(names) => String::from_utf8_lossy(&names).split(' ').map(str::to_owned).collect(),
            _ => Vec::new(),
        };
        Ok(CodeGrants { rev, names, granted })
    }
}

/// Reads a grant. One that stands under another digest than its own is none.
fn parse(field: &str, text: &[u8]) -> Result<GrantRecord, String> {
    let record: GrantRecord = serde_json::from_slice(text).map_err(|error| format!("its JSON is no grant: {error}"))?;
    if record.digest.to_string() != field {
        return Err(format!("it stands under `{}`, but is for {}", visible(field), record.digest));
    }
    record.permissions.check(|key| format!("its `{key}`"))?;
    Ok(record)
}

impl GrantSource for Store {
    fn grants<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<CodeGrants, String>> {
        Box::pin(async move { self.code_grants(digest).await.map_err(|error| error.to_string()) })
    }
}
