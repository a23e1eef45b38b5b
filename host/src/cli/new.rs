//! `wasmhost new`: a project of a jumpscript, and what its tools are.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{Failure, Global, Output, print};
use crate::job::visible;
use crate::jumpscript::ScriptName;
use crate::languages::{Language, Missing, NewProject, check_name, missing_tools};

/// Arguments of `wasmhost new`.
#[derive(Debug, Args)]
pub(super) struct NewArgs {
    /// The folder of the project; its last part is the name of the jumpscript
    #[arg(value_name = "NAME")]
    folder: PathBuf,
    /// The language: rust, javascript (js), python (py), go, c, assemblyscript (as)
    #[arg(long, value_name = "LANGUAGE")]
    lang: String,
    /// Whose jumpscript it is: the first part of its full name
    #[arg(long, value_name = "NAME", default_value = "local")]
    organization: String,
}

/// Runs the command.
pub(super) fn run(global: &Global, args: NewArgs) -> Result<ExitCode, Failure> {
    let language: Language = args.lang.parse().map_err(Failure::usage)?;
    let name = args.folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    check_name(&name, language).map_err(Failure::usage)?;
    ScriptName::new(&args.organization, &name).map_err(Failure::usage)?;
    let project = NewProject { language, folder: args.folder, name, organization: args.organization };
    let n_files = project.write().map_err(Failure::usage)?;
    let missing = missing_tools(language, &project.folder);
    match global.output {
        Output::Text => tell(&project, n_files, &missing),
        Output::Json => print::json(&json!({
            "folder": project.folder,
            "language": language.as_str(),
            "name": format!("{}/{}", project.organization, project.name),
            "files": n_files,
            "missing": missing.iter().map(|tool| json!({
                "tool": tool.name, "install": tool.install, "otherwise": tool.otherwise,
            })).collect::<Vec<_>>(),
        })),
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(project: &NewProject, n_files: usize, missing: &[Missing]) {
    let folder = shell_word(&project.folder);
    print::line(&format!(
        "created {}: a jumpscript in {} ({n_files} files)",
        visible(&project.folder.display().to_string()),
        project.language.name()
    ));
    for tool in missing {
        let way = if tool.otherwise.is_empty() { String::new() } else { format!(" ({})", tool.otherwise) };
        print::line(&format!("it needs {}, which is missing{way}", tool.name));
    }
    if missing.is_empty() {
        print::line("its tools are here");
    }
    print::line("");
    print::line(&format!("  cd {folder}"));
    missing.iter().flat_map(|tool| &tool.install).for_each(|line| print::line(&format!("  {line}")));
    print::line("  wasmhost dev");
    print::line("");
    print::line("and in a second terminal");
    print::line("");
    print::line(&format!(
        "  wasmhost submit --type {} --payload '{}' --wait",
        project.name,
        project.language.payload()
    ));
}

/// A path as a word of a shell.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-+".contains(c)) {
        return text;
    }
    format!("'{}'", visible(&text.replace('\'', r"'\''")))
}
