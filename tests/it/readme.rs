//! The README's first job, command by command.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::guests;
use crate::support::program::{Host, program};
use crate::support::redis::wait_until;

/// The shell blocks below a heading.
fn shell_blocks(readme: &str, heading: &str) -> Vec<String> {
    let section = readme.split("\n## ").find(|section| section.starts_with(heading)).expect("the heading is there");
    section.split("```sh\n").skip(1).map(|block| block.split("```").next().unwrap_or_default().to_owned()).collect()
}

/// A shell in `folder` with a clean environment.
fn shell(folder: &Path, script: &str) -> Command {
    let mut command = Command::new("sh");
    for (name, _) in program().get_envs() {
        command.env_remove(name);
    }
    command.args(["-ec", script]).current_dir(folder);
    command
}

fn run(folder: &Path, script: &str) -> String {
    let output = shell(folder, script).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{script}\n{said}\n{complained}");
    said.into_owned()
}

/// The method: a folder that looks like the repository after `make build`, with the program and jumpscripts of this
/// test run; only the data folder is another one.
#[tokio::test]
async fn the_first_job_runs_as_the_readme_says() {
    let readme = std::fs::read_to_string(guests::root().join("README.md")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let at = |path: &str| folder.path().join(path);
    std::fs::create_dir_all(at("target/release")).unwrap();
    std::fs::create_dir_all(at("target/scripts")).unwrap();
    std::os::unix::fs::symlink(program().get_program(), at("target/release/wasmhost")).unwrap();
    for name in ["echo", "text-stats"] {
        std::fs::copy(guests::path(name), at("target/scripts").join(format!("{name}.wasm"))).unwrap();
    }
    let data = at("data").to_str().unwrap().to_owned();
    let blocks: Vec<String> = shell_blocks(&readme, "The first job")
        .into_iter()
        .map(|block| block.replace("/tmp/wasmhost-first", &data))
        .collect();
    let [start, submit, redis_cli] = blocks.as_slice() else { panic!("three blocks are expected: {blocks:?}") };
    let (variables, start) = start.split_once('\n').unwrap();

    let mut host = Host::spawn(shell(folder.path(), &format!("{variables}\nexec {start}")));
    host.wait_for_line("host ready");
    host.wait_for_line("wasmhost/text-stats");
    let result = run(folder.path(), &format!("{variables}\n{submit}"));
    assert!(result.contains("\"words\":6") && result.contains("\"sha256\""), "{result}");

    if Command::new("redis-cli").arg("--version").output().is_err() {
        eprintln!("skipped: no redis-cli on this machine");
        return;
    }
    let (push, ask) = redis_cli.trim_end().rsplit_once('\n').unwrap();
    run(folder.path(), &format!("{variables}\n{push}"));
    let answer = wait_until("the job of redis-cli is done", Duration::from_secs(20), || async {
        Some(run(folder.path(), &format!("{variables}\n{ask}"))).filter(|answer| answer.contains("done"))
    });
    assert!(answer.await.contains("\"words\":2"));
    assert_eq!(host.stop(), 0);
}
