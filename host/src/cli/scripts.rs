//! `wasmhost scripts`: what is published.

use std::process::ExitCode;

use clap::Subcommand;

use super::{Failure, Global, Output, print};
use crate::clock::Timestamp;
use crate::job::visible;
use crate::jumpscript::{Jumpscript, ScriptName};

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
}

/// Runs the command.
pub(super) async fn run(global: Global, command: ScriptsCommand) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    match command {
        ScriptsCommand::Ls => {
            let mut index = store.index().await?;
            index.scripts.sort_by(|a, b| (&a.organization, &a.name).cmp(&(&b.organization, &b.name)));
            for (field, reason) in &index.refused {
                print::note(&format!("warning: `{}` in workers:jumpscripts:name is skipped: {reason}", visible(field)));
            }
            match global.output {
                Output::Json => print::json(&index.scripts),
                Output::Text => {
                    let head = ["NAME", "KIND", "VERSION", "DIGEST", "SIZE", "TYPES", "PUBLISHED"];
                    print::table(head, index.scripts.iter().map(row));
                }
            }
        }
        ScriptsCommand::Show { name } => {
            let Some(script) = store.script(&name).await? else {
                let index = store.index().await?;
                let known = index.scripts.iter().map(|s| format!("{}/{}", s.organization, s.name)).collect::<Vec<_>>();
                let failure = Failure::new(format!("no jumpscript `{name}` is published"));
                return Err(if known.is_empty() {
                    failure.hint("nothing is published yet; see `wasmhost publish --help`")
                } else {
                    failure.hint(format!("published are {}", known.join(", ")))
                });
            };
            match global.output {
                Output::Json => print::json(&script),
                Output::Text => show(&script),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn dash(text: &str) -> String {
    if text.is_empty() { "-".to_owned() } else { visible(text) }
}

fn published(script: &Jumpscript) -> String {
    Timestamp::from_millis(script.published_at.saturating_mul(1000)).to_string()
}

fn row(script: &Jumpscript) -> [String; 7] {
    [
        visible(&format!("{}/{}", script.organization, script.name)),
        script.kind.to_string(),
        dash(&script.version),
        script.digest.short(),
        script.size.to_string(),
        dash(&script.manifest.types.join(",")),
        published(script),
    ]
}

fn show(script: &Jumpscript) {
    let line = |name: &str, value: String| print::line(&format!("{name:<12} {value}"));
    line("name", visible(&format!("{}/{}", script.organization, script.name)));
    line("id", script.id.to_string());
    line("kind", script.kind.to_string());
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
    line("published", published(script));
}
