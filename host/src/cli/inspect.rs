//! `wasmhost inspect`: what a Wasm file is, without running it.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use super::exec::read_file;
use super::grants::print_needs;
use super::publish::candidate;
use super::{Failure, Global, Output, print};
use crate::config::Origin;
use crate::host::digest_of_file;
use crate::job::visible;
use crate::jumpscript::{Digest, Kind, Language, Manifest, Source, WASM_BYTES_MAX};
use crate::sandbox::{Inspection, Sandbox};
use crate::signatures::{SIGNATURE_BYTES_MAX, Signature};
use crate::watch::signature_beside;

/// Arguments of `wasmhost inspect`.
#[derive(Debug, Args)]
pub(super) struct InspectArgs {
    /// The Wasm file, or a script (.rhai, .js, .py)
    file: PathBuf,
}

#[derive(Serialize)]
struct Shape<'a> {
    kind: Kind,
    digest: Digest,
    size: usize,
    imports: Vec<&'a str>,
    exports: &'a [String],
    manifest: Option<&'a Manifest>,
    signature: Option<Signed>,
}

/// What stands in the file beside.
#[derive(Serialize)]
struct Signed {
    name: String,
    version: String,
    key: String,
    id: String,
    is_good: bool,
}

/// Runs the command.
pub(super) async fn run(global: Global, args: InspectArgs) -> Result<ExitCode, Failure> {
    if let Some(language) = Language::of(&args.file) {
        return text(&global, language, &args.file);
    }
    let wasm = read_file(&args.file, WASM_BYTES_MAX)?;
    let inspection = Sandbox::inspect(&wasm)?;
    let signature = signature(&args.file)?;
    if global.output == Output::Json {
        print::json(&Shape {
            kind: inspection.kind,
            digest: inspection.digest,
            size: inspection.size,
            imports: inspection.imports.iter().map(|import| import.name.as_str()).collect(),
            exports: &inspection.exports,
            manifest: inspection.manifest.as_ref(),
            signature,
        });
    } else {
        print_text(&inspection);
        print_permissions(&global, &args.file, &inspection).await?;
        print::line(&format!("signature {}", said(signature.as_ref())));
    }
    Ok(ExitCode::SUCCESS)
}

/// A script: what would be published.
fn text(global: &Global, language: &Language, file: &Path) -> Result<ExitCode, Failure> {
    let candidate = candidate(file, false)?;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let wrong = |text: String| Failure::new(format!("`{}`: {text}", file.display()));
    let source = Source::new(language, &name, candidate.wasm, candidate.manifest.as_deref()).map_err(wrong)?;
    let manifest = source.manifest().map_err(wrong)?;
    let digest = Digest::of(&source.encode());
    if global.output == Output::Json {
        print::json(&serde_json::json!({
            "kind": Kind::Source, "digest": digest, "size": source.text.len(),
            "interpreter": source.interpreter.to_string(), "manifest": manifest,
        }));
        return Ok(ExitCode::SUCCESS);
    }
    print::line(&format!("kind         {}", Kind::Source));
    print::line(&format!("interpreter  {}", source.interpreter));
    print::line(&format!("digest       {digest}"));
    print::line(&format!("size         {} bytes", source.text.len()));
    if source.manifest.is_empty() {
        print::line("manifest     none");
    } else {
        print::line("manifest");
        source.manifest.lines().for_each(|line| print::line(&format!("  {}", visible(line))));
    }
    Ok(ExitCode::SUCCESS)
}

/// The signature beside a file, which is of the file with the manifest beside it.
fn signature(file: &Path) -> Result<Option<Signed>, Failure> {
    let Some(beside) = signature_beside(file) else { return Ok(None) };
    let text = read_file(&beside, SIGNATURE_BYTES_MAX)?;
    let signature = Signature::parse(&String::from_utf8_lossy(&text))
        .map_err(|why| Failure::new(format!("`{}`: {why}", beside.display())))?;
    let digest = digest_of_file(candidate(file, false)?).map_err(Failure::new)?;
    Ok(Some(Signed {
        is_good: signature.is_genuine() && signature.statement.digest == digest,
        key: signature.key.to_string(),
        id: signature.key.id(),
        name: signature.statement.name,
        version: signature.statement.version,
    }))
}

fn said(signature: Option<&Signed>) -> String {
    match signature {
        None => "none beside the file".to_owned(),
        Some(Signed { name, version, id, is_good: true, .. }) => {
            format!("key {id} for {name} {version}").trim_end().to_owned()
        }
        Some(Signed { id, .. }) => format!("key {id}, but not of this file: sign it again"),
    }
}

fn print_text(inspection: &Inspection) {
    print::line(&format!("kind      {}", inspection.kind));
    print::line(&format!("digest    {}", inspection.digest));
    print::line(&format!("size      {} bytes", inspection.size));
    print::line("imports");
    for import in &inspection.imports {
        print::line(&format!("  {}  ({})", visible(&import.name), import.purpose));
    }
    print::line("exports");
    for export in &inspection.exports {
        print::line(&format!("  {}", visible(export)));
    }
    print::line(&format!("http      {}", http(inspection)));
    match inspection.manifest.as_ref().map(toml::to_string) {
        Some(Ok(text)) => {
            print::line("manifest");
            text.lines().for_each(|line| print::line(&format!("  {line}")));
        }
        _ => print::line("manifest  none"),
    }
}

/// What it requests, beside who allows it. Grants are looked up where a Redis is named; the file alone says nothing of
/// them.
async fn print_permissions(global: &Global, file: &Path, inspection: &Inspection) -> Result<(), Failure> {
    let Some(manifest) = inspection.manifest.as_ref().filter(|manifest| !manifest.permissions.is_empty()) else {
        return Ok(());
    };
    let config = global.load(global.given())?;
    let is_named = config.setting("redis.url").is_some_and(|setting| setting.origin != Origin::Default);
    let store = if is_named { Some(global.connect().await?) } else { None };
    let stem = file.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    let name = manifest.script_name(&stem).map_or(stem, |name| name.to_string());
    print_needs(global, store.as_ref(), &inspection.digest, Some(&name), &manifest.permissions).await
}

/// Where it asks to send HTTP requests.
fn http(inspection: &Inspection) -> String {
    let requested = inspection.manifest.as_ref().map_or(&[][..], |manifest| manifest.permissions.http.as_slice());
    match (requested, inspection.unrequested_http.is_some()) {
        ([], false) => "none".to_owned(),
        ([], true) => "imported and not requested: publish refuses it, and every request is denied".to_owned(),
        (patterns, _) => patterns.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}
