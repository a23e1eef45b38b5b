//! What was live before, going back to it, and removing a name.

use std::path::Path;
use std::process::ExitCode;

use serde::Serialize;
use serde_json::json;

use super::super::{Failure, Global, Output, print};
use super::{dash, not_published};
use crate::clock::Timestamp;
use crate::host::Back;
use crate::job::{JobState, visible};
use crate::jumpscript::{Digest, Manifest, ScriptName, words};
use crate::store::{Filter, Listed, PAGE_MAX, Past, Store};

/// Pages of one state that are counted; of more jobs it is said that there are more.
const PAGES_MAX: usize = 20;

/// Prints what was live under a name.
pub(super) async fn history(global: &Global, name: &ScriptName) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    let history = store.history(name).await?;
    if history.is_empty() {
        return Err(not_published(&store, name).await?);
    }
    let live = store.script(name).await?.map(|live| live.digest);
    match global.output {
        Output::Json => {
            #[derive(Serialize)]
            struct Shape<'a> {
                name: String,
                live: Option<Digest>,
                history: &'a [Past],
            }
            print::json(&Shape { name: name.to_string(), live, history: &history });
        }
        Output::Text => {
            let mut is_seen = false;
            let rows = history.iter().map(|past| {
                let is_live = !is_seen && past.digest.is_some() && past.digest == live;
                is_seen |= is_live;
                row(past, is_live)
            });
            print::table(["WHEN", "DID", "DIGEST", "VERSION", "SIZE", "SIGNED BY", "WHO", ""], rows);
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(past: &Past, is_live: bool) -> [String; 8] {
    [
        Timestamp::from_millis(past.at.saturating_mul(1000)).to_string(),
        visible(&past.act),
        past.digest.map_or_else(|| "-".to_owned(), |digest| digest.short()),
        dash(&past.version),
        if past.digest.is_some() { past.size.to_string() } else { "-".to_owned() },
        dash(&past.signed_by),
        dash(&past.by),
        if is_live { "live" } else { "" }.to_owned(),
    ]
}

/// Makes earlier code live again.
pub(super) async fn roll_back(
    global: &Global,
    name: &ScriptName,
    to: Option<String>,
    key: Option<&Path>,
) -> Result<ExitCode, Failure> {
    let publisher = global.publisher(key).await?;
    let back = to.map_or(Back::Before, Back::To);
    let live = publisher.roll_back(name, &back).await.map_err(|error| Failure::from_text(&error.to_string()))?;
    match global.output {
        Output::Json => print::json(&json!({
            "name": live.name.to_string(), "digest": live.digest, "version": live.version, "is_new": live.is_new,
        })),
        Output::Text => {
            let version = if live.version.is_empty() { String::new() } else { format!(" version {}", live.version) };
            print::line(&format!("rolled back {} to {}{version}: live on every node", live.name, live.digest.short()));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Removes a name.
pub(super) async fn remove(global: &Global, name: &ScriptName, is_forced: bool) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    // A record that does not parse can be removed, too: then only its own name is known.
    let manifest = match store.script(name).await {
        Ok(Some(script)) => script.manifest,
        Ok(None) => return Err(not_published(&store, name).await?),
        Err(crate::store::Error::Refused(_)) => Manifest::default(),
        Err(error) => return Err(error.into()),
    };
    let waiting = waiting(&store, &words(name, &manifest)).await?;
    let counts = waiting.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    if !waiting.is_empty() && !is_forced {
        return Err(Failure::new(format!(
            "jobs of jumpscript `{name}` have not ended ({counts}); nothing was removed"
        ))
        .hint(
            "--force removes it all the same: those that still wait are then rejected and go to the dead-letter queue",
        ));
    }
    if !store.unpublish(name).await? {
        return Err(Failure::new(format!("jumpscript `{name}` was removed just now")));
    }
    match global.output {
        Output::Json => {
            let left: serde_json::Map<String, serde_json::Value> =
                waiting.iter().map(|count| (count.state.to_owned(), count.n.into())).collect();
            print::json(&json!({ "name": name.to_string(), "did": "removed", "jobs": left }));
        }
        Output::Text => {
            print::line(&format!("removed {name}"));
            if !waiting.is_empty() {
                print::note(&format!("warning: its jobs that still wait will be rejected ({counts})"));
            }
            print::note(&format!(
                "`wasmhost scripts rollback {}` brings it back; a host with its file in --scripts publishes it again when it starts",
                name.short()
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Jobs of a name in one state.
struct Count {
    state: &'static str,
    n: usize,
    is_more: bool,
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}{}", self.state, self.n, if self.is_more { " or more" } else { "" })
    }
}

/// How many jobs whose type is one of `words` have not ended, by state; states without any are left out.
async fn waiting(store: &Store, words: &[String]) -> Result<Vec<Count>, Failure> {
    let mut counts = Vec::new();
    for listed in [
        Listed::State(JobState::Ready),
        Listed::Parked,
        Listed::State(JobState::Scheduled),
        Listed::State(JobState::Inflight),
    ] {
        let mut count = Count { state: listed.as_str(), n: 0, is_more: false };
        for word in words {
            let filter = Filter { listed: Some(listed), job_type: Some(word.clone()), ..Filter::default() };
            let mut cursor = None;
            for page in 0.. {
                let found = store.find(&filter, cursor.as_deref(), PAGE_MAX).await?;
                count.n += found.jobs.len();
                cursor = found.next;
                if cursor.is_none() {
                    break;
                }
                if page == PAGES_MAX {
                    count.is_more = true;
                    break;
                }
            }
        }
        if count.n > 0 || count.is_more {
            counts.push(count);
        }
    }
    Ok(counts)
}
