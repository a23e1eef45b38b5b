//! `wasmhost scripts`: what is published, and what was.

mod past;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;

use super::grants::print_needs;
use super::{Failure, Global, Output, print};
use crate::clock::Timestamp;
use crate::job::visible;
use crate::jumpscript::{Jumpscript, ScriptName};
use crate::store::Store;

/// The verbs of `wasmhost scripts`.
#[derive(Debug, Subcommand)]
pub(super) enum ScriptsCommand {
    /// List the published jumpscripts
    Ls,
    /// Show one jumpscript
    Show {
        /// organization/name, or a name of organization wasmhost
        name: ScriptName,
    },
    /// Show what was live under a name, the newest first
    History {
        /// organization/name, or a name of organization wasmhost
        name: ScriptName,
    },
    /// Make code that was live before live again, on every node at once
    #[command(after_help = ROLLBACK_EXAMPLES)]
    Rollback {
        /// organization/name, or a name of organization wasmhost
        name: ScriptName,
        /// The version, or the beginning of the digest [default: what was live before]
        #[arg(long, value_name = "DIGEST|VERSION")]
        to: Option<String>,
        /// Sign the way back with the private key of this file; hosts that require signatures want it
        #[arg(long, value_name = "KEYFILE")]
        sign: Option<PathBuf>,
    },
    /// Remove a name: no further job finds its code
    Rm {
        /// organization/name, or a name of organization wasmhost
        name: ScriptName,
        /// Also when jobs of it have not ended
        #[arg(long)]
        force: bool,
    },
}

const ROLLBACK_EXAMPLES: &str = "Examples:
  wasmhost scripts rollback acme/resize
  wasmhost scripts rollback acme/resize --to 1.2.3
  wasmhost scripts rollback acme/resize --to 3fa94c0d17e2";

/// Runs the command.
pub(super) async fn run(global: Global, command: ScriptsCommand) -> Result<ExitCode, Failure> {
    match command {
        ScriptsCommand::History { name } => past::history(&global, &name).await,
        ScriptsCommand::Rollback { name, to, sign } => past::roll_back(&global, &name, to, sign.as_deref()).await,
        ScriptsCommand::Rm { name, force } => past::remove(&global, &name, force).await,
        ScriptsCommand::Ls => {
            let store = global.connect().await?;
            let mut index = store.index().await?;
            index.scripts.sort_by(|a, b| (&a.organization, &a.name).cmp(&(&b.organization, &b.name)));
            for (field, reason) in &index.refused {
                print::note(&format!("warning: `{}` in workers:jumpscripts:name is skipped: {reason}", visible(field)));
            }
            match global.output {
                Output::Json => print::json(&index.scripts),
                Output::Text => {
                    let head = ["NAME", "KIND", "VERSION", "DIGEST", "SIZE", "TYPES", "SIGNED BY", "PUBLISHED"];
                    print::table(head, index.scripts.iter().map(row));
                }
            }
            Ok(ExitCode::SUCCESS)
        }
        ScriptsCommand::Show { name } => {
            let store = global.connect().await?;
            let Some(script) = store.script(&name).await? else {
                return Err(not_published(&store, &name).await?);
            };
            match global.output {
                Output::Json => print::json(&script),
                Output::Text => {
                    show(&script);
                    let request = &script.manifest.permissions;
                    print_needs(&global, Some(&store), &script.digest, None, request).await?;
                }
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Nothing is published under a name: what there is.
async fn not_published(store: &Store, name: &ScriptName) -> Result<Failure, Failure> {
    let index = store.index().await?;
    let known = index.scripts.iter().map(|s| format!("{}/{}", s.organization, s.name)).collect::<Vec<_>>();
    let failure = Failure::new(format!("no jumpscript `{name}` is published"));
    let near = |known: &&String| strsim::jaro_winkler(known, &name.to_string()) > 0.85;
    Ok(match known.iter().find(near) {
        Some(near) => failure.hint(format!("did you mean `{near}`?")),
        None if known.is_empty() => failure.hint("nothing is published yet; see `wasmhost publish --help`"),
        None => failure.hint(format!("published are {}", visible(&known.join(", ")))),
    })
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { visible(text) }
}

fn published(script: &Jumpscript) -> String {
    Timestamp::from_millis(script.published_at.saturating_mul(1000)).to_string()
}

/// Who signed it, and whether the signature is one of this record.
fn signed(script: &Jumpscript) -> String {
    match script.signature() {
        Ok(None) => "nobody".to_owned(),
        Ok(Some(signature)) => {
            let statement = &signature.statement;
            let is_its_own = statement.digest == script.digest
                && statement.name == format!("{}/{}", script.organization, script.name)
                && signature.is_genuine();
            let at = Timestamp::from_millis(statement.signed_at_ms);
            let bad = if is_its_own { "" } else { ", but the signature is not one of this code" };
            format!("key {} at {at}{bad}", signature.key.id())
        }
        Err(why) => visible(&why),
    }
}

fn row(script: &Jumpscript) -> [String; 8] {
    [
        visible(&format!("{}/{}", script.organization, script.name)),
        script.kind.to_string(),
        dash(&script.version),
        script.digest.short(),
        script.size.to_string(),
        dash(&script.manifest.types.join(",")),
        dash(&script.signed_by()),
        published(script),
    ]
}

fn show(script: &Jumpscript) {
    let line = |name: &str, value: String| print::line(&format!("{name:<12} {value}"));
    line("name", visible(&format!("{}/{}", script.organization, script.name)));
    line("id", script.id.to_string());
    line("kind", script.kind.to_string());
    if let Some(interpreter) = &script.interpreter {
        line("interpreter", visible(interpreter));
    }
    line("version", dash(&script.version));
    line("description", dash(&script.descr));
    line("digest", script.digest.to_string());
    line("size", format!("{} bytes", script.size));
    line("types", dash(&script.manifest.types.join(", ")));
    line("timeout", dash(script.manifest.timeout.as_deref().unwrap_or("")));
    line("memory", script.manifest.memory_mib.map_or_else(|| "-".to_owned(), |mib| format!("{mib} MiB")));
    let http = script.manifest.permissions.http.iter().map(ToString::to_string).collect::<Vec<_>>();
    line("http", dash(&http.join(", ")));
    line("enabled", script.enable.to_string());
    line("signed by", signed(script));
    line("published", published(script));
}
