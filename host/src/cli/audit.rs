//! `wasmhost audit`: who did what.

use std::process::ExitCode;

use clap::Subcommand;

use super::filter::moment_parser;
use super::{Failure, Global, Output, print};
use crate::clock::Timestamp;
use crate::job::visible;
use crate::store::{AUDIT_PAGE_MAX, AuditEntry};

const LS_EXAMPLES: &str = "Examples:
  wasmhost audit ls --since 24h
  wasmhost audit ls --limit 1000 --output json";

/// The verbs of `wasmhost audit`.
#[derive(Debug, Subcommand)]
pub(super) enum AuditCommand {
    /// List what people and hosts did, the newest first
    #[command(after_help = LS_EXAMPLES)]
    Ls {
        /// Only what was done at this time or later: 2h (ago), RFC 3339, or Unix seconds
        #[arg(long, value_name = "TIME", value_parser = moment_parser())]
        since: Option<Timestamp>,
        /// Entries on a page
        #[arg(long, value_name = "N", default_value_t = 50, allow_negative_numbers = true,
            value_parser = clap::value_parser!(u32).range(1..=AUDIT_PAGE_MAX as i64))]
        limit: u32,
        /// Where the page begins: what the page before it ended with
        #[arg(long)]
        cursor: Option<String>,
    },
}

/// Runs the command.
pub(super) async fn run(global: Global, command: AuditCommand) -> Result<ExitCode, Failure> {
    let AuditCommand::Ls { since, limit, cursor } = command;
    let store = global.connect().await?;
    let page = store.audit(since, cursor.as_deref(), limit as usize).await?;
    match global.output {
        Output::Json => print::json(&page),
        Output::Text => {
            if page.entries.is_empty() {
                print::note("nothing was noted");
            } else {
                print::table(["WHEN", "WHO", "DID", "TO", "N", "DETAIL"], page.entries.iter().map(row));
            }
            if let Some(next) = &page.next {
                print::note(&format!("there is more: --cursor {next}"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn row(entry: &AuditEntry) -> [String; 6] {
    [
        entry.at.to_string(),
        visible(&entry.who),
        visible(&entry.act),
        visible(&entry.target),
        entry.n.map_or_else(|| "-".to_owned(), |n| n.to_string()),
        visible(&entry.detail),
    ]
}
