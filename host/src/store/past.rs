//! What was live under a name, and taking a name away.
//!
//! Invariant: the history is written by the scripts that change what is live (`lua/past.lua`), the newest entry first, at
//! most [`HISTORY_MAX`] of each name; the code of every digest in it is kept.

use redis::Value;
use serde::{Deserialize, Serialize};

use super::script::{self, Lanes};
use super::{Act, Error, Store};
use crate::jumpscript::{Digest, ScriptName};

/// Entries that the history of a name keeps.
pub const HISTORY_MAX: usize = 20;
/// Days that the history of a removed name is kept.
pub const HISTORY_REMOVED_DAYS: u32 = 30;

/// One entry of a name's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Unix seconds, by the server's clock.
    pub at: i64,
    /// What was done: `published`, `rolled-back`, `adopted`, `removed`.
    pub act: String,
    /// Who did it.
    #[serde(default)]
    pub by: String,
    /// The code that was live from then on; none when the name was removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<Digest>,
    /// Its version; empty when it has none.
    #[serde(default)]
    pub version: String,
    /// Bytes of its code.
    #[serde(default)]
    pub size: u64,
    /// The id of the key that signed it; empty when it was not signed.
    #[serde(default)]
    pub signed_by: String,
}

/// An entry without its time, which the script writes: a JSON object from its first field on.
pub(super) fn line(past: &Past) -> String {
    let mut object = match serde_json::to_value(past) {
        Ok(serde_json::Value::Object(object)) => object,
        // A struct of text and numbers always becomes an object.
        _ => serde_json::Map::new(),
    };
    object.remove("at");
    serde_json::Value::Object(object).to_string().split_off(1)
}

impl Store {
    /// What was live under a name, the newest first; nothing when it never was published. What is no entry is passed
    /// over.
    ///
    /// # Errors
    /// When Redis cannot be reached.
    pub async fn history(&self, name: &ScriptName) -> Result<Vec<Past>, Error> {
        let mut command = redis::cmd("HGET");
        command.arg(self.keys.history()).arg(name.field());
        Ok(match self.link.command("the history of a jumpscript", &command).await? {
            Value::BulkString(text) => {
                text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
            }
            _ => Vec::new(),
        })
    }

    /// Removes a name: its record and everything that a job's type may say to mean it. `false` when nothing is
    /// published under it. Its history stays for [`HISTORY_REMOVED_DAYS`] days, and with it the code.
    ///
    /// # Errors
    /// When a key is of the wrong type, or Redis cannot be reached.
    pub async fn unpublish(&self, name: &ScriptName) -> Result<bool, Error> {
        let past = Past {
            at: 0,
            act: Act::Removed.as_str().to_owned(),
            by: self.who().to_owned(),
            digest: None,
            version: String::new(),
            size: 0,
            signed_by: String::new(),
        };
        let mut call = self.call(&script::UNPUBLISH, &Lanes::default(), &self.publish_keys());
        call.arg(name.field()).arg(name.to_string()).arg(self.who()).arg(line(&past));
        let mut reply = self.send("the removal of a jumpscript", &script::UNPUBLISH, &call).await?;
        Ok(reply.number()? == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scripts_keep_as_much_as_the_constants_say() {
        let past = include_str!("lua/past.lua");
        assert!(past.contains(&format!("HISTORY_MAX = {HISTORY_MAX}\n")), "{past}");
        assert!(past.contains(&format!("REMOVED_DAYS = {HISTORY_REMOVED_DAYS}\n")), "{past}");
    }
}
