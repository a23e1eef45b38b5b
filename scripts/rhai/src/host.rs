//! What a script asks of the host beside log and progress: state, configuration and secrets, further jobs, HTTP. Names and meanings are those of
//! the other languages; what is refused is an error of the script, in the host's words.

use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use rhai::serde::{from_dynamic, to_dynamic};
use rhai::{Dynamic, Engine, EvalAltResult, INT, ImmutableString, Map, Module, NativeCallContext};
use serde_json::Value;
use wasmhost_guest::http::{Request, Response};
use wasmhost_guest::jobs::{self, NewJob};
use wasmhost_guest::{config, secrets, state};

type Answered<T> = Result<T, Box<EvalAltResult>>;

/// What `enqueue` may be told.
const OPTIONS: [&str; 9] = [
    "content_type",
    "metadata",
    "delay_ms",
    "run_at_ms",
    "idempotency_key",
    "priority",
    "limit_key",
    "max_attempts",
    "timeout_ms",
];

pub(crate) fn register(engine: &mut Engine) {
    engine.register_fn("cancelled", jobs::cancelled);
    engine.register_fn("enqueue", |queue: &str, job_type: &str, payload: Dynamic| {
        enqueue(queue, job_type, &payload, Map::new())
    });
    engine.register_fn("enqueue", |queue: &str, job_type: &str, payload: Dynamic, options: Map| {
        enqueue(queue, job_type, &payload, options)
    });
    engine.register_fn("config", value);
    engine.register_fn("secret", secret);
    register_state(engine);
    register_http(engine);
}

/// An error of the script.
fn refused(what: impl Display) -> Box<EvalAltResult> {
    what.to_string().into()
}

fn told<T>(called: &str, result: Result<T, impl Display>) -> Answered<T> {
    result.map_err(|error| refused(format!("{called}: {error}")))
}

/// A value of the script as JSON.
fn json(what: &str, value: &Dynamic) -> Answered<Value> {
    from_dynamic(value)
        .map_err(|_| refused(format!("{what} is of type {}, which JSON does not have", value.type_name())))
}

/// A text as it is, bytes as they are, anything else as JSON; and whether it is JSON.
fn payload(what: &str, value: &Dynamic) -> Answered<(Vec<u8>, bool)> {
    if let Ok(text) = value.as_immutable_string_ref() {
        return Ok((text.as_bytes().to_vec(), false));
    }
    if let Ok(bytes) = value.as_blob_ref() {
        return Ok((bytes.clone(), false));
    }
    Ok((json(what, value)?.to_string().into_bytes(), true))
}

/// A value of the node's configuration; the unit when there is none.
fn value(key: &str) -> Answered<Dynamic> {
    told(&format!("config {key}"), config::get(key)).map(|value| value.map_or(Dynamic::UNIT, Dynamic::from))
}

/// A secret of the node, as text.
fn secret(name: &str) -> Answered<String> {
    let secret = told(&format!("secret {name}"), secrets::get(name))?;
    told(&format!("secret {name}"), secret.text().map(str::to_owned))
}

/// A bucket of state.
#[derive(Clone)]
struct Bucket {
    inner: Rc<state::Bucket>,
    called: Rc<str>,
}

impl Bucket {
    fn open(name: &str) -> Answered<Self> {
        let called = if name.is_empty() { "the job's state".to_owned() } else { format!("state {name}") };
        Ok(Self { inner: Rc::new(told(&called, state::open(name))?), called: called.into() })
    }

    fn at(&self, key: &str) -> String {
        format!("{}, key {key}", self.called)
    }

    fn get(&mut self, key: &str) -> Answered<Dynamic> {
        let value: Option<Value> = told(&self.at(key), self.inner.get(key))?;
        value.map_or(Ok(Dynamic::UNIT), to_dynamic)
    }

    fn set(&mut self, key: &str, value: Dynamic) -> Answered<()> {
        told(&self.at(key), self.inner.set(key, &json("the value", &value)?))
    }

    fn delete(&mut self, key: &str) -> Answered<()> {
        told(&self.at(key), self.inner.delete(key))
    }

    fn increment(&mut self, key: &str, by: INT) -> Answered<INT> {
        let by =
            u64::try_from(by).map_err(|_| refused(format!("{}: cannot add {by}, only 0 and more", self.at(key))))?;
        let sum = told(&self.at(key), self.inner.increment(key, by))?;
        INT::try_from(sum).map_err(|_| refused(format!("{}: {sum} is more than a number of Rhai holds", self.at(key))))
    }
}

fn register_state(engine: &mut Engine) {
    engine.register_type_with_name::<Bucket>("State");
    engine.register_fn("state", || Bucket::open(""));
    engine.register_fn("state", Bucket::open);
    engine.register_fn("get", Bucket::get);
    engine.register_fn("set", Bucket::set);
    engine.register_fn("delete", Bucket::delete);
    engine.register_fn("increment", |bucket: &mut Bucket, key: &str| bucket.increment(key, 1));
    engine.register_fn("increment", Bucket::increment);
}

fn enqueue(queue: &str, job_type: &str, value: &Dynamic, mut options: Map) -> Answered<String> {
    if let Some(unknown) = options.keys().find(|name| !OPTIONS.contains(&name.as_str())) {
        return Err(refused(format!("`{unknown}` is no option of a job, must be one of {}", OPTIONS.join(", "))));
    }
    let (bytes, is_json) = payload("the payload", value)?;
    let content_type = text(&mut options, "content_type")?;
    let content_type =
        content_type.unwrap_or_else(|| if is_json { "application/json".to_owned() } else { String::new() });
    let mut job = NewJob::new(queue, job_type).payload_of(&content_type, bytes);
    if let Some(metadata) = options.remove("metadata") {
        let pairs = metadata.try_cast::<Map>().ok_or_else(|| refused("option `metadata` is no map"))?;
        job = pairs.iter().fold(job, |job, (name, value)| job.metadata_pair(name, &value.to_string()));
    }
    if let Some(ms) = number(&mut options, "delay_ms")? {
        job = job.delay(Duration::from_millis(ms));
    }
    if let Some(ms) = number(&mut options, "run_at_ms")? {
        job = job.run_at_ms(ms);
    }
    if let Some(key) = text(&mut options, "idempotency_key")? {
        job = job.idempotency_key(&key);
    }
    if let Some(priority) = number(&mut options, "priority")? {
        job = job.priority(u8::try_from(priority).unwrap_or(u8::MAX));
    }
    if let Some(key) = text(&mut options, "limit_key")? {
        job = job.limit_key(&key);
    }
    if let Some(n) = number(&mut options, "max_attempts")? {
        job = job.max_attempts(u32::try_from(n).unwrap_or(u32::MAX));
    }
    if let Some(ms) = number(&mut options, "timeout_ms")? {
        job = job.timeout(Duration::from_millis(ms));
    }
    told(&format!("enqueue into {queue}"), job.enqueue())
}

/// An option that is a text.
fn text(options: &mut Map, name: &str) -> Answered<Option<String>> {
    let Some(value) = options.remove(name) else { return Ok(None) };
    value.into_string().map(Some).map_err(|kind| refused(format!("option `{name}` is of type {kind}, must be a text")))
}

/// An option that is a number from 0.
fn number(options: &mut Map, name: &str) -> Answered<Option<u64>> {
    let Some(value) = options.remove(name) else { return Ok(None) };
    let number = value.as_int().ok().and_then(|number| u64::try_from(number).ok());
    number.map(Some).ok_or_else(|| refused(format!("option `{name}` is `{value}`, must be a whole number from 0")))
}

/// An answer of another system.
#[derive(Clone)]
struct Answer {
    inner: Rc<Response>,
    called: Rc<str>,
}

impl Answer {
    fn headers(&mut self) -> Map {
        let mut headers = Map::new();
        for (name, value) in &self.inner.headers {
            let value = String::from_utf8_lossy(value).into_owned();
            let all = match headers.get(name.as_str()) {
                Some(before) => format!("{before}, {value}"),
                None => value,
            };
            headers.insert(name.as_str().into(), all.into());
        }
        headers
    }

    fn json(&mut self) -> Answered<Dynamic> {
        let value: Result<Value, _> = serde_json::from_slice(&self.inner.body);
        let value = value.map_err(|error| refused(format!("{}: the answer is not JSON: {error}", self.called)))?;
        to_dynamic(value)
    }
}

fn register_http(engine: &mut Engine) {
    engine
        .register_type_with_name::<Answer>("Answer")
        .register_get("status", |answer: &mut Answer| INT::from(answer.inner.status))
        .register_get("headers", Answer::headers)
        .register_get("body", |answer: &mut Answer| Dynamic::from_blob(answer.inner.body.clone()))
        .register_get("text", |answer: &mut Answer| answer.inner.text())
        .register_get("json", Answer::json);
    type Text = ImmutableString;
    type Call<'a> = NativeCallContext<'a>;
    let mut http = Module::new();
    http.set_native_fn("get", |call: Call, url: Text| placed(&call, send("GET", &url, Map::new())));
    http.set_native_fn("post", |call: Call, url: Text, body: Dynamic| {
        placed(&call, send("POST", &url, Map::from([("body".into(), body)])))
    });
    http.set_native_fn("request", |call: Call, method: Text, url: Text| placed(&call, send(&method, &url, Map::new())));
    http.set_native_fn("request", |call: Call, method: Text, url: Text, options: Map| {
        placed(&call, send(&method, &url, options))
    });
    engine.register_static_module("http", http.into());
}

/// With the line of the call, which Rhai does not add for the functions of a module.
fn placed<T>(call: &NativeCallContext<'_>, result: Answered<T>) -> Answered<T> {
    result.map_err(|mut error| {
        error.set_position(call.call_position());
        error
    })
}

fn send(method: &str, url: &str, mut options: Map) -> Answered<Answer> {
    let mut request = Request::new(method, url);
    let mut has_type = false;
    if let Some(headers) = options.remove("headers") {
        let headers = headers.try_cast::<Map>().ok_or_else(|| refused("`headers` of a request is no map"))?;
        for (name, value) in headers {
            has_type |= name.eq_ignore_ascii_case("content-type");
            request = request.header(&name, value.to_string());
        }
    }
    if let Some(body) = options.remove("body").filter(|body| !body.is_unit()) {
        let (bytes, is_json) = payload("the body", &body)?;
        if is_json && !has_type {
            request = request.header("content-type", "application/json");
        }
        request = request.body(bytes);
    }
    if let Some(unknown) = options.keys().next() {
        return Err(refused(format!("`{unknown}` is no option of a request, must be `headers` or `body`")));
    }
    let inner = request.send().map_err(refused)?;
    let called = format!("{method} {}", url.split(['?', '#']).next().unwrap_or_default());
    Ok(Answer { inner: Rc::new(inner), called: called.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn engine() -> Engine {
        let mut engine = Engine::new();
        register(&mut engine);
        engine
    }

    fn value(script: &str) -> Value {
        from_dynamic(&engine().eval::<Dynamic>(script).unwrap()).unwrap()
    }

    fn failure(script: &str) -> String {
        engine().eval::<Dynamic>(script).unwrap_err().to_string()
    }

    #[test]
    fn a_script_keeps_values_and_counts() {
        let script = "let own = state(); own.set(\"a\", #{n: 1}); own.increment(\"b\", 4);
            [own.get(\"a\"), own.get(\"none\"), own.increment(\"b\"), state(\"other\").get(\"a\")]";
        assert_eq!(value(script).to_string(), r#"[{"n":1},null,5,null]"#);
        assert!(failure("state().increment(\"b\", -1)").contains("the job's state, key b: cannot add -1"));
        assert!(failure("state().set(\"\", 1)").contains("1 to 256 bytes"));
    }

    #[test]
    fn a_script_enqueues_with_the_options_that_there_are() {
        assert!(value("fn f() { enqueue(\"q\", \"t\", #{a: 1}) } f()").is_string());
        let _ = value("enqueue(\"q\", \"t\", \"text\", #{delay_ms: 5, metadata: #{by: \"me\"}, priority: 3})");
        let jobs = jobs::enqueued();
        assert_eq!((jobs[0].payload(), jobs[1].payload()), (&b"{\"a\":1}"[..], &b"text"[..]));
        assert_eq!(jobs[1].metadata(), [("by".to_owned(), "me".to_owned())]);
        assert!(failure("enqueue(\"q\", \"t\", 1, #{delay: 5})").contains("`delay` is no option of a job"));
        assert!(failure("enqueue(\"q\", \"t\", 1, #{delay_ms: -5})").contains("`delay_ms` is `-5`"));
        assert!(failure("enqueue(\"\", \"t\", 1)").contains("enqueue into : a job needs"));
    }

    #[test]
    fn a_request_is_refused_with_its_name() {
        let said = failure("fn f() { http::get(\"http://a.b/c?token=7\") } f()");
        assert!(said.contains("GET http://a.b/c: a native test has no host") && !said.contains("token"), "{said}");
        assert!(failure("http::request(\"GET\", \"http://a\", #{haeders: #{}})").contains("`haeders` is no option"));
    }
}
