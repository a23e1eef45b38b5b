//! The jumpscripts that tests run: built once per test process, by the ordinary build.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where a guest's Wasm file is, under the target directory.
const FILES: [(&str, &str); 18] = [
    ("rhai", "wasm32-wasip2/guest/rhai_interpreter.wasm"),
    ("echo", "wasm32-wasip2/guest/echo.wasm"),
    ("text-stats", "wasm32-wasip2/guest/text_stats.wasm"),
    ("torture", "wasm32-wasip2/guest/torture.wasm"),
    ("health-disk", "wasm32-wasip2/guest/health_disk.wasm"),
    ("health-load", "wasm32-wasip2/guest/health_load.wasm"),
    ("hello", "wasm32-wasip2/guest/hello.wasm"),
    ("ask", "wasm32-wasip2/guest/examples/ask.wasm"),
    ("actor", "wasm32-wasip2/guest/examples/actor.wasm"),
    ("die", "wasm32-wasip2/guest/examples/die.wasm"),
    ("say", "wasm32-wasip2/guest/examples/say.wasm"),
    ("end", "wasm32-wasip2/guest/examples/end.wasm"),
    ("fetch", "wasm32-wasip2/guest/examples/fetch.wasm"),
    ("keep", "wasm32-wasip2/guest/examples/keep.wasm"),
    ("lie", "wasm32-wasip2/guest/examples/lie.wasm"),
    ("wait", "wasm32-wasip2/guest/examples/wait.wasm"),
    ("command", "wasm32-wasip2/guest/command.wasm"),
    ("command-preview1", "wasm32-wasip1/guest/command.wasm"),
];

/// The Wasm file of a guest; builds all of them when nobody did in this process.
pub fn path(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    BUILT.get_or_init(build);
    let file = FILES.iter().find(|(guest, _)| *guest == name).unwrap_or_else(|| panic!("there is no guest `{name}`"));
    target().join(file.1)
}

/// The bytes of a guest.
pub fn wasm(name: &str) -> Vec<u8> {
    fs::read(path(name)).unwrap()
}

/// The Wasm file of an interpreter of `scripts/`, or which compiler is not installed. Built once, whoever asks first;
/// what is there is taken as long as it is younger than its sources.
pub fn interpreter(name: &str) -> Result<Vec<u8>, String> {
    if name == "rhai" {
        return Ok(wasm(name));
    }
    let folder = target().join("interpreters");
    fs::create_dir_all(&folder).unwrap();
    let lock = File::create(target().join("guests.lock")).unwrap();
    lock.lock().unwrap();
    let file = folder.join(format!("{name}.wasm"));
    let output = Command::new(root().join("scripts").join(name).join("build")).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Ok(fs::read(file).unwrap()),
        Some(3) => Err(said.into_owned()),
        _ => panic!("the interpreter `{name}` does not build:\n{said}"),
    }
}

/// Every guest's name.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

fn build() {
    fs::create_dir_all(target()).unwrap();
    // Test processes that start together wait for the first instead of printing about cargo's own lock.
    let lock = File::create(target().join("guests.lock")).unwrap();
    lock.lock().unwrap();
    let scripts = ["-p", "wasmhost-script-echo", "-p", "wasmhost-script-text-stats", "-p", "wasmhost-script-torture"];
    let health = ["-p", "wasmhost-script-health-disk", "-p", "wasmhost-script-health-load"];
    let components = [scripts.as_slice(), &health, &["-p", "hello", "-p", "wasmhost-script-rhai"]].concat();
    let guests = ["-p", "wasmhost-test-guests", "--lib", "--bins", "--examples"];
    cargo("wasm32-wasip2", &[components.as_slice(), &guests].concat());
    cargo("wasm32-wasip1", &["-p", "wasmhost-test-guests", "--bins"]);
}

fn cargo(target_triple: &str, packages: &[&str]) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--profile", "guest", "--target", target_triple, "--target-dir"])
        .arg(target())
        .args(packages)
        // Flags for the tests would replace the small stack of the guests.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .current_dir(root())
        .output()
        .expect("cargo starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "the guests do not build:\n{said}\nhint: rustup target add {target_triple}");
}
