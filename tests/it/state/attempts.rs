//! One attempt in the sandbox: what it sees, what it would write, and where its limits are.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use wasmhost::effects::{Bucket, Effect, OWN_BUCKET_TTL, Reads};
use wasmhost::jumpscript::{Digest, Manifest, embed_manifest};
use wasmhost::outcome::Outcome;
use wasmhost::permissions::Granted;
use wasmhost::ports::{BoxFuture, State, StatePage, StateValues};
use wasmhost::sandbox::{Call, CancelFlag, Finished, Options, Sandbox};

use super::keep;
use crate::support::guests;
use crate::support::program::Invocation;

/// Buckets in memory that remember what was asked of them.
#[derive(Default)]
struct Memory {
    values: BTreeMap<String, Vec<u8>>,
    asked: Mutex<Vec<String>>,
    /// Changes with every page when it is set.
    is_moving: bool,
}

impl Memory {
    fn of(pairs: &[(&str, &str)]) -> Self {
        let values = pairs.iter().map(|(key, value)| ((*key).to_owned(), value.as_bytes().to_vec())).collect();
        Self { values, ..Self::default() }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl State for Memory {
    fn values(&self, _: Bucket, keys: Vec<String>) -> BoxFuture<'static, Result<StateValues, String>> {
        self.asked.lock().unwrap().push(keys.join(" "));
        let values = keys.iter().map(|key| self.values.get(key).cloned()).collect();
        Box::pin(std::future::ready(Ok(values)))
    }

    /// Two keys a page.
    fn keys(&self, _: Bucket, cursor: u64) -> BoxFuture<'static, Result<StatePage, String>> {
        let from = usize::try_from(cursor).unwrap();
        let keys: Vec<String> = self.values.keys().skip(from).take(2).cloned().collect();
        let next = if from + 2 < self.values.len() { cursor + 2 } else { 0 };
        let version = if self.is_moving { cursor } else { 0 };
        Box::pin(std::future::ready(Ok(StatePage { keys, next, version: Some(vec![version as u8]) })))
    }
}

fn run_with(permissions: &str, state: Arc<Memory>, payload: &str, cancel: CancelFlag) -> Finished {
    let wasm = keep(permissions);
    let sandbox = Sandbox::new(Options { pool_size: 1, ..Options::default() }).unwrap();
    let script = sandbox.load(Digest::of(&wasm), &wasm).unwrap();
    let request = &Manifest::parse(&format!("[permissions]\n{permissions}")).unwrap().permissions;
    let granted = Arc::new(Granted::of(request, request).unwrap());
    let call = Call { id: "job-1".to_owned(), state: Some(state), granted, cancel, ..Call::new(payload) };
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(sandbox.run(&script, call))
}

/// Runs `keep` with buckets that hold these values.
fn run(permissions: &str, values: &[(&str, &str)], payload: &str) -> (Finished, Vec<String>) {
    let state = Arc::new(Memory::of(values));
    let finished = run_with(permissions, Arc::clone(&state), payload, CancelFlag::new());
    (finished, state.asked())
}

fn said(finished: &Finished) -> Vec<String> {
    let Outcome::Done { result } = &finished.outcome else { panic!("{finished:?}") };
    String::from_utf8_lossy(result).split('\n').map(str::to_owned).collect()
}

fn failed(finished: &Finished) -> String {
    assert!(matches!(finished.outcome, Outcome::Failed { .. }), "{finished:?}");
    finished.outcome.error_text()
}

fn own() -> Bucket {
    Bucket::Own("job-1".into())
}

fn named(organization: &str, name: &str) -> Bucket {
    Bucket::Named { organization: organization.to_owned(), name: name.to_owned() }
}

fn pairs(values: &[(&str, Option<&str>)]) -> Vec<(String, Option<Vec<u8>>)> {
    values.iter().map(|(key, value)| ((*key).to_owned(), value.map(|value| value.as_bytes().to_vec()))).collect()
}

#[test]
fn an_attempt_reads_its_own_writes_and_asks_for_a_key_once() {
    let (finished, asked) =
        run("", &[("a", "1")], "get a\nset a 2\nget a\nget b\nget b\ndelete a\nget a\nset c 3\nget c");
    assert_eq!(said(&finished), ["1", "", "2", "-", "-", "", "-", "", "3"]);
    assert_eq!(asked, ["a", "b"], "what was written or read before is not asked for");
    assert_eq!(finished.effects.reads(), [Reads { bucket: own(), values: pairs(&[("a", Some("1")), ("b", None)]) }]);
    let written =
        Effect::State { bucket: own(), ttl: Some(OWN_BUCKET_TTL), values: pairs(&[("a", None), ("c", Some("3"))]) };
    assert_eq!(finished.effects.as_slice(), [written]);
}

#[test]
fn a_bucket_lives_as_long_as_the_manifest_says() {
    // The table of permissions is open at the end of these lines; another follows.
    let permissions = "state = ['sessions', 'orders']\n[state.'sessions']\nexpires = '7d'\n";
    let (finished, _) = run(permissions, &[], "open sessions\nset a 1\nopen orders\nset b 2");
    let ttl = |name: &str| {
        finished.effects.as_slice().iter().find_map(|effect| match effect {
            Effect::State { bucket, ttl, .. } if *bucket == named("acme", name) => Some(*ttl),
            _ => None,
        })
    };
    assert_eq!(ttl("sessions"), Some(Some(Duration::from_secs(7 * 86_400))), "{finished:?}");
    assert_eq!(ttl("orders"), Some(None));
}

#[test]
fn a_number_is_added_to_and_a_swap_needs_what_was_expected() {
    let payload = "add n 2\nadd n 3\nadd new 1\ncas s - x\ncas s - y\ncas s x z\nget s";
    let (finished, _) = run("", &[("n", "40")], payload);
    assert_eq!(said(&finished), ["42", "45", "1", "true", "false", "true", "\"z\""]);
    for (value, told) in [("ten", "not a number"), ("18446744073709551615", "over 2^64 - 1")] {
        let (finished, _) = run("", &[("n", value)], "add n 1");
        assert!(failed(&finished).contains(told), "{finished:?}");
        assert_eq!(finished.effects.as_slice(), []);
    }
}

#[test]
fn several_values_are_read_in_one_round_trip() {
    let (finished, asked) = run("", &[("k0", "7"), ("k2", "8")], "reads 3\nreads 3");
    assert_eq!(said(&finished), ["2", "2"]);
    assert_eq!(asked, ["k0 k1 k2"]);
}

#[test]
fn all_pages_of_keys_are_listed_with_the_attempts_own() {
    let values = [("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1")];
    let (finished, _) = run("", &values, "keys\ndelete b\nset f 1\nset a 2\nkeys");
    assert_eq!(said(&finished), ["a,b,c,d,e", "", "", "", "a,c,d,e,f"]);
    let read = &finished.effects.reads()[0].values;
    assert_eq!(read, &[(String::new(), Some(vec![0]))], "adding or removing a key counts as a change");
}

#[test]
fn keys_that_change_while_they_are_listed_end_the_attempt() {
    let state = Memory { is_moving: true, ..Memory::of(&[("a", "1"), ("b", "1"), ("c", "1")]) };
    let finished = run_with("", Arc::new(state), "set x 1\nkeys", CancelFlag::new());
    assert_eq!(finished.outcome, Outcome::Conflict);
    assert!(finished.effects.is_empty());
}

#[test]
fn a_named_bucket_belongs_to_the_organization_and_needs_a_permission() {
    let (finished, _) = run("state = ['orders', 'cache-*:ro']", &[], "open orders\nset a 1\nopen cache-eu\nget a");
    let written = Effect::State { bucket: named("acme", "orders"), ttl: None, values: pairs(&[("a", Some("1"))]) };
    assert_eq!(finished.effects.as_slice(), [written]);
    for (payload, entry) in
        [("open stock", "add \"stock\" to `state`"), ("open cache-eu\nset a 1", "it may only be read")]
    {
        let (finished, _) = run("state = ['orders', 'cache-*:ro']", &[], payload);
        assert!(failed(&finished).contains("denied: request it with state"), "{finished:?}");
        assert!(finished.usage.log_tail.contains(entry), "{}", finished.usage.log_tail);
    }
    let (finished, _) = run("", &[], "open job\nset a 1\nopen \nget a");
    assert_eq!(said(&finished), ["", "", "", "1"], "both names mean the job's own bucket");
}

#[test]
fn a_job_is_enqueued_only_into_a_queue_that_is_permitted() {
    let (finished, _) = run("enqueue = ['mail-*']", &[], "enqueue mail-out acme/send hello\nlater mail-in t 60");
    let [Effect::Enqueue(first), Effect::Enqueue(second)] = finished.effects.as_slice() else { panic!("{finished:?}") };
    assert_eq!(said(&finished)[0], first.id.as_ref().unwrap().to_string(), "it was told the id");
    assert_eq!(
        (first.queue.as_str(), first.job_type.as_str(), first.payload.as_slice()),
        ("mail-out", "acme/send", &b"hello"[..])
    );
    assert_eq!((first.content_type.as_str(), first.run_at), ("text/plain", None));
    assert_eq!(first.metadata, [("from".to_owned(), "keep".to_owned())]);
    assert!(second.run_at.is_some() && second.priority == Some(3));
    let (finished, _) = run("enqueue = ['mail-*']", &[], "enqueue orders t x");
    assert!(failed(&finished).contains("queue `orders` denied"), "{finished:?}");
    assert!(failed(&finished).contains("add \"orders\" to `enqueue` under [permissions]"), "{finished:?}");
    let (finished, _) = run("enqueue = ['*']", &[], "priority q 10");
    assert!(failed(&finished).contains("the priority is 10, must be between 0 and 9"), "{finished:?}");
}

#[test]
fn each_limit_is_told_in_the_call_that_would_break_it() {
    let most = "one attempt writes at most 256 keys and jobs together";
    for (payload, told) in [
        ("sets 257", most),
        ("sets 200\nenqueues q 57", most),
        ("enqueues q 257", most),
        ("large a 262145", "the value of key `a` has 262145 bytes, at most 262144 are allowed"),
        (
            "large a 262144\nlarge b 262144\nlarge c 262144\nlarge d 262144",
            "at most 1048576 bytes, this would be 1048580",
        ),
        ("reads 1025", "one attempt reads at most 1024 keys"),
        ("set  x", "a key in a bucket must not be empty"),
    ] {
        let (finished, _) = run("enqueue = ['*']", &[], payload);
        assert!(failed(&finished).contains(told), "{payload}: {finished:?}");
    }
    let long = format!("set {} x", "k".repeat(257));
    assert!(failed(&run("", &[], &long).0).contains("has 257 bytes, at most 256 are allowed"));
    let large = "x".repeat(600_000);
    let (finished, _) = run("", &[("a", &large), ("b", &large)], "length a\nlength b");
    assert!(failed(&finished).contains("reads at most 1048576 bytes"), "{finished:?}");
    // What is just within is done; a value that is written again counts once.
    let (finished, _) = run("enqueue = ['*']", &[], "sets 200\nsets 200\nenqueues q 56");
    assert_eq!(finished.effects.as_slice().len(), 57, "{finished:?}");
}

/// In a process of its own: calls are counted by what the engine traces, which is decided once for all threads.
#[test]
fn a_profile_names_the_calls_for_state_and_jobs() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keep.wasm");
    std::fs::write(&file, keep("enqueue = ['q']")).unwrap();
    let payload = "set a 1\nget a\nget a\nenqueue q t x";
    let arguments = ["exec", file.to_str().unwrap(), "--payload", payload, "--output", "json", "--allow-requested"];
    let report: serde_json::Value = serde_json::from_str(&Invocation::new(arguments).run().ok()).unwrap();
    let n = |name: &str| report["host_calls"][name].as_u64().unwrap_or(0);
    assert_eq!((n("wasi:keyvalue/store bucket.set"), n("wasi:keyvalue/store bucket.get")), (1, 2), "{report}");
    assert_eq!((n("wasi:keyvalue/store open"), n("wasmhost:jumpscript/jobs enqueue")), (1, 1), "{report}");
}

/// A command has the same through the component model; preview 1 has no such calls.
#[test]
fn a_command_of_wasi_0_2_keeps_state_and_enqueues() {
    let wasm = embed_manifest(&guests::wasm("command"), "[permissions]\nstate = ['visits']\nenqueue = ['children']\n");
    let sandbox = Sandbox::new(Options { pool_size: 1, ..Options::default() }).unwrap();
    let script = sandbox.load(Digest::of(&wasm), &wasm).unwrap();
    let state = Arc::new(Memory::of(&[("n", "41")]));
    let call = Call { state: Some(state), granted: script.requested(), ..Call::new("state visits") };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let finished = runtime.block_on(sandbox.run(&script, call));
    assert_eq!(said(&finished), ["42 16"]);
    let [Effect::State { bucket, values, .. }, Effect::Enqueue(job)] = finished.effects.as_slice() else {
        panic!("{finished:?}")
    };
    assert_eq!((bucket, values), (&named("wasmhost", "visits"), &pairs(&[("n", Some("42"))])));
    assert_eq!((job.queue.as_str(), job.payload.as_slice()), ("children", &b"\"hi\""[..]));
}

#[test]
fn an_attempt_that_was_asked_to_end_goes_back_and_keeps_its_own_bucket() {
    let cancel = CancelFlag::new();
    assert_eq!(said(&run("", &[], "cancelled").0), ["false"]);
    cancel.ask();
    let finished = run_with("", Arc::default(), "set step 3\nuntil-cancelled\nretry", cancel.clone());
    assert_eq!(finished.outcome, Outcome::Cancelled, "it does not count");
    assert_eq!(finished.effects.as_slice().len(), 1);
    let finished = run_with("", Arc::default(), "retry", cancel);
    assert!(matches!(finished.outcome, Outcome::Retry { .. }), "it never asked: {finished:?}");
}
