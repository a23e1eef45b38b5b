//! The command line: parse, dispatch, print.
//!
//! Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 failed, 2 usage or configuration,
//! 75 Redis away, 130 interrupted.

mod audit;
mod bench;
mod demo;
mod dev;
mod dlq;
mod doctor;
mod effects;
mod exec;
mod failure;
mod filter;
mod grants;
mod inspect;
mod jobs;
mod keys;
mod lines;
mod local;
mod needs;
mod new;
mod print;
mod profile;
mod publish;
mod queues;
mod reference;
mod run;
mod scripts;
mod submit;
mod test;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum};

pub use self::failure::Failure;
pub use self::reference::reference_markdown;
use crate::config::{Config, Given, Origin, Sources};
use crate::host::{StorePublisher, gate_of_command, store_options};
use crate::job::StoreId;
use crate::signatures::SigningKey;
use crate::store::{Options, Store, embedded};

/// Runs jobs from Redis queues, each in a fresh WebAssembly sandbox.
#[derive(Debug, Parser)]
#[command(name = "wasmhost", version, propagate_version = true, max_term_width = 110, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Redis URL: redis://user@host:6379/0, rediss:// for TLS, unix:///path, redis+sentinel://host,host/service or
    /// redis+cluster://host,host [env: WASMHOST_REDIS, else REDIS_ADDR] [default: redis://127.0.0.1:6379]
    #[arg(long, global = true, value_name = "URL")]
    redis: Option<String>,
    /// File with the Redis password, so that it is in no command line
    #[arg(long, global = true, value_name = "FILE")]
    redis_password_file: Option<PathBuf>,
    /// What every key of ours begins with [env: WASMHOST_PREFIX] [default: wasmhost]
    #[arg(long, global = true, value_name = "PREFIX")]
    prefix: Option<String>,
    /// What the node's keys (workers:*, healthcheck:*, application) begin with [env: WASMHOST_NODE_PREFIX] [default: nothing]
    #[arg(long, global = true, value_name = "PREFIX")]
    node_prefix: Option<String>,
    /// Configuration file [env: WASMHOST_CONFIG]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where this node keeps native code and the private Redis [env: WASMHOST_DATA]
    #[arg(long, global = true, value_name = "DIR")]
    data: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Output::Text)]
    output: Output,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// One JSON document, or one a line where results arrive one after the other.
    Json,
}

impl Global {
    /// These flags as a source of settings.
    fn given(&self) -> Given {
        Given {
            redis_url: self.redis.clone(),
            redis_password_file: self.redis_password_file.clone(),
            prefix: self.prefix.clone(),
            node_prefix: self.node_prefix.clone(),
            data: self.data.clone(),
            ..Given::default()
        }
    }

    /// The whole configuration, with the flags in `given`.
    fn load(&self, given: Given) -> Result<Config, Failure> {
        Ok(Config::load(&self.sources(given))?)
    }

    /// All sources of settings, with the flags in `given`.
    fn sources(&self, given: Given) -> Sources {
        Sources::of_process(given, self.config.clone())
    }

    /// What publishes as the configuration says, signing with the key of a file when one is named.
    async fn publisher(&self, key: Option<&std::path::Path>) -> Result<StorePublisher, Failure> {
        let signer = key.map(SigningKey::read).transpose().map_err(keys::usage)?;
        let config = self.load(self.given())?;
        let publisher = StorePublisher::new(self.connect().await?, config.ceiling.clone())
            .with_gate(gate_of_command(&config))
            .warning(|warning| print::note(&format!("warning: {warning}")));
        Ok(match signer {
            Some(signer) => publisher.signing(signer),
            None => publisher,
        })
    }

    /// A connection for a command. Where nobody named a Redis and a private one runs on this data folder, it is used.
    async fn connect(&self) -> Result<Store, Failure> {
        let config = self.load(self.given())?;
        config.notes.iter().for_each(|note| print::note(&format!("warning: {note}")));
        let store = Store::connect(StoreId::default(), &redis_of_command(&config)).await?;
        Ok(store.acting_as(&crate::config::person()))
    }
}

/// How a command reaches Redis: as the configuration says, or the private one that runs on the data folder.
fn redis_of_command(config: &Config) -> Options {
    let mut options = store_options(config);
    let is_named = config.setting("redis.url").is_some_and(|setting| setting.origin != Origin::Default);
    if (config.redis.is_embedded || !is_named)
        && let Some(address) = embedded::address(&config.data)
    {
        options.url = address.url;
    }
    options
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take jobs from the queues and run them, until a signal says stop
    Run(Box<run::RunArgs>),
    /// Develop: a private Redis, a host, and every change of a project or Wasm file live at once
    Dev(dev::DevArgs),
    /// Make a project of a jumpscript in one of six languages
    New(new::NewArgs),
    /// Run a Wasm file once, without Redis, and say what it used
    Exec(exec::ExecArgs),
    /// Run the cases of a jumpscript's author, each in a fresh sandbox, without Redis
    #[command(after_help = test::EXAMPLES)]
    Test(test::TestArgs),
    /// Say what a Wasm file is, and what it needs
    Inspect(inspect::InspectArgs),
    /// Publish jumpscripts: live on every node at once
    Publish(publish::PublishArgs),
    /// Look at published jumpscripts and what was live before, go back to it, remove them
    #[command(subcommand)]
    Scripts(scripts::ScriptsCommand),
    /// Grant permissions to the code of jumpscripts, list what is granted, take it back
    #[command(subcommand)]
    Grants(grants::GrantsCommand),
    /// Enqueue a job, or many
    #[command(after_help = submit::EXAMPLES)]
    Submit(Box<submit::SubmitArgs>),
    /// Look at jobs, wait for them, cancel, retry and replay them
    #[command(subcommand)]
    Jobs(jobs::JobsCommand),
    /// Look at queues, pause and purge them, set their limits
    #[command(subcommand)]
    Queues(queues::QueuesCommand),
    /// Look at dead jobs, bring them back, remove them, export and import them
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Make and use the keys that sign jumpscripts
    #[command(subcommand)]
    Keys(keys::KeysCommand),
    /// See who published, removed, requeued, paused and changed what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Measure this machine, with a private Redis unless --redis names one
    Bench(bench::BenchArgs),
    /// Count what is in the text files of a repository, one job each (used by `make demo`)
    #[command(hide = true)]
    Demo(demo::DemoArgs),
    /// Look at everything a host needs, and say what to do about what is wrong
    Doctor(Box<doctor::DoctorArgs>),
    /// Compile a Wasm file from stdin to native code on stdout (used by the host itself)
    #[command(hide = true)]
    CompileArtifact,
}

/// Parses the arguments and runs the command.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return print::usage(&error),
    };
    let output = cli.global.output;
    match dispatch(cli) {
        Ok(code) => code,
        Err(failure) => failure.print(output),
    }
}

fn dispatch(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { global, command } = cli;
    match command {
        Command::CompileArtifact => {
            crate::sandbox::compile_artifact()?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Inspect(args) => wait(inspect::run(global, args)),
        Command::New(args) => new::run(&global, args),
        Command::Exec(args) => wait(exec::run(global, args)),
        Command::Test(args) => wait(test::run(global, args)),
        Command::Run(args) => wait(run::run(global, *args)),
        Command::Demo(args) => wait(demo::run(global, args)),
        Command::Dev(args) => wait(dev::run(global, args)),
        Command::Publish(args) => wait(publish::run(global, args)),
        Command::Scripts(command) => wait(scripts::run(global, command)),
        Command::Grants(command) => wait(grants::run(global, command)),
        Command::Submit(args) => wait(submit::run(global, *args)),
        Command::Jobs(command) => wait(jobs::run(global, command)),
        Command::Queues(command) => wait(queues::run(global, command)),
        Command::Dlq(command) => wait(dlq::run(global, command)),
        Command::Doctor(args) => wait(doctor::run(global, *args)),
        Command::Keys(command) => keys::run(&global, command),
        Command::Audit(command) => wait(audit::run(global, command)),
        Command::Bench(args) => wait(bench::run(global, args)),
    }
}

/// Runs a command on the I/O thread: one runtime on the main thread, which no guest ever shares.
fn wait(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let result = runtime.block_on(command);
    // A file that is still being compiled must not hold up the end of the program.
    runtime.shutdown_background();
    result
}

/// The command tree, for tests and generated pages.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// Parses arguments as `main` does, for tests.
///
/// # Errors
/// clap's own, with its text for the user.
pub fn parse(arguments: &[&str]) -> Result<(), clap::Error> {
    let matches = Cli::command().try_get_matches_from(arguments)?;
    Cli::from_arg_matches(&matches).map(drop)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_definition_of_the_command_line_is_sound() {
        super::command().debug_assert();
    }
}
