//! Reads a Wasm file without compiling it, and refuses what could never run, each with its own text.
//!
//! Invariant: no bytes make it panic, and native code is refused by its first bytes before anything parses it.
//!
//! Next: `signature` for how the type of `run` is compared, `script` for what linking finds later.

use wasmparser::component_types::ComponentEntityType;
use wasmparser::types::{EntityType, Types};
use wasmparser::{ComponentTypeRef, Encoding, Parser, Payload, TypeBounds, Validator, WasmFeatures};

use super::engine::{MEMORIES_MAX, TABLES_MAX};
use super::error::Error;
use super::script::Shape;
use super::signature;
use crate::job::visible;
use crate::jumpscript::{Digest, Kind, MANIFEST_SECTION, Manifest, WASM_BYTES_MAX};

/// What a Wasm file says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// What it is.
    pub kind: Kind,
    /// The SHA-256 of the file.
    pub digest: Digest,
    /// Bytes of the file.
    pub size: usize,
    /// What it imports, in the order of the file.
    pub imports: Vec<Import>,
    /// What it exports, by name.
    pub exports: Vec<String>,
    /// The manifest that the SDK embedded, or the one appended at publish.
    pub manifest: Option<Manifest>,
    /// The import of HTTP of a file whose manifest does not say where requests go; also `http = []` says it. A file that
    /// is linked from shared libraries imports what they might call, and is not held to it.
    pub unrequested_http: Option<String>,
    pub(super) shape: Shape,
}

/// One thing that a file imports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Import {
    /// The interface with its version, such as `wasi:io/streams@0.2.6`, or `module.function` of a core module.
    pub name: String,
    /// What it is for, in a few words.
    pub purpose: &'static str,
}

/// What a component may import: interface, version (a track such as `0.2`, or exact), what it is for.
const INTERFACES: [(&str, &str, &str); 33] = [
    ("wasi:io/error", "0.2", "streams"),
    ("wasi:io/poll", "0.2", "streams"),
    ("wasi:io/streams", "0.2", "streams"),
    ("wasi:cli/environment", "0.2", "JOB_* variables of a command, and what is permitted of the host's"),
    ("wasi:cli/exit", "0.2", "exit codes"),
    ("wasi:cli/stdin", "0.2", "payload of a command"),
    ("wasi:cli/stdout", "0.2", "result of a command, else log"),
    ("wasi:cli/stderr", "0.2", "log"),
    ("wasi:cli/terminal-input", "0.2", "there is no terminal"),
    ("wasi:cli/terminal-output", "0.2", "there is no terminal"),
    ("wasi:cli/terminal-stdin", "0.2", "there is no terminal"),
    ("wasi:cli/terminal-stdout", "0.2", "there is no terminal"),
    ("wasi:cli/terminal-stderr", "0.2", "there is no terminal"),
    ("wasi:clocks/monotonic-clock", "0.2", "clocks"),
    ("wasi:clocks/wall-clock", "0.2", "clocks"),
    ("wasi:random/random", "0.2", "random bytes"),
    ("wasi:random/insecure", "0.2", "random bytes"),
    ("wasi:random/insecure-seed", "0.2", "random bytes"),
    ("wasi:filesystem/types", "0.2", "directories to read, as far as permitted"),
    ("wasi:filesystem/preopens", "0.2", "directories to read, as far as permitted"),
    ("wasi:http/types", "0.2", "HTTP requests, as far as permitted"),
    ("wasi:http/outgoing-handler", "0.2", "HTTP requests, as far as permitted"),
    ("wasi:logging/logging", "0.1.0-draft", "log"),
    ("wasi:keyvalue/store", "0.2.0-draft", "state in buckets, as far as permitted"),
    ("wasi:keyvalue/atomics", "0.2.0-draft", "state in buckets, as far as permitted"),
    ("wasi:keyvalue/batch", "0.2.0-draft", "state in buckets, as far as permitted"),
    ("wasi:config/store", "0.2.0-rc.1", "values of the node's configuration, as far as permitted"),
    ("wasmhost:jumpscript/types", "0.1", "the job and its errors"),
    ("wasmhost:jumpscript/progress", "0.1", "progress"),
    ("wasmhost:jumpscript/jobs", "0.1", "enqueueing jobs, as far as permitted, and whether to end"),
    ("wasmhost:jumpscript/secrets", "0.1", "secrets, as far as permitted"),
    ("wasmhost:jumpscript/facts", "0.1", "facts about the node, as far as permitted"),
    ("wasmhost:jumpscript/http", "0.1", "HTTP requests, as far as permitted"),
];

/// What comes with an interpreter: a shared library may import it, whether the program calls it or not. Linked, and
/// every call of it is refused; a file that is linked as one has only what it calls, and is refused itself.
const OF_LIBRARIES: [&str; 7] = [
    "wasi:sockets/instance-network",
    "wasi:sockets/ip-name-lookup",
    "wasi:sockets/network",
    "wasi:sockets/tcp",
    "wasi:sockets/tcp-create-socket",
    "wasi:sockets/udp",
    "wasi:sockets/udp-create-socket",
];
/// What a component imports that sends requests in the standard way.
const HTTP: &str = "wasi:http/outgoing-handler@";
/// The custom section of a shared library.
const LIBRARY_SECTION: &str = "dylink.0";

/// Interfaces that people ask for and that are not granted: prefix, what it is.
const NOT_GRANTED: [(&str, &str); 8] = [
    ("wasi:sockets/", "network sockets"),
    ("wasi:http/", "HTTP but outgoing requests"),
    ("wasi:keyvalue/", "a key-value store but `store`, `atomics` and `batch`"),
    ("wasi:config/", "configuration but `store`"),
    ("wasi:messaging/", "messaging"),
    ("wasi:blobstore/", "a blob store"),
    ("wasi:tls/", "TLS"),
    ("wasi:nn/", "machine learning"),
];

/// The functions of WASI preview 1 that the host links.
const PREVIEW1: [&str; 46] = [
    "args_get",
    "args_sizes_get",
    "environ_get",
    "environ_sizes_get",
    "clock_res_get",
    "clock_time_get",
    "fd_advise",
    "fd_allocate",
    "fd_close",
    "fd_datasync",
    "fd_fdstat_get",
    "fd_fdstat_set_flags",
    "fd_fdstat_set_rights",
    "fd_filestat_get",
    "fd_filestat_set_size",
    "fd_filestat_set_times",
    "fd_pread",
    "fd_prestat_get",
    "fd_prestat_dir_name",
    "fd_pwrite",
    "fd_read",
    "fd_readdir",
    "fd_renumber",
    "fd_seek",
    "fd_sync",
    "fd_tell",
    "fd_write",
    "path_create_directory",
    "path_filestat_get",
    "path_filestat_set_times",
    "path_link",
    "path_open",
    "path_readlink",
    "path_remove_directory",
    "path_rename",
    "path_symlink",
    "path_unlink_file",
    "poll_oneoff",
    "proc_exit",
    "proc_raise",
    "sched_yield",
    "random_get",
    "sock_accept",
    "sock_recv",
    "sock_send",
    "sock_shutdown",
];

const REBUILD: &str = "build the file again, and copy it whole (write beside it, then rename)";
const HOW_TO_BUILD: &str = "build a component of world `wasmhost:jumpscript/jumpscript` (Rust: `cargo build --target wasm32-wasip2`), \
     or a WASI command with a `main`";

impl Inspection {
    /// Inspects a file.
    ///
    /// # Errors
    /// [`Error::Refused`] with the thing, and a hint with the remedy.
    pub fn of(wasm: &[u8]) -> Result<Self, Error> {
        check_head(wasm)?;
        let outline = Outline::read(wasm)?;
        let types = validate(wasm, &outline)?;
        let (shape, imports) = if Parser::is_component(wasm) {
            let imports = outline
                .imports
                .iter()
                .map(|name| component_import(name, outline.has_libraries))
                .collect::<Result<_, _>>()?;
            (component_shape(&types, &outline)?, imports)
        } else {
            core_shape(&types)?
        };
        let manifest = outline.manifest.map(read_manifest).transpose()?;
        let sends = outline.imports.iter().find(|name| name.starts_with(HTTP)).filter(|_| !outline.has_libraries);
        let unrequested_http = sends.filter(|_| !outline.manifest.is_some_and(says_http)).map(|name| visible(name));
        let kind = if shape == Shape::Component { Kind::Component } else { Kind::Command };
        let exports = outline.exports.iter().map(|name| visible(name)).collect();
        let digest = Digest::of(wasm);
        Ok(Self { kind, digest, size: wasm.len(), imports, exports, manifest, unrequested_http, shape })
    }
}

/// Refuses by size and first bytes what is not Wasm at all.
pub(super) fn check_head(wasm: &[u8]) -> Result<(), Error> {
    if wasm.is_empty() {
        return Err(Error::refused("the file is empty", REBUILD));
    }
    if wasm.starts_with(b"\x7fELF") {
        return Err(Error::refused(
            "the file is native code (ELF, which is also what a `.cwasm` is), and native code is never accepted",
            "give the `.wasm` file; each host compiles it itself",
        ));
    }
    if wasm.len() > WASM_BYTES_MAX {
        return Err(Error::refused(
            format!("the file has {} bytes, at most {WASM_BYTES_MAX} are allowed", wasm.len()),
            "build it in release mode, and strip its debug information",
        ));
    }
    if b"\0asm".starts_with(&wasm[..wasm.len().min(4)]) {
        return match wasm.get(4..8) {
            None => Err(Error::refused(format!("the file is cut off after {} bytes", wasm.len()), REBUILD)),
            Some([1, 0, 0, 0] | [0x0d, 0, 1, 0]) => Ok(()),
            Some(version) => Err(Error::refused(
                format!("the file has the unknown Wasm version {version:02x?}"),
                "build it for Wasm 1.0 or the component model 1.0; older previews are not read",
            )),
        };
    }
    let text = String::from_utf8_lossy(&wasm[..wasm.len().min(64)]).into_owned();
    if text.trim_start().starts_with('(') || text.trim_start().starts_with(";;") {
        return Err(Error::refused(
            "the file is WebAssembly text, not a Wasm file",
            "translate it first: `wasm-tools parse FILE.wat -o FILE.wasm`",
        ));
    }
    let start: String = text.chars().take(12).collect();
    Err(Error::refused(format!("the file is not Wasm: it starts with `{}`", visible(&start)), HOW_TO_BUILD))
}

/// The names in a file, and its manifest.
struct Outline<'a> {
    imports: Vec<&'a str>,
    exports: Vec<&'a str>,
    manifest: Option<&'a [u8]>,
    /// Whether it was linked from shared libraries, which is how interpreters are built.
    has_libraries: bool,
}

impl<'a> Outline<'a> {
    fn read(wasm: &'a [u8]) -> Result<Self, Error> {
        let mut outline = Outline { imports: Vec::new(), exports: Vec::new(), manifest: None, has_libraries: false };
        let mut depth = 0_u32;
        for payload in Parser::new(0).parse_all(wasm) {
            match payload.map_err(|error| corrupt(&error))? {
                Payload::Version { encoding: Encoding::Module | Encoding::Component, .. } => depth += 1,
                Payload::End(_) => depth = depth.saturating_sub(1),
                Payload::ComponentImportSection(imports) if depth == 1 => {
                    for import in imports {
                        let import = import.map_err(|error| corrupt(&error))?;
                        // A name for a type that another import defines is nothing to be answered.
                        if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                            outline.imports.push(import.name.name);
                        }
                    }
                }
                Payload::ComponentExportSection(exports) if depth == 1 => {
                    for export in exports {
                        outline.exports.push(export.map_err(|error| corrupt(&error))?.name.name);
                    }
                }
                Payload::ExportSection(exports) if depth == 1 => {
                    for export in exports {
                        outline.exports.push(export.map_err(|error| corrupt(&error))?.name);
                    }
                }
                Payload::MemorySection(memories) if memories.count() > MEMORIES_MAX => {
                    return Err(too_many("memories", memories.count(), MEMORIES_MAX));
                }
                Payload::TableSection(tables) if tables.count() > TABLES_MAX => {
                    return Err(too_many("tables", tables.count(), TABLES_MAX));
                }
                // The linker leaves the section in the core module inside the component.
                Payload::CustomSection(section) if section.name() == MANIFEST_SECTION => {
                    // The last one: a manifest beside the file is appended at publish, and wins over the SDK's.
                    outline.manifest = Some(section.data());
                }
                Payload::CustomSection(section) if section.name() == LIBRARY_SECTION => outline.has_libraries = true,
                _ => {}
            }
        }
        Ok(outline)
    }
}

fn too_many(what: &str, found: u32, most: u32) -> Error {
    Error::refused(
        format!("a module of the file has {found} {what}, at most {most} fit a sandbox"),
        format!("build it with fewer {what}"),
    )
}

/// The proposals that the engine runs; `engine::code_config` switches off the same ones.
fn features() -> WasmFeatures {
    (WasmFeatures::WASM3 | WasmFeatures::COMPONENT_MODEL)
        & !(WasmFeatures::THREADS
            | WasmFeatures::FUNCTION_REFERENCES
            | WasmFeatures::GC
            | WasmFeatures::GC_TYPES
            | WasmFeatures::EXCEPTIONS
            | WasmFeatures::MEMORY64
            | WasmFeatures::CM_ASYNC)
}

fn validate(wasm: &[u8], outline: &Outline<'_>) -> Result<Types, Error> {
    let error = match Validator::new_with_features(features()).validate_all(wasm) {
        Ok(types) => return Ok(types),
        Err(error) => error,
    };
    // Is it well made, but for another kind of host?
    if Validator::new_with_features(WasmFeatures::all()).validate_all(wasm).is_err() {
        return Err(corrupt(&error));
    }
    let is_async = Validator::new_with_features(features() | WasmFeatures::CM_ASYNC).validate_all(wasm).is_ok();
    if is_async || outline.imports.iter().any(|name| name.contains("@0.3")) {
        return Err(Error::refused(
            "the component uses the async ABI of WASI 0.3, which jumpscripts do not have",
            "build it for WASI 0.2 with synchronous bindings (Rust: `--target wasm32-wasip2`)",
        ));
    }
    Err(Error::refused(
        format!("the file uses a Wasm proposal that is switched off here: {}", error.message()),
        "build it without threads, garbage collection, exceptions and 64-bit memories",
    ))
}

fn corrupt(error: &wasmparser::BinaryReaderError) -> Error {
    Error::refused(
        format!("the file is truncated or corrupt: {} (at byte {})", visible(error.message()), error.offset()),
        REBUILD,
    )
}

/// Checks one import of a component.
fn component_import(name: &str, has_libraries: bool) -> Result<Import, Error> {
    let (interface, version) = name.split_once('@').unwrap_or((name, ""));
    let shown = visible(name);
    if has_libraries && version.starts_with("0.2.") && OF_LIBRARIES.contains(&interface) {
        return Ok(Import { name: shown, purpose: "every call is refused" });
    }
    if let Some((_, track, purpose)) = INTERFACES.iter().find(|(known, ..)| *known == interface) {
        if version == *track || version.strip_prefix(track).is_some_and(|rest| rest.starts_with('.')) {
            return Ok(Import { name: shown, purpose });
        }
        return Err(Error::refused(
            format!("the component imports `{shown}`, but this host has version {track}"),
            if version.starts_with("0.3") {
                "build it for WASI 0.2 with synchronous bindings (Rust: `--target wasm32-wasip2`)"
            } else {
                "build it against the versions that `guest-sdk/wit` names"
            },
        ));
    }
    if let Some((_, what)) = NOT_GRANTED.iter().find(|(prefix, _)| interface.starts_with(prefix)) {
        return Err(Error::refused(
            format!("the component imports `{shown}`, which is not granted: jumpscripts have no {what}"),
            "remove the call that needs it, or the library that brings it in",
        ));
    }
    Err(Error::refused(
        format!("the component imports `{shown}`, which this host does not know"),
        "import only what world `wasmhost:jumpscript/jumpscript` and WASI 0.2 offer",
    ))
}

fn component_shape(types: &Types, outline: &Outline<'_>) -> Result<Shape, Error> {
    if let Some(item) = types.component_item_for_export("run") {
        let ComponentEntityType::Func(id) = item.ty else {
            return Err(Error::refused("the export `run` is not a function", HOW_TO_BUILD));
        };
        let found = signature::write(types, id);
        if found != signature::RUN {
            return Err(Error::refused(
                format!("the export `run` has the signature `{found}`, expected `{}`", signature::RUN),
                "take the types from `guest-sdk/wit` of this version",
            ));
        }
        return Ok(Shape::Component);
    }
    let run = outline.exports.iter().find_map(|name| name.strip_prefix("wasi:cli/run@"));
    match run {
        Some(version) if version.starts_with("0.2.") => Ok(Shape::Command),
        Some(version) => Err(Error::refused(
            format!("the component is a command of WASI {}, but this host has 0.2", visible(version)),
            "build it for WASI 0.2 (Rust: `--target wasm32-wasip2`)",
        )),
        None => {
            let has = match outline.exports.as_slice() {
                [] => "it exports nothing".to_owned(),
                names => format!("it exports {}", visible(&names.join(", "))),
            };
            Err(Error::refused(format!("the component has no export `run` and is not a command; {has}"), HOW_TO_BUILD))
        }
    }
}

fn core_shape(types: &Types) -> Result<(Shape, Vec<Import>), Error> {
    let types = types.as_ref();
    let mut imports = Vec::new();
    for (module, name, _) in types.core_imports().into_iter().flatten() {
        imports.push(core_import(module, name)?);
    }
    let exports: Vec<(&str, EntityType)> = types.core_exports().into_iter().flatten().collect();
    let export = |wanted: &str| exports.iter().find(|(name, _)| *name == wanted).map(|(_, ty)| *ty);
    let Some(start) = export("_start") else {
        return Err(Error::refused("the core module is not a command: it exports no `_start`", HOW_TO_BUILD));
    };
    let takes_nothing = matches!(start, EntityType::Func(id)
        if types.get(id).is_some_and(|ty| matches!(&ty.composite_type.inner,
            wasmparser::CompositeInnerType::Func(f) if f.params().is_empty() && f.results().is_empty())));
    if !takes_nothing {
        return Err(Error::refused(
            "the export `_start` of the core module is not a function without parameters and results",
            HOW_TO_BUILD,
        ));
    }
    if !imports.is_empty() && !matches!(export("memory"), Some(EntityType::Memory(_))) {
        return Err(Error::refused("the core module does not export its memory as `memory`", HOW_TO_BUILD));
    }
    Ok((Shape::Core, imports))
}

/// Checks one import of a core module.
fn core_import(module: &str, name: &str) -> Result<Import, Error> {
    let shown = visible(&format!("{module}.{name}"));
    if module == "wasi_snapshot_preview1" && PREVIEW1.contains(&name) {
        return Ok(Import { name: shown, purpose: "WASI preview 1" });
    }
    let hint = match module {
        "wasi_unstable" => "build it for WASI preview 1 (`wasm32-wasip1`); the preview before it is not read",
        "wasi" => "build it without threads",
        "env" => "link the function into the module; an import of `env` is often a missing library",
        _ => "import only functions of `wasi_snapshot_preview1`",
    };
    Err(Error::refused(format!("the core module imports `{shown}`, which this host does not have"), hint))
}

fn read_manifest(bytes: &[u8]) -> Result<Manifest, Error> {
    let hint = "correct `jumpscript.toml`, and build again";
    let text =
        std::str::from_utf8(bytes).map_err(|_| Error::refused("the embedded manifest is not UTF-8 text", hint))?;
    Manifest::parse(text).map_err(|error| Error::refused(format!("the embedded manifest: {error}"), hint))
}

/// Whether a manifest says where HTTP requests go, if only that they go nowhere.
fn says_http(manifest: &[u8]) -> bool {
    let table = std::str::from_utf8(manifest).ok().and_then(|text| text.parse::<toml::Table>().ok());
    table.is_some_and(|table| table.get("permissions").is_some_and(|permissions| permissions.get("http").is_some()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(wasm: &[u8]) -> String {
        match Inspection::of(wasm).unwrap_err() {
            Error::Refused { reason, hint } => {
                assert!(!hint.is_empty(), "{reason}");
                reason
            }
            other => panic!("{other:?}"),
        }
    }

    fn refused_text(wat: &str) -> String {
        refusal(&wat::parse_str(wat).unwrap())
    }

    #[test]
    fn what_is_not_wasm_is_told_apart() {
        assert_eq!(refusal(b""), "the file is empty");
        assert!(refusal(b"\x7fELF\x02\x01").contains("native code"));
        assert!(refusal(b"\0as").contains("cut off after 3 bytes"));
        assert!(refusal(b"\0asm\x01").contains("cut off after 5 bytes"));
        assert!(refusal(b"\0asm\x0c\0\x01\0rest").contains("unknown Wasm version"));
        assert!(refusal(b" (module)").contains("WebAssembly text"));
        assert!(refusal(b"#!/bin/sh\necho").contains("it starts with `#!/bin/sh"));
        assert!(refusal(&vec![0; WASM_BYTES_MAX + 1]).contains("at most 67108864"));
    }

    #[test]
    fn imports_that_are_not_granted_are_named_with_their_version() {
        let component = |import: &str| format!("(component (import \"{import}\" (instance)))");
        assert!(
            refused_text(&component("wasi:http/incoming-handler@0.2.3")).contains("`wasi:http/incoming-handler@0.2.3`")
        );
        assert!(refused_text(&component("acme:db/query@1.0.0")).contains("does not know"));
        assert!(refused_text(&component("wasi:cli/stdin@0.3.0")).contains("this host has version 0.2"));
        assert!(refused_text(&component("wasi:logging/logging@0.2.0")).contains("0.1.0-draft"));
        assert!(refused_text("(module (import \"env\" \"f\" (func)) (func (export \"_start\")))").contains("`env.f`"));
    }

    #[test]
    fn sockets_may_be_imported_by_a_library_but_not_by_a_program() {
        let component =
            |module: &str| format!("(component (import \"wasi:sockets/tcp@0.2.9\" (instance)) (core module {module}))");
        assert!(refused_text(&component("")).contains("`wasi:sockets/tcp@0.2.9`, which is not granted"));
        assert!(refused_text(&component("(@custom \"dylink.0\" \"\")")).contains("it exports nothing"));
    }

    #[test]
    fn a_file_without_an_entry_says_what_it_has() {
        assert!(refused_text("(component)").contains("it exports nothing"));
        assert!(refused_text("(module (func (export \"main\")))").contains("`_start`"));
        assert!(refused_text("(module (func (export \"_start\") (param i32)))").contains("without parameters"));
        let core = "(core module $m (func (export \"f\"))) (core instance $i (instantiate $m))";
        let run = format!("(component {core} (func $f (canon lift (core func $i \"f\"))) (export \"run\" (func $f)))");
        assert!(refused_text(&run).contains("the signature `func()`"), "{}", refused_text(&run));
    }

    #[test]
    fn proposals_that_are_off_are_not_called_corrupt() {
        assert!(refused_text("(module (memory i64 1) (func (export \"_start\")))").contains("proposal"));
        let future = "(component (type $f (future u8)) (import \"a:b/c@0.3.0\" (func (param \"x\" $f))))";
        assert!(refused_text(future).contains("async"), "{}", refused_text(future));
    }

    #[test]
    fn more_memories_or_tables_than_a_sandbox_holds_are_counted() {
        let module = |what: &str| format!("(module {} (func (export \"_start\")))", what.repeat(65));
        assert!(refused_text(&module("(memory 1)")).contains("65 memories, at most 4"));
        assert!(refused_text(&module("(table 1 funcref)")).contains("65 tables, at most 64"));
    }

    #[test]
    fn the_list_of_preview_1_is_what_the_linker_has() {
        let engine =
            wasmtime::Engine::new(&super::super::engine::code_config(1 << 32, false, super::super::Tier::Optimised))
                .unwrap();
        let linker = super::super::contract::core_linker(&engine).unwrap();
        let mut store = super::super::guest::tests_store(&engine);
        let linked: std::collections::BTreeSet<String> =
            linker.iter(&mut store).map(|(_, name, _)| name.to_owned()).collect();
        let listed: std::collections::BTreeSet<String> = PREVIEW1.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(linked, listed);
    }
}
