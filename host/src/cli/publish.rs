//! `wasmhost publish`: jumpscripts from files to every node.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::exec::read_file;
use super::failure::FAILED;
use super::{Failure, Global, Output, print};
use crate::dev::build_folder;
use crate::host::own_compiler;
use crate::jumpscript::{Language, MANIFEST_BYTES_MAX, SOURCE_BYTES_MAX, WASM_BYTES_MAX};
use crate::ports::{Candidate, PublishRule, Publisher};
use crate::sandbox::{FirstTier, Options, Sandbox};
use crate::signatures::SIGNATURE_BYTES_MAX;
use crate::watch::{manifest_beside, signature_beside};

/// Arguments of `wasmhost publish`.
#[derive(Debug, Args)]
pub(super) struct PublishArgs {
    /// Wasm files, scripts (.rhai, .js, .py), folders of them (a jumpscript.toml beside a file describes it), or projects, which are built
    #[arg(required = true, value_name = "FILE|DIR")]
    paths: Vec<PathBuf>,
    /// Sign with the private key of this file; else the signature in FILE.sig beside a file is used
    #[arg(long, value_name = "KEYFILE")]
    sign: Option<PathBuf>,
}

/// Runs the command.
pub(super) async fn run(global: Global, args: PublishArgs) -> Result<ExitCode, Failure> {
    let mut found: Vec<(PathBuf, Result<Candidate, Failure>)> = Vec::new();
    for path in &args.paths {
        match build_folder(path).await {
            Some(built) => found.extend(built.map_err(Failure::new)?.into_iter().map(|(file, made)| (file, Ok(made)))),
            None => {
                let mut files = Vec::new();
                find(path, &mut files)?;
                found.extend(files.into_iter().map(|file| (file.clone(), candidate(&file, true))));
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::usage("no .wasm file and no script (.rhai, .js, .py) in the named folders")
            .hint("a folder with a Cargo.toml, or with a [build] table in its jumpscript.toml, is built first"));
    }
    // Wasm first: a script that is published with its interpreter needs it.
    found.sort_by_key(|(file, _)| Language::of(file).is_some());
    let mut publisher = global.publisher(args.sign.as_deref()).await?;
    if found.iter().any(|(file, _)| Language::of(file).is_some()) {
        let config = global.load(global.given())?;
        let options = crate::host::sandbox_options(&config, own_compiler());
        // Only to read texts; nothing of it outlives this command.
        let first_tier = FirstTier { is_optimised: false, ..options.first_tier };
        publisher = publisher.checking(Sandbox::new(Options { pool_size: 1, first_tier, ..options })?);
    }
    let mut worst = None;
    for (file, candidate) in found {
        let published = match candidate {
            Ok(candidate) => {
                let published = Publisher::publish(&publisher, candidate, PublishRule::Always).await;
                published.map_err(Failure::from)
            }
            Err(failure) => Err(failure),
        };
        match published {
            Ok(live) => match global.output {
                Output::Text => {
                    let how = if live.is_new { "published" } else { "unchanged" };
                    print::line(&format!("{how} {} {} ({})", live.name, live.digest.short(), file.display()));
                }
                Output::Json => print::json_line(&json!({
                    "name": live.name.to_string(), "digest": live.digest, "version": live.version, "is_new": live.is_new,
                })),
            },
            Err(failure) => {
                // Away before failed before refused: the most that another try may help.
                worst = worst.max(Some((failure.is_away(), failure.code() == FAILED, failure.code())));
                let _code = failure.print(global.output);
            }
        }
    }
    Ok(ExitCode::from(worst.map_or(0, |(_, _, code)| code)))
}

/// The Wasm files that a path stands for: itself, or those of a folder (not of its subfolders).
fn find(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = std::fs::read_dir(path)
        .map_err(|error| Failure::usage(format!("cannot read the folder `{}`: {error}", path.display())))?;
    let mut found: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.extension().is_some_and(|ending| ending == "wasm") || Language::of(path).is_some())
        .collect();
    found.sort();
    files.append(&mut found);
    Ok(())
}

/// Reads a file, the manifest beside it, and where that is asked for the signature.
pub(super) fn candidate(file: &Path, with_signature: bool) -> Result<Candidate, Failure> {
    let is_text = Language::of(file).is_some();
    let wasm = read_file(file, if is_text { SOURCE_BYTES_MAX } else { WASM_BYTES_MAX })?;
    let stem = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let manifest = manifest_beside(file).map(|path| read_file(&path, MANIFEST_BYTES_MAX)).transpose()?;
    let manifest = manifest
        .map(String::from_utf8)
        .transpose()
        .map_err(|_| Failure::usage(format!("the manifest beside `{}` is not UTF-8", file.display())))?;
    let beside = if with_signature { signature_beside(file) } else { None };
    let signature = beside.map(|path| read_file(&path, SIGNATURE_BYTES_MAX)).transpose()?;
    let signature = signature.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ok(Candidate { file: file.display().to_string(), wasm, manifest, default_name: stem, signature })
}
