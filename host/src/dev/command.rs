//! Runs the build command of a manifest.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::Command;

use super::build::beginning;
use crate::jumpscript::Build;
use crate::languages::{resolve, search_path};

/// Builds the project at `root` and gives the Wasm file. Dropping the future ends the command and what it started.
///
/// # Errors
/// The compiler's own words, the tool that is missing and how it is installed, or why there is no file.
pub(super) async fn run(root: &Path, build: &Build) -> Result<PathBuf, String> {
    let output = root.join(&build.output);
    if let Some(folder) = output.parent() {
        // Compilers do not make the folder of their output.
        std::fs::create_dir_all(folder)
            .map_err(|error| format!("the folder `{}` cannot be made: {error}", folder.display()))?;
    }
    let (command, folder) = (build.command.clone(), root.to_path_buf());
    let resolving = tokio::task::spawn_blocking(move || resolve(&command, &folder));
    let command = match resolving.await {
        Ok(Ok(command)) => command,
        Ok(Err(missing)) => return Err(missing.text(root)),
        Err(error) => return Err(format!("looking for the tools failed: {error}")),
    };
    let mut shell = Command::new("sh");
    shell.args(["-c", &command]).current_dir(root).env("PATH", search_path(root));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
    let child = shell.spawn().map_err(|error| format!("cannot run `sh`: {error}"))?;
    let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
    let ended = child.wait_with_output().await.map_err(|error| format!("`{command}` cannot be waited for: {error}"))?;
    group.has_ended();
    if !ended.status.success() {
        // Some compilers complain on standard output.
        let said = if ended.stderr.is_empty() { beginning(&ended.stdout) } else { beginning(&ended.stderr) };
        return Err(if said.is_empty() {
            format!("`{command}` said nothing and ended with {}", ended.status)
        } else {
            said
        });
    }
    if output.is_file() {
        return Ok(output);
    }
    Err(format!(
        "the build command made no file `{}`\nhint: `build.output` in jumpscript.toml must be what `{command}` writes",
        build.output
    ))
}

/// A shell with all it started; ended when this is dropped before they are.
struct Group(Option<Pid>);

impl Group {
    fn has_ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // It may have ended by itself meanwhile.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}
