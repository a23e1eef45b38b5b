//! Who did what: the audit stream.
//!
//! Invariant: an entry is written by the script that does the act (`lua/audit.lua`), with the server's time, and nothing
//! on the way of a job writes one. The stream keeps the last [`AUDIT_MAX`] entries or some more.

use redis::Value;
use serde::Serialize;

use super::script::{Call, Reply};
use super::{Error, Store};
use crate::clock::Timestamp;
use crate::job::visible;

/// Entries that the audit stream keeps.
pub const AUDIT_MAX: u32 = 10_000;
/// Most entries of one page.
pub const AUDIT_PAGE_MAX: usize = 1000;
/// Longest text of an entry, in characters.
const TEXT_MAX: usize = 300;

/// What somebody did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Code went live under a name.
    Published,
    /// Code that had been live before went live again.
    RolledBack,
    /// A record that another program wrote, changed or removed took effect.
    Adopted,
    /// A name means nothing any more.
    Removed,
    /// A permission was granted to a digest.
    Granted,
    /// A permission was taken back.
    Revoked,
    /// Dead jobs wait again.
    Requeued,
    /// Dead jobs were removed for good.
    Dropped,
    /// Dead jobs of another Redis were written.
    Imported,
    /// Jobs of a queue were removed with their rows.
    Purged,
    /// A job was cancelled by hand.
    Cancelled,
    /// A queue hands out nothing.
    Paused,
    /// It does again.
    Resumed,
    /// A queue's settings were changed.
    QueueSet,
    /// Structures were mended.
    Repaired,
}

impl Act {
    /// The word in the stream and on screens.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::RolledBack => "rolled-back",
            Self::Adopted => "adopted",
            Self::Removed => "removed",
            Self::Granted => "granted",
            Self::Revoked => "revoked",
            Self::Requeued => "requeued",
            Self::Dropped => "dropped",
            Self::Imported => "imported",
            Self::Purged => "purged",
            Self::Cancelled => "cancelled",
            Self::Paused => "paused",
            Self::Resumed => "resumed",
            Self::QueueSet => "queue-set",
            Self::Repaired => "repaired",
        }
    }
}

/// One entry of the audit stream. Its texts may say anything: who shows them makes control characters visible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Its place in the stream.
    pub id: String,
    /// When, by the server's clock.
    #[serde(serialize_with = "as_text")]
    pub at: Timestamp,
    /// Who: `user@machine` of a command, `node NAME` of a host, `http ADDRESS` of a request.
    pub who: String,
    /// What was done.
    pub act: String,
    /// To what: a jumpscript, a queue, a job.
    pub target: String,
    /// How many it was done to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u64>,
    /// What else there is to say.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// A page of the audit stream, the newest entry first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct AuditPage {
    /// The entries.
    pub entries: Vec<AuditEntry>,
    /// Where the next page begins; `None` when this was the last.
    pub next: Option<String>,
}

/// Who acts, as the audit stream says it: bounded, and one line.
pub(super) fn bounded(text: &str) -> String {
    visible(&text.chars().take(TEXT_MAX).collect::<String>())
}

impl Store {
    /// A handle whose acts are noted as those of `who`.
    #[must_use]
    pub fn acting_as(&self, who: &str) -> Self {
        Self { who: bounded(who).into(), ..self.clone() }
    }

    /// Who acts through this handle.
    pub(super) fn who(&self) -> &str {
        &self.who
    }

    /// Entries of the audit stream from `since` on, the newest first: the page that begins at `cursor`, which the page
    /// before it ended with.
    ///
    /// # Errors
    /// When the cursor is none, the key is not a stream, or Redis cannot be reached.
    pub async fn audit(
        &self,
        since: Option<Timestamp>,
        cursor: Option<&str>,
        limit: usize,
    ) -> Result<AuditPage, Error> {
        let limit = limit.clamp(1, AUDIT_PAGE_MAX);
        let from = match cursor {
            Some(cursor) if is_entry_id(cursor) => cursor.to_owned(),
            Some(cursor) => {
                let shown = visible(&cursor.chars().take(80).collect::<String>());
                return Err(Error::Refused(format!("`{shown}` is no cursor of the audit stream")));
            }
            None => "+".to_owned(),
        };
        let mut command = redis::cmd("XREVRANGE");
        command.arg(self.keys.audit()).arg(from);
        match since {
            Some(since) => command.arg(since.millis().max(0)),
            None => command.arg("-"),
        };
        command.arg("COUNT").arg(limit + 1);
        let what = "the audit stream";
        let mut reply = Reply::new(self.link.command(what, &command).await?, self.address(), what);
        let mut page = AuditPage::default();
        while !reply.is_empty() {
            let mut entry = reply.nested()?;
            let id = entry.text()?;
            if page.entries.len() == limit {
                page.next = Some(id);
                break;
            }
            page.entries.push(read(id, entry.nested()?)?);
        }
        Ok(page)
    }

    /// What a script of `lua/audit.lua` takes first: who acts.
    pub(super) fn sign(&self, call: &mut Call) {
        call.arg(self.who());
    }
}

fn as_text<S: serde::Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(at)
}

/// The id of an entry: milliseconds, a dash, a number.
fn is_entry_id(text: &str) -> bool {
    let is_number = |part: &str| !part.is_empty() && part.len() <= 20 && part.bytes().all(|byte| byte.is_ascii_digit());
    text.split_once('-').is_some_and(|(ms, n)| is_number(ms) && is_number(n))
}

fn read(id: String, mut fields: Reply) -> Result<AuditEntry, Error> {
    let ms = id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(0);
    let mut entry = AuditEntry {
        id,
        at: Timestamp::from_millis(ms),
        who: String::new(),
        act: String::new(),
        target: String::new(),
        n: None,
        detail: String::new(),
    };
    while !fields.is_empty() {
        let name = fields.text()?;
        let value = match fields.next()? {
            Value::BulkString(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Value::SimpleString(text) => text,
            _ => String::new(),
        };
        match name.as_str() {
            "who" => entry.who = value,
            "act" => entry.act = value,
            "target" => entry.target = value,
            "n" => entry.n = value.parse().ok(),
            "detail" => entry.detail = value,
            _ => {}
        }
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_keeps_as_many_entries_as_the_constant_says() {
        let text = include_str!("lua/audit.lua");
        assert!(text.contains(&format!("':audit', {AUDIT_MAX}\n")), "{text}");
    }

    #[test]
    fn a_cursor_is_an_id_of_an_entry() {
        assert!(is_entry_id("1800000000000-0"));
        for wrong in ["", "-", "1-", "-1", "+", "1", "1-0 COUNT", "1-x"] {
            assert!(!is_entry_id(wrong), "{wrong}");
        }
    }
}
