//! `wasmhost test`: cases of jumpscript authors, with the built program.

use std::fs;
use std::path::Path;

use crate::dev::project;
use crate::support::guests;
use crate::support::program::{Ended, Invocation};

/// A folder with a guest and a file of cases about it.
fn folder(guest: &str, cases: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("tests")).unwrap();
    fs::copy(guests::path(guest), folder.path().join("mine.wasm")).unwrap();
    fs::write(folder.path().join("tests/mine.toml"), cases).unwrap();
    folder
}

fn test(folder: &Path, arguments: &[&str]) -> Ended {
    Invocation::new([&["test"], arguments].concat()).dir(folder).run()
}

const ENDS: &str = r#"
[[case]]
name = "says its attempt"
payload = "record"
attempt = 3
max_attempts = 4
metadata = { tenant = "7" }
expect = { regex = 'attempt: 3, max_attempts: 4.*\("tenant", "7"\)' }

[[case]]
name = "comes back later"
payload = "later"
expect = { outcome = "retry", error = "busy", retry_after = "1500ms" }

[[case]]
name = "rejects what it does not know"
payload = "nonsense"
expect = { outcome = "rejected", error_regex = "^unknown word nonsense$" }

[[case]]
name = "fails"
payload = "failed"
expect = { error = "no luck" }

[[case]]
name = "sleeps longer than it may"
payload = "sleep"
timeout = "100ms"
expect = { outcome = "timed_out", log = ["good night"], log_lines_max = 1 }

[[case]]
name = "starts afresh"
payload = "residue"
expect = { text = "0", memory_mib_max = 2, wall_max = "20s" }
"#;

#[test]
fn cases_that_come_out_as_expected_pass() {
    let ended = test(folder("end", ENDS).path(), &[]);
    assert!(ended.stdout.contains("6 passed, 0 failed"), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("tests/mine.toml (mine)"), "{}", ended.stdout);
    assert_eq!(ended.code, 0);
}

#[test]
fn what_differs_is_shown_with_the_log_and_the_exit_code_says_so() {
    let cases = r#"
[[case]]
name = "a result that differs"
payload = { sum = 3, of = [1, 2] }
expect = { result = { sum = 4, of = [1, 2] } }
[[case]]
name = "a subset that differs"
payload = { sum = 3, of = { a = 1, b = 2 } }
expect = { subset = { of = { b = 5 } } }
[[case]]
name = "another outcome"
payload = "x"
expect = { outcome = "rejected", host_calls_max = 0 }
"#;
    let folder = folder("echo", cases);
    let ended = test(folder.path(), &[]);
    assert_eq!(ended.code, 1, "{}", ended.stderr);
    let lines: Vec<&str> = ended.stdout.lines().map(str::trim).collect();
    for line in ["-\"sum\": 4", "+  \"sum\": 3", "-of.b: 5", "+of.b: 2", "-rejected", "+done", "0 passed, 3 failed"] {
        let is_there = lines.iter().any(|said| said.replace(' ', "") == line.replace(' ', ""));
        assert!(is_there, "{line}\n{}", ended.stdout);
    }
    let json = test(folder.path(), &["--output", "json", "--filter", "subset"]);
    let document: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&document["failed"], &document["left_out"]), (&1.into(), &2.into()), "{document}");
    assert_eq!(document["cases"][0]["differences"]["subset"][0], "-of.b: 5", "{document}");
    assert_eq!(document["cases"][0]["profile"]["outcome"], "done", "{document}");
}

#[test]
fn a_failed_case_shows_how_it_died_and_what_it_logged() {
    let folder = folder("die", "[[case]]\nname = 'stays alive'\npayload = 'panic'\n");
    let ended = test(folder.path(), &[]);
    assert_eq!(ended.code, 1);
    for part in ["-done", "+trapped", "die.rs:", "the spring broke", "[info] stderr: "] {
        assert!(ended.stdout.contains(part), "{part}\n{}", ended.stdout);
    }
}

#[test]
fn update_writes_what_came_and_keeps_comments_and_rules() {
    let cases = r#"# What echo says.
[[case]]
name = "new"
payload = { a = 1 }

[[case]]
name = "changed" # a comment
payload = "hello"
expect = { text = "hullo" }

[[case]]
name = "a rule"
payload = { a = 1 }
expect = { subset = { a = 2 } }
"#;
    let folder = folder("echo", cases);
    let ended = test(folder.path(), &["--update"]);
    assert!(ended.stdout.contains("2 passed, 1 failed, 2 updated"), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stdout.contains("not updated: `subset` is a rule of yours"), "{}", ended.stdout);
    let text = fs::read_to_string(folder.path().join("tests/mine.toml")).unwrap();
    for part in ["# What echo says.", "# a comment", "text = \"hello\"", "subset = { a = 2 }", "result = { a = 1 }"] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    let again = test(folder.path(), &[]);
    assert!(again.stdout.contains("2 passed, 1 failed"), "{}", again.stdout);
}

#[test]
fn payloads_and_results_can_be_files_beside_the_cases() {
    let cases = r#"
[[case]]
name = "json"
payload_file = "in.json"
expect = { result_file = "out.json" }
[[case]]
name = "bytes"
payload_file = "in.json"
expect = { result_file = "in.json.bytes" }
"#;
    let folder = folder("echo", cases);
    let put = |name: &str, text: &str| fs::write(folder.path().join("tests").join(name), text).unwrap();
    put("in.json", "{\"a\": null, \"b\": 1}");
    put("out.json", "{\"b\": 1.0,\n\"a\": null}");
    put("in.json.bytes", "{}");
    let ended = test(folder.path(), &[]);
    assert!(ended.stdout.contains("1 passed, 1 failed"), "{}{}", ended.stdout, ended.stderr);
    assert_eq!(test(folder.path(), &["--update"]).code, 0);
    assert_eq!(test(folder.path(), &[]).code, 0);
}

#[test]
fn what_cannot_be_tested_is_refused_with_what_to_do() {
    let folder = folder("echo", "[[case]]\nname = 'x'\n");
    let refused = |arguments: &[&str]| test(folder.path(), arguments).fails(2);
    assert!(refused(&["--filter", "nothing"]).contains("no case fits"));
    assert!(refused(&["nowhere"]).contains("`nowhere`"));
    assert!(refused(&["--wasm", "tests"]).contains("is a directory"));
    fs::copy(guests::path("end"), folder.path().join("other.wasm")).unwrap();
    fs::rename(folder.path().join("tests/mine.toml"), folder.path().join("tests/all.toml")).unwrap();
    let several = refused(&[]);
    assert!(several.contains("`mine`, `other`") && several.contains("script = "), "{several}");
    fs::write(folder.path().join("tests/all.toml"), "[[case]]\nnmae = 'x'\n").unwrap();
    let unknown = refused(&[]);
    assert!(unknown.contains("tests/all.toml") && unknown.contains("did you mean `name`"), "{unknown}");
    fs::remove_dir_all(folder.path().join("tests")).unwrap();
    assert!(refused(&[]).contains("tests/NAME.toml"));
}

#[test]
fn a_script_has_cases_like_any_other_and_its_manifest_counts() {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    fs::create_dir(folder.path().join("tests")).unwrap();
    put("twice.rhai", "if args.n < 0 {\n  throw \"negative\";\n}\nstate(\"sums\").increment(\"n\");\nargs.n * 2");
    put("twice.toml", "[permissions]\nstate = [\"sums\"]\n");
    put("other.rhai", "enqueue(\"q\", \"t\", 1)");
    put(
        "tests/twice.toml",
        "[[case]]\nname = 'doubles'\npayload = { n = 21 }\nexpect = { result = 42, buckets = { sums = { n = 1 } } }\n\
         [[case]]\nname = 'says the line'\npayload = { n = -1 }\nexpect = { error = 'twice.rhai line 2: negative' }\n",
    );
    put("tests/cases.toml", "script = 'other'\n[[case]]\nname = 'asks'\nexpect = { error = 'enqueue into q: ' }\n");
    let rhai = guests::path("rhai");
    let said = test(folder.path(), &["--interpreter", rhai.to_str().unwrap()]).ok();
    assert!(said.contains("tests/twice.toml (twice)") && said.contains("3 passed, 0 failed"), "{said}");
    put("tests/cases.toml", "[[case]]\nname = 'x'\n");
    let said = test(folder.path(), &["--interpreter", rhai.to_str().unwrap()]).fails(2);
    assert!(said.contains("`other`, `twice`") && said.contains("`tests/NAME.toml`"), "{said}");
}

#[test]
fn a_project_is_built_and_its_panic_points_at_the_line() {
    let folder = tempfile::tempdir().unwrap();
    project(folder.path(), "counts", "let t = std::io::read_to_string(std::io::stdin()).unwrap();\ncount(&t)");
    let source = folder.path().join("src/main.rs");
    let code = fs::read_to_string(&source).unwrap()
        + "\n#[inline(never)]\nfn count(text: &str) {\n    let n: u32 = text.parse().expect(\"a number\");\n    print!(\"{}\", n + 1);\n}\n";
    fs::write(&source, code).unwrap();
    fs::create_dir(folder.path().join("tests")).unwrap();
    let cases = "[[case]]\nname = 'counts'\npayload = '41'\nexpect = { text = '42' }\n\
                 [[case]]\nname = 'wants a number'\npayload = 'x'\n";
    fs::write(folder.path().join("tests/counts.toml"), cases).unwrap();
    let ended = test(folder.path(), &[]);
    assert!(ended.stdout.contains("1 passed, 1 failed"), "{}{}", ended.stdout, ended.stderr);
    assert!(ended.stderr.contains("building counts"), "{}", ended.stderr);
    assert!(ended.stdout.contains("panicked at src/main.rs:6:"), "{}", ended.stdout);
    assert!(ended.stdout.contains("at count (src/main.rs:6:"), "{}", ended.stdout);
    assert!(ended.stdout.contains("at main (src/main.rs:2:"), "{}", ended.stdout);
    assert!(!ended.stdout.contains("lang_start"), "{}", ended.stdout);

    fs::write(&source, "fn main() { nonsense }").unwrap();
    let broken = test(folder.path(), &[]);
    let said = broken.fails(1);
    assert!(said.contains("cannot find value `nonsense`") && said.contains("nothing was tested"), "{said}");
}

#[test]
fn state_is_given_and_what_would_be_written_and_enqueued_is_compared() {
    let ours = r#"
[[case]]
name = "adds to what is there"
payload = "add n 2\nget who\nset seen yes\nenqueue out mail hello"
state = { n = 40, who = "Ada" }
[case.expect]
state = { n = 42, seen = "yes" }
enqueued = [{ type = "mail", payload = "hello" }]
host_calls_max = 30
"#;
    let folder = folder("keep", ours);
    let manifest = "name = 'mine'\n[permissions]\nenqueue = ['out']\n";
    fs::write(folder.path().join("mine.toml"), manifest).unwrap();
    let ended = test(folder.path(), &[]);
    assert!(ended.stdout.contains("1 passed, 0 failed"), "{}{}", ended.stdout, ended.stderr);

    let other = ours.replace("n = 42", "n = 43").replace("type = \"mail\"", "type = \"post\"");
    fs::write(folder.path().join("tests/mine.toml"), other).unwrap();
    let ended = test(folder.path(), &[]);
    for part in ["-n: 43", "+n: 42", "-post into any queue: hello", "+mail into out: hello"] {
        assert!(ended.stdout.contains(part), "{part}\n{}", ended.stdout);
    }
}
