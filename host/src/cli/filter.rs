//! Which jobs a command means: flags that several commands share, and what is said at the end of a page.

use clap::Args;
use clap::builder::{NonEmptyStringValueParser, TypedValueParser as _};

use super::{Failure, print};
use crate::clock::{Timestamp, parse_moment};
use crate::job::{JobState, visible};
use crate::store::{Filter, Listed, PAGE_MAX, Page, Store, TimeOf};

/// Flags that choose jobs.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct FilterArgs {
    /// Only jobs of this type
    #[arg(long = "type", value_name = "TYPE", value_parser = NonEmptyStringValueParser::new())]
    job_type: Option<String>,
    /// Only jobs with this text in their error, in small or large letters
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    error: Option<String>,
}

/// Flags that choose jobs by the time of their making.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct MadeArgs {
    /// Only jobs made at this time or later: 2h (ago), RFC 3339, or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = moment_parser())]
    since: Option<Timestamp>,
    /// Only jobs made before this time: 30m (ago), RFC 3339, or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = moment_parser())]
    until: Option<Timestamp>,
}

/// Flags that choose jobs by the time of their death.
#[derive(Clone, Debug, Default, Args)]
pub(super) struct DiedArgs {
    /// Only jobs that died at this time or later: 2h (ago), RFC 3339, or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = moment_parser())]
    since: Option<Timestamp>,
    /// Only jobs that died before this time: 30m (ago), RFC 3339, or Unix seconds
    #[arg(long, value_name = "TIME", value_parser = moment_parser())]
    until: Option<Timestamp>,
}

impl FilterArgs {
    /// Whether no flag was given.
    pub(super) const fn is_empty(&self) -> bool {
        self.job_type.is_none() && self.error.is_none()
    }

    /// Jobs by the time of their making.
    pub(super) fn made(&self, queue: Option<&str>, times: &MadeArgs) -> Result<Filter, Failure> {
        self.filter(queue, times.since, times.until)
    }

    /// Dead jobs, by the time of their death.
    pub(super) fn dead(&self, queue: Option<&str>, times: &DiedArgs) -> Result<Filter, Failure> {
        let filter = self.filter(queue, times.since, times.until)?;
        Ok(Filter { listed: Some(Listed::State(JobState::Dlq)), time_of: TimeOf::Death, ..filter })
    }

    fn filter(
        &self,
        queue: Option<&str>,
        since: Option<Timestamp>,
        until: Option<Timestamp>,
    ) -> Result<Filter, Failure> {
        if let (Some(since), Some(until)) = (since, until)
            && since >= until
        {
            return Err(Failure::usage(format!("--since {since} is not before --until {until}: no job can fit"))
                .hint("`--since 2h --until 1h` means the hour before the last one"));
        }
        Ok(Filter {
            queue: queue.map(str::to_owned),
            job_type: self.job_type.clone(),
            error: self.error.clone(),
            since,
            until,
            ..Filter::default()
        })
    }
}

/// Flags of a list that comes page by page.
#[derive(Clone, Debug, Args)]
pub(super) struct PageArgs {
    /// Jobs on a page
    #[arg(long, value_name = "N", default_value_t = 50, allow_negative_numbers = true,
        value_parser = clap::value_parser!(u32).range(1..=PAGE_MAX as i64))]
    pub(super) limit: u32,
    /// Where the page begins: what the page before it ended with
    #[arg(long)]
    pub(super) cursor: Option<String>,
}

pub(super) fn moment_parser() -> impl clap::builder::TypedValueParser<Value = Timestamp> {
    clap::builder::StringValueParser::new().try_map(|text| parse_moment(&text))
}

/// Says on stderr how a page ended: where the next one begins, and why this one is short.
pub(super) async fn page_end(store: &Store, page: &Page, queue: Option<&str>, args: &PageArgs) -> Result<(), Failure> {
    match &page.next {
        Some(next) if page.jobs.len() < args.limit as usize => {
            let (looked, n) = (page.looked, page.jobs.len());
            print::note(&format!(
                "looked at {looked} jobs, {n} of them fit; look at further ones with --cursor {next}"
            ));
        }
        Some(next) => print::note(&format!("there is more: --cursor {next}")),
        None if page.jobs.is_empty() && args.cursor.is_none() => {
            if let Some(queue) = queue {
                known(store, queue).await?;
            }
            print::note("no job fits");
        }
        None => {}
    }
    Ok(())
}

/// Fails when nobody knows a queue of this name, with the nearest one that is known.
pub(super) async fn known(store: &Store, queue: &str) -> Result<(), Failure> {
    match unknown(store, queue).await? {
        None => Ok(()),
        Some(hint) => Err(Failure::new(format!("there is no queue `{}`", visible(queue))).hint(hint)),
    }
}

/// The way out when nobody knows a queue of this name.
pub(super) async fn unknown(store: &Store, queue: &str) -> Result<Option<String>, Failure> {
    let names = store.queue_names().await?;
    if names.iter().any(|name| name == queue) {
        return Ok(None);
    }
    let near = |name: &&String| strsim::jaro_winkler(name, queue) > 0.8;
    Ok(Some(match names.iter().find(near) {
        Some(name) => format!("did you mean `{name}`?"),
        None => "`wasmhost queues ls` lists them; a queue begins with its first job".to_owned(),
    }))
}
