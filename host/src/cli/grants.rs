//! `wasmhost grants`: what operators allow to the code of a digest.

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::json;

use super::needs::{Need, need_lines};
use super::publish::candidate;
use super::{Failure, Global, Output, print};
use crate::clock::Timestamp;
use crate::host::file_as_published;
use crate::job::visible;
use crate::jumpscript::{Digest, ScriptName};
use crate::permissions::{Directory, HttpPattern, NamePattern, Permissions, StatePattern};
use crate::ports::CodeGrants;
use crate::store::{Act, GrantRecord, Store};

/// The verbs of `wasmhost grants`.
#[derive(Debug, Subcommand)]
pub(super) enum GrantsCommand {
    /// Grant permissions to a jumpscript's code, on every node at once
    Allow {
        /// A published name (organization/name), a Wasm file, or a digest; what is granted belongs to this very code
        #[arg(value_name = "NAME|FILE|DIGEST")]
        target: String,
        #[command(flatten)]
        which: Which,
        /// Everything that its manifest requests
        #[arg(long)]
        requested: bool,
    },
    /// List what is granted
    Ls,
    /// Take back what was granted: everything, or what the flags name
    Revoke {
        /// A published name (organization/name), a Wasm file, or a digest
        #[arg(value_name = "NAME|FILE|DIGEST")]
        target: String,
        #[command(flatten)]
        which: Which,
    },
}

/// Permissions on the command line.
#[derive(Debug, Default, Args)]
pub(super) struct Which {
    /// Where it may send HTTP requests, such as api.example.com:443 (repeatable, as all of these)
    #[arg(long, value_name = "HOST:PORT")]
    http: Vec<HttpPattern>,
    /// A bucket of state; `BUCKET:ro` to read only; `cache-*` for all that begin so
    #[arg(long, value_name = "BUCKET")]
    state: Vec<StatePattern>,
    /// A queue that it may enqueue jobs into, such as `mail-*`
    #[arg(long, value_name = "QUEUE")]
    enqueue: Vec<NamePattern>,
    /// A variable of the host's environment
    #[arg(long, value_name = "NAME")]
    env: Vec<NamePattern>,
    /// A directory that it may read
    #[arg(long, value_name = "DIR")]
    files: Vec<Directory>,
    /// A key of the values that nodes have for it in `script_config`, such as `limit.*`
    #[arg(long = "config-key", value_name = "KEY")]
    config_keys: Vec<NamePattern>,
    /// A secret of the nodes
    #[arg(long, value_name = "NAME")]
    secrets: Vec<NamePattern>,
    /// Facts about the node: disks, memory, load, processes, uptime, health
    #[arg(long, value_name = "AREA")]
    facts: Vec<NamePattern>,
}

impl Which {
    fn into_permissions(self) -> Permissions {
        let Self { http, state, enqueue, env, files, config_keys, secrets, facts } = self;
        Permissions { http, state, enqueue, env, files, config: config_keys, secrets, facts }
    }
}

/// The code that an argument means.
struct Target {
    digest: Digest,
    /// What it is called, as far as that is known.
    name: String,
    /// What it requests; `None` for a bare digest that no name means.
    request: Option<Permissions>,
}

/// Runs the command.
pub(super) async fn run(global: Global, command: GrantsCommand) -> Result<ExitCode, Failure> {
    let store = global.connect().await?;
    match command {
        GrantsCommand::Ls => ls(&global, &store).await?,
        GrantsCommand::Allow { target, which, requested } => {
            let target = find(&store, &target).await?;
            let mut permissions = which.into_permissions();
            if requested {
                let request = target.request.as_ref().ok_or_else(|| unknown(&target.digest))?;
                permissions.add(request);
            }
            if permissions.is_empty() {
                return Err(nothing_named(&target, requested));
            }
            permissions.check(|key| format!("`--{}`", Permissions::flag(key))).map_err(Failure::usage)?;
            let granted =
                store.change_grant(target.digest, &target.name, Act::Granted, |old| old.add(&permissions)).await?;
            if let Some(granted) = granted {
                show(&global, &granted);
                note_unrequested(&target, &permissions);
            }
        }
        GrantsCommand::Revoke { target, which } => {
            let target = find(&store, &target).await?;
            if !store.grants().await?.grants.iter().any(|grant| grant.digest == target.digest) {
                let what = if target.name.is_empty() { target.digest.short() } else { target.name };
                return Err(Failure::new(format!(
                    "nothing is granted to {} ({})",
                    visible(&what),
                    target.digest.short()
                ))
                .hint("`wasmhost grants ls` shows what is granted"));
            }
            let permissions = which.into_permissions();
            let change = |old: &mut Permissions| {
                if permissions.is_empty() {
                    *old = Permissions::default();
                } else {
                    old.remove(&permissions);
                }
            };
            match store.change_grant(target.digest, &target.name, Act::Revoked, change).await? {
                Some(left) => show(&global, &left),
                None if global.output == Output::Json => {
                    print::json(&json!({ "digest": target.digest, "name": target.name, "permissions": {} }));
                }
                None => print::line(&format!("revoked everything from {}", called(&target.name, &target.digest))),
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn ls(global: &Global, store: &Store) -> Result<(), Failure> {
    let list = store.grants().await?;
    for (field, reason) in &list.refused {
        print::note(&format!("warning: the grant `{}` grants nothing: {reason}", visible(field)));
    }
    if global.output == Output::Json {
        print::json(&list.grants);
        return Ok(());
    }
    let row = |grant: &GrantRecord| {
        let name = if grant.name.is_empty() { "-".to_owned() } else { visible(&grant.name) };
        let at = Timestamp::from_millis(grant.at.saturating_mul(1000)).to_string();
        [name, grant.digest.short(), grant.permissions.in_words(), visible(&grant.by), at]
    };
    print::table(["NAME", "DIGEST", "GRANTED", "BY", "AT"], list.grants.iter().map(row));
    Ok(())
}

fn show(global: &Global, granted: &GrantRecord) {
    match global.output {
        Output::Json => print::json(granted),
        Output::Text => {
            print::line(&format!("granted to {}:", called(&granted.name, &granted.digest)));
            let entries = granted.permissions.entries();
            entries.iter().for_each(|(key, value)| print::line(&format!("  {key:<9} {}", visible(value))));
        }
    }
}

fn called(name: &str, digest: &Digest) -> String {
    if name.is_empty() { digest.to_string() } else { format!("{} ({})", visible(name), digest.short()) }
}

/// A grant without a request has no effect: the manifest speaks first.
fn note_unrequested(target: &Target, permissions: &Permissions) {
    let Some(request) = &target.request else { return };
    let unrequested = permissions.missing(request);
    if !unrequested.is_empty() {
        print::note(&format!(
            "note: its manifest does not request {}; without a request a grant has no effect",
            unrequested.in_words()
        ));
    }
}

fn nothing_named(target: &Target, requested: bool) -> Failure {
    match &target.request {
        Some(request) if request.is_empty() => {
            Failure::usage("there is nothing to grant: its manifest requests no permissions")
        }
        Some(request) if !requested => Failure::usage("say what to grant")
            .hint(format!("its manifest requests:{}; `--requested` grants all of it", request.flags())),
        _ => Failure::usage("say what to grant")
            .hint("such as `--state BUCKET`; `wasmhost grants allow --help` lists all"),
    }
}

fn unknown(digest: &Digest) -> Failure {
    Failure::usage(format!("what the code {} requests is not known: no published name means it", digest.short()))
        .hint("name the file, or say what to grant")
}

/// Finds the code that an argument means.
async fn find(store: &Store, text: &str) -> Result<Target, Failure> {
    if let Ok(digest) = text.parse::<Digest>() {
        let index = store.index().await?;
        let script = index.scripts.into_iter().find(|script| script.digest == digest);
        let name = script.as_ref().and_then(|script| script.script_name().ok());
        return Ok(Target {
            digest,
            name: name.map(|name| name.to_string()).unwrap_or_default(),
            request: script.map(|script| script.manifest.permissions),
        });
    }
    if Path::new(text).is_file() {
        let candidate = candidate(Path::new(text), false)?;
        let (name, digest, manifest) = file_as_published(candidate).map_err(|text| Failure::from_text(&text))?;
        return Ok(Target { digest, name: name.to_string(), request: Some(manifest.permissions) });
    }
    let name: ScriptName = text.parse().map_err(|rule: String| {
        Failure::usage(format!("`{}` is no file and no digest, and as a name: {rule}", visible(text)))
    })?;
    match store.script(&name).await? {
        Some(script) => {
            Ok(Target { digest: script.digest, name: name.to_string(), request: Some(script.manifest.permissions) })
        }
        None => Err(Failure::new(format!("`{name}` is neither a published jumpscript nor a file")).hint(
            "`wasmhost scripts ls` lists what is published; grants for a file can be made before it is published",
        )),
    }
}

/// The permissions that code requests, each with who allows it. `name` is what a file that is not published yet would be
/// published under; without one only names count under which wasmhost has published it.
pub(super) async fn print_needs(
    global: &Global,
    store: Option<&Store>,
    digest: &Digest,
    name: Option<&str>,
    request: &Permissions,
) -> Result<(), Failure> {
    let config = global.load(global.given())?;
    let mut found = match store {
        Some(store) => store.code_grants(digest).await?,
        None => CodeGrants::default(),
    };
    found.names.extend(name.map(str::to_owned));
    let ceiling = config.ceiling.of(found.names.iter().map(String::as_str));
    let need = Need { request, ceiling: &ceiling, granted: &found.granted };
    need_lines(&need).iter().for_each(|line| print::line(line));
    Ok(())
}
