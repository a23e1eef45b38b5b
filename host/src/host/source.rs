//! What publishing a script's text takes: its interpreter, and that the interpreter can read it.

use std::path::{Path, PathBuf};

use super::StorePublisher;
use crate::executor::wasm::{LoadError, load_code};
use crate::jumpscript::{Digest, Language, Source};
use crate::outcome::Outcome;
use crate::ports::{Candidate, PublishError, PublishRule, Publisher};
use crate::sandbox::Call;

/// The Wasm file of an interpreter that ships beside this program: in `scripts` in its folder, or next to that folder.
#[must_use]
pub fn shipped_interpreter(name: &str) -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folder = program.parent()?;
    let file = format!("{name}.wasm");
    let places = [folder.join("scripts"), folder.parent()?.join("scripts")];
    places.into_iter().map(|place| place.join(&file)).find(|path| path.is_file())
}

/// The name of a file without folders, for the errors of a script.
pub(super) fn file_name(file: &str) -> String {
    Path::new(file).file_name().map_or_else(|| file.to_owned(), |name| name.to_string_lossy().into_owned())
}

impl StorePublisher {
    /// The source of a candidate that is a script's text, read by its interpreter; `None` for any other.
    pub(super) async fn source(&self, candidate: &Candidate) -> Result<Option<Source>, PublishError> {
        let file = crate::job::visible(&candidate.file);
        let refused = |text: String| PublishError::Refused(format!("`{file}`: {text}"));
        // What was published before comes as it is stored.
        if Source::is_source(&candidate.wasm) {
            return Source::decode(&candidate.wasm).map(Some).map_err(refused);
        }
        let Some(language) = Language::of(Path::new(&candidate.file)) else { return Ok(None) };
        let (text, manifest) = (candidate.wasm.clone(), candidate.manifest.as_deref());
        let source = Source::new(language, &file_name(&candidate.file), text, manifest).map_err(refused)?;
        let Some(sandbox) = &self.sandbox else { return Ok(Some(source)) };
        let name = source.interpreter.to_string();
        let digest = match self.interpreter(&name).await? {
            Some(digest) => digest,
            None => {
                self.publish_shipped(language).await?;
                self.interpreter(&name).await?.ok_or_else(|| {
                    let file = language.interpreter;
                    refused(format!(
                        "its interpreter `{name}` is not published\nhint: make build, then: wasmhost publish target/scripts/{file}.wasm"
                    ))
                })?
            }
        };
        let script = load_code(sandbox, &self.store, digest).await.map_err(|error| match error {
            LoadError::Away(text) => PublishError::Unavailable(format!("`{file}`: {text}")),
            LoadError::Bad(text) => refused(text),
            LoadError::Doubted(doubt) => refused(doubt.text),
        })?;
        let bytes = source.encode();
        let checked = sandbox.link_source(Digest::of(&bytes), &bytes, &script);
        let checked = checked.map_err(|error| refused(error.to_string()))?;
        let sandbox = sandbox.clone();
        // A guest never runs on the thread of Redis and the heartbeats.
        let check = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
            std::io::Result::Ok(runtime.block_on(sandbox.run(&checked, Call::check())))
        });
        match check.await.map(|finished| finished.map(|finished| finished.outcome)) {
            Ok(Ok(Outcome::Done { .. })) => Ok(Some(source)),
            Ok(Ok(Outcome::Failed { message })) => Err(refused(message)),
            Ok(Ok(other)) => Err(refused(format!("its interpreter could not read it: {}", other.error_text()))),
            _ => Err(refused("its interpreter could not be run on this machine".to_owned())),
        }
    }

    async fn interpreter(&self, name: &str) -> Result<Option<Digest>, PublishError> {
        self.store.route(name).await.map_err(|error| PublishError::of_store(name, &error))
    }

    /// Publishes the interpreter of a language when it ships beside this program.
    async fn publish_shipped(&self, language: &Language) -> Result<(), PublishError> {
        let Some(path) = shipped_interpreter(language.interpreter) else { return Ok(()) };
        let read = tokio::task::spawn_blocking(move || crate::watch::read_candidate(&path)).await;
        let Ok(Ok(candidate)) = read else { return Ok(()) };
        let published = Publisher::publish(self, candidate, PublishRule::AbsentOrNewer).await?;
        tracing::info!(script = %published.name, digest = %published.digest.short(), "interpreter published");
        Ok(())
    }
}
