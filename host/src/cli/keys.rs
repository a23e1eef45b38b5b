//! `wasmhost keys`: keys that sign jumpscripts.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::failure::FAILED;
use super::publish::candidate;
use super::{Failure, Global, Output, print};
use crate::host::sign_file;
use crate::signatures::{SIGNATURE_SUFFIX, SigningKey};

const NEW_EXAMPLES: &str = "Examples:
  wasmhost keys new --out release.key
  wasmhost publish resize.wasm --sign release.key";

/// The verbs of `wasmhost keys`.
#[derive(Debug, Subcommand)]
pub(super) enum KeysCommand {
    /// Make a key: the private half goes into a file, the public half is printed
    #[command(after_help = NEW_EXAMPLES)]
    New {
        /// The file of the private key; one that is there is never overwritten
        #[arg(long, value_name = "FILE", default_value = "wasmhost.key")]
        out: PathBuf,
    },
    /// Print the public half of a key
    Show {
        /// The file of the private key
        file: PathBuf,
    },
    /// Write the signature of Wasm files beside them, as FILE.sig
    Sign {
        /// Wasm files; a jumpscript.toml beside a file is signed with it
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// The file of the private key
        #[arg(long, value_name = "KEYFILE")]
        key: PathBuf,
    },
}

/// Runs the command.
pub(super) fn run(global: &Global, command: KeysCommand) -> Result<ExitCode, Failure> {
    match command {
        KeysCommand::New { out } => {
            let key = SigningKey::create(&out).map_err(usage)?;
            show(global.output, &key);
            print::note(&format!(
                "the private key is in `{}`: keep it away from hosts and repositories; trust the public one with \
                 `trusted` under `[signatures]`",
                out.display()
            ));
            Ok(ExitCode::SUCCESS)
        }
        KeysCommand::Show { file } => {
            show(global.output, &SigningKey::read(&file).map_err(usage)?);
            Ok(ExitCode::SUCCESS)
        }
        KeysCommand::Sign { files, key } => {
            let key = SigningKey::read(&key).map_err(usage)?;
            let mut n_failed = 0;
            for file in &files {
                if let Err(failure) = sign(global.output, file, &key) {
                    n_failed += 1;
                    let _code = failure.print(global.output);
                }
            }
            Ok(ExitCode::from(if n_failed == 0 { 0 } else { FAILED }))
        }
    }
}

fn sign(output: Output, file: &std::path::Path, key: &SigningKey) -> Result<(), Failure> {
    let signature = sign_file(candidate(file, false)?, key)
        .map_err(|why| Failure::from_text(&format!("`{}`: {why}", file.display())))?;
    let beside = PathBuf::from(format!("{}{SIGNATURE_SUFFIX}", file.display()));
    std::fs::write(&beside, signature.text() + "\n")
        .map_err(|error| Failure::new(format!("cannot write `{}`: {error}", beside.display())))?;
    let statement = &signature.statement;
    match output {
        Output::Json => print::json_line(&json!({
            "file": beside, "name": statement.name, "version": statement.version, "digest": statement.digest,
            "key": key.public(), "id": key.public().id(),
        })),
        Output::Text => {
            let (name, id) = (&statement.name, key.public().id());
            print::line(&format!("signed {name} {} with key {id} ({})", statement.digest.short(), beside.display()));
        }
    }
    Ok(())
}

fn show(output: Output, key: &SigningKey) {
    let public = key.public();
    match output {
        Output::Json => print::json(&json!({ "public": public, "id": public.id() })),
        Output::Text => {
            print::line(&format!("public {public}"));
            print::line(&format!("id     {}", public.id()));
        }
    }
}

/// A key file that cannot be used is a mistake in the arguments.
pub(super) fn usage(text: String) -> Failure {
    match text.split_once("\nhint: ") {
        Some((message, hint)) => Failure::usage(message).hint(hint),
        None => Failure::usage(text),
    }
}
