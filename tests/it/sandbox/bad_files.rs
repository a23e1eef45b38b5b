//! Files that are broken on purpose: refused with a text, never a panic.

use std::time::Duration;

use wasmhost::jumpscript::Digest;
use wasmhost::sandbox::{Call, Error, Sandbox};

use super::{block_on, sandbox};
use crate::support::guests;
use crate::support::sections::body_of;

/// Where sections begin and end, in a component and in the modules inside it.
fn section_borders(wasm: &[u8], start: usize, end: usize, borders: &mut Vec<usize>) {
    let mut at = start + 8;
    while at < end {
        borders.push(at);
        let id = wasm[at];
        let body = body_of(wasm, at);
        let is_nested = wasm[start + 4] == 0x0d && (id == 1 || id == 4);
        if is_nested {
            section_borders(wasm, body.start, body.end, borders);
        }
        at = body.end;
    }
}

#[test]
fn a_component_cut_anywhere_is_refused() {
    let wasm = guests::wasm("echo");
    let mut cuts = Vec::new();
    section_borders(&wasm, 0, wasm.len(), &mut cuts);
    assert!(cuts.len() > 40, "{}", cuts.len());
    // Custom sections at the end may be cut off: what is left is whole, and so accepted.
    let is_custom = |border: &&usize| wasm[**border] == 0;
    let needed = *cuts.iter().rev().take_while(is_custom).last().unwrap_or(&wasm.len());
    cuts.extend((0..wasm.len()).step_by(331));
    for cut in cuts.into_iter().filter(|cut| *cut < needed) {
        let error = Sandbox::inspect(&wasm[..cut]).expect_err("a part is not the whole");
        assert!(matches!(&error, Error::Refused { hint, .. } if !hint.is_empty()), "{cut}: {error}");
    }
}

#[test]
fn a_flipped_bit_is_refused_or_runs_as_another_program() {
    let wasm = guests::wasm("echo");
    let mut accepted = Vec::new();
    for n in 0..4_000 {
        let mut bad = wasm.clone();
        bad[n * wasm.len() / 4_000] ^= 1 << (n % 8);
        if Sandbox::inspect(&bad).is_ok() {
            accepted.push(bad);
        }
    }
    // Most flips are in code and data, where they make another valid program. A few of those are run.
    let step = (accepted.len() / 12).max(1);
    for bad in accepted.iter().step_by(step) {
        match sandbox().load(Digest::of(bad), bad) {
            Ok(script) => {
                let call = Call { timeout: Duration::from_millis(300), ..Call::new("x") };
                block_on(sandbox().run(&script, call));
            }
            Err(error) => assert!(error.is_permanent(), "{error}"),
        }
    }
}

#[test]
fn native_code_is_refused_before_anything_else_looks_at_it() {
    let elf = b"\x7fELF\x02\x01\x01\x00 pretending to be an artifact";
    let error = sandbox().load(Digest::of(b"some wasm"), elf).err().expect("it is refused");
    assert!(error.to_string().contains("native code"), "before the digest is even compared: {error}");
}

#[test]
fn bytes_that_are_not_what_the_digest_says_are_never_run() {
    let error = sandbox().load(Digest::of(b"other"), &guests::wasm("echo")).err().expect("it is refused");
    assert!(matches!(error, Error::Digest { .. }) && error.is_permanent(), "{error}");
}

#[test]
fn a_component_with_another_record_shows_both_signatures() {
    let wat = r#"(component
        (core module $m (memory (export "memory") 1)
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) i32.const 0)
            (func (export "run") (param i32 i32) (result i32) i32.const 0))
        (core instance $i (instantiate $m))
        (func (export "run") (param "job" string) (result (list u8))
            (canon lift (core func $i "run") (memory (core memory $i "memory"))
                (realloc (core func $i "realloc")))))"#;
    let error = Sandbox::inspect(&wat::parse_str(wat).unwrap()).unwrap_err().to_string();
    assert!(
        error.contains("`func(string) -> list<u8>`") && error.contains("expected `func(record{id: string"),
        "{error}"
    );
}
