//! The lessons: every `console` block of their READMEs is run, and must print what it shows.

use std::path::Path;
use std::process::Command;

use crate::support::guests;

/// The exit code of a build script whose compiler is not there.
const UNAVAILABLE: i32 = 69;

/// One command of a lesson and the lines it shows.
#[derive(Debug)]
struct Step {
    command: String,
    expected: String,
}

/// The commands of all `console` blocks.
fn steps(readme: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_inside = false;
    for line in readme.lines() {
        match line.strip_prefix("$ ") {
            _ if line.starts_with("```") => is_inside = line == "```console",
            Some(command) if is_inside => steps.push(Step { command: command.to_owned(), expected: String::new() }),
            None if is_inside => {
                let step = steps.last_mut().expect("a console block begins with a command");
                step.expected.push_str(line);
                step.expected.push('\n');
            }
            _ => {}
        }
    }
    steps
}

fn run_lesson(lesson: &str) {
    let readme = std::fs::read_to_string(guests::root().join("examples").join(lesson).join("README.md")).unwrap();
    let steps = steps(&readme);
    assert!(!steps.is_empty(), "{lesson} shows nothing");
    let program = Path::new(env!("CARGO_BIN_EXE_wasmhost")).parent().unwrap();
    let path = format!("{}:{}", program.display(), std::env::var("PATH").unwrap());
    for Step { command, expected } in steps {
        let output = Command::new("sh")
            .args(["-c", &command])
            .current_dir(guests::root())
            .env("PATH", &path)
            // The lesson names the default places and flags.
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.code() == Some(UNAVAILABLE) {
            println!("skipped lesson {lesson}: {said}");
            return;
        }
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "$ {command}\n{said}");
    }
}

#[test]
fn lesson_1_prints_what_it_shows() {
    run_lesson("01-hello");
}

#[test]
fn lesson_2_prints_what_it_shows() {
    run_lesson("02-command");
}

#[test]
fn lesson_3_prints_what_it_shows() {
    run_lesson("03-retry-and-dlq");
}

#[test]
fn lesson_4_prints_what_it_shows() {
    run_lesson("04-javascript");
}

#[test]
fn lesson_5_prints_what_it_shows() {
    run_lesson("05-python");
}

#[test]
fn lesson_6_prints_what_it_shows() {
    run_lesson("06-go");
}

#[test]
fn lesson_7_prints_what_it_shows() {
    run_lesson("07-assemblyscript");
}
