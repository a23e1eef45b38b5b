//! Runs a script in Rhai. `docs/interpreters.md` says what a script is given, and what it can use.
//!
//! Invariant: a script sees its job and what this module and `host` register, nothing else of the host; an error says the
//! line of the script, and its words come from Rhai.

mod host;
mod order;

use std::time::Duration;

use rhai::module_resolvers::DummyModuleResolver;
use rhai::serde::{from_dynamic, to_dynamic};
use rhai::{AST, Dynamic, Engine, EvalAltResult, FLOAT, INT, ImmutableString, ParseErrorType, Position, Scope};
use serde_json::{Value, json};
use wasmhost_guest::log::Level;
use wasmhost_guest::{Job, JobError, Raw, log, progress};

use order::Order;

/// Calls of functions inside each other. The stack of this module holds about twice as many.
const CALL_LEVELS_MAX: usize = 128;
/// Nesting of expressions, outside and inside of functions.
const EXPRESSION_DEPTH_MAX: usize = 64;

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Value, JobError> {
    let order = Order::read(&job).map_err(JobError::reject)?;
    let engine = engine();
    let ast = engine.compile(&order.script).map_err(|error| fault(&order, &error.into()))?;
    if order.is_check {
        return Ok(Value::Null);
    }
    let mut scope = Scope::new();
    for (name, value) in [("args", &order.args), ("payload", &json!(order.payload)), ("job", &record(&job))] {
        let value = to_dynamic(value).map_err(|error| JobError::reject(format!("`{name}` is no value: {error}")))?;
        scope.push_constant_dynamic(name, value);
    }
    let value = evaluate(&engine, &mut scope, &ast).map_err(|error| end(&order, *error))?;
    from_dynamic(&value).map_err(|_| {
        let kind = value.type_name();
        JobError::failed(format!(
            "{}the value of the script is of type {kind}, which JSON does not have",
            order.at(None)
        ))
    })
}

fn evaluate(engine: &Engine, scope: &mut Scope<'_>, ast: &AST) -> Result<Dynamic, Box<EvalAltResult>> {
    engine.eval_ast_with_scope::<Dynamic>(scope, ast)
}

/// The job as the script sees it.
fn record(job: &Job<Raw>) -> Value {
    json!({
        "id": job.id, "queue": job.queue, "type": job.job_type, "node": job.node, "attempt": job.attempt,
        "max_attempts": job.max_attempts, "deadline_ms": job.deadline_ms, "enqueued_at_ms": job.enqueued_at_ms,
        "content_type": job.content_type, "metadata": order::metadata(job),
    })
}

/// Rhai with what a jumpscript can do.
fn engine() -> Engine {
    let mut engine = Engine::new();
    engine
        .set_module_resolver(DummyModuleResolver::new())
        .set_max_call_levels(CALL_LEVELS_MAX)
        .set_max_expr_depths(EXPRESSION_DEPTH_MAX, EXPRESSION_DEPTH_MAX)
        .on_print(|text| log::info(text))
        .on_debug(|text, _, position| match position.line() {
            Some(line) => log::debug(format!("line {line}: {text}")),
            None => log::debug(text),
        });
    engine.register_fn("log", |level: &str, message: Dynamic| match self::level(level) {
        Some(level) => {
            log::log(level, "", message);
            Ok(())
        }
        None => Err(Box::<EvalAltResult>::from(format!(
            "`{level}` is no level of a log, must be trace, debug, info, warn, error or critical"
        ))),
    });
    engine.register_fn("progress", |percent: INT| progress::report(clamped(percent), ""));
    engine.register_fn("progress", |percent: INT, message: &str| progress::report(clamped(percent), message));
    engine.register_fn("retry", |reason: &str| stop(&json!({ "retry": reason })));
    engine.register_fn("retry", |reason: &str, after_ms: INT| {
        stop(&json!({ "retry": reason, "after_ms": after_ms.max(0) }))
    });
    engine.register_fn("retry", |reason: &str, after_ms: FLOAT| {
        stop(&json!({ "retry": reason, "after_ms": after_ms.max(0.0) as u64 }))
    });
    engine.register_fn("reject", |reason: &str| stop(&json!({ "reject": reason })));
    host::register(&mut engine);
    engine
}

fn clamped(percent: INT) -> u8 {
    u8::try_from(percent.clamp(0, 100)).unwrap_or(100)
}

fn level(word: &str) -> Option<Level> {
    Some(match word {
        "trace" => Level::Trace,
        "debug" => Level::Debug,
        "info" => Level::Info,
        "warn" => Level::Warn,
        "error" => Level::Error,
        "critical" => Level::Critical,
        _ => return None,
    })
}

/// Ends the script in a way that it cannot catch.
fn stop(how: &Value) -> Result<(), Box<EvalAltResult>> {
    let token = to_dynamic(how.to_string())?;
    Err(EvalAltResult::ErrorTerminated(token, Position::NONE).into())
}

/// How an error of a script ends the job.
fn end(order: &Order, error: EvalAltResult) -> JobError {
    let stopped = match error.unwrap_inner() {
        EvalAltResult::ErrorTerminated(token, _) => serde_json::from_str(&token.to_string()).unwrap_or(Value::Null),
        _ => Value::Null,
    };
    let word = |name: &str| stopped.get(name).and_then(Value::as_str);
    match (word("retry"), word("reject"), stopped.get("after_ms").and_then(Value::as_u64)) {
        (Some(reason), _, Some(after)) => JobError::retry_after(Duration::from_millis(after), reason),
        (Some(reason), _, None) => JobError::retry(reason),
        (None, Some(reason), _) => JobError::reject(reason),
        _ => fault(order, &error),
    }
}

/// The words for an error: its line, and what Rhai says.
fn fault(order: &Order, error: &EvalAltResult) -> JobError {
    let mut trail = Vec::new();
    let mut inner = error;
    while let EvalAltResult::ErrorInFunctionCall(name, _, next, position) = inner {
        trail.push((name, position));
        inner = next;
    }
    let mut position = inner.position();
    // Where a function of Rhai itself complains there is no line but the call's.
    if position.is_none() {
        position = trail.last().map_or(Position::NONE, |(_, position)| **position);
    }
    let message = match inner {
        EvalAltResult::ErrorModuleNotFound(name, _) => format!(
            "there is no module `{name}`: a script has the functions of Rhai and of its job, and imports nothing"
        ),
        EvalAltResult::ErrorParsing(ParseErrorType::UnknownOperator(word), _) => format!("unknown operator `{word}`"),
        EvalAltResult::ErrorRuntime(thrown, _) => thrown_text(thrown),
        other => {
            let text = other.to_string();
            // The place is said first.
            match text.rfind(" (line ").filter(|_| text.ends_with(')')) {
                Some(end) => text[..end].to_owned(),
                None => text,
            }
        }
    };
    let mut text = format!("{}{message}", order.at(position.line()));
    for (name, position) in trail.iter().rev() {
        match position.line() {
            Some(line) => text.push_str(&format!("\n  in `{name}`, called at line {line}")),
            None => text.push_str(&format!("\n  in `{name}`")),
        }
    }
    JobError::failed(text)
}

/// What a script has thrown: text as it is, anything else as JSON.
fn thrown_text(thrown: &Dynamic) -> String {
    if let Ok(text) = thrown.as_immutable_string_ref() {
        return ImmutableString::clone(&text).into();
    }
    from_dynamic::<Value>(thrown).map_or_else(|_| thrown.to_string(), |value| value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(script: &str) -> Result<Value, JobError> {
        run(Job::test(Raw(script.as_bytes().to_vec())))
    }

    fn failure(script: &str) -> String {
        text(script).unwrap_err().to_string()
    }

    #[test]
    fn the_value_of_a_script_is_the_result() {
        assert_eq!(
            text("let x = 6; #{answer: x * 7, list: [1, 2.5, \"a\", true, ()]}"),
            Ok(json!({"answer": 42, "list": [1, 2.5, "a", true, null]}))
        );
        assert_eq!(text("print(1);"), Ok(Value::Null));
    }

    #[test]
    fn an_error_says_its_line_and_the_calls_that_led_to_it() {
        assert_eq!(failure("let a = 1;\nlet b = 0;\na / b"), "failed: line 3: Division by zero: 1 / 0");
        let nested = failure("fn deep(x) {\n  throw `no ${x}`;\n}\n\ndeep(7)");
        assert_eq!(nested, "failed: line 2: no 7\n  in `deep`, called at line 5");
        assert!(failure("1\n2 3 4").starts_with("failed: line 2: "), "{}", failure("1\n2 3 4"));
        assert!(failure("nope()").starts_with("failed: line 1: Function not found: nope"), "{}", failure("nope()"));
    }

    #[test]
    fn an_import_says_that_there_is_none() {
        let said = failure("\nimport \"fs\" as fs;");
        assert!(said.starts_with("failed: line 2: there is no module `fs`"), "{said}");
    }

    #[test]
    fn a_script_ends_its_job_as_it_likes_and_cannot_be_held_up() {
        assert_eq!(text("try { reject(\"bad\"); } catch { }").unwrap_err(), JobError::reject("bad"));
        assert_eq!(
            text("fn f() { retry(\"busy\", 1500); } f()").unwrap_err(),
            JobError::retry_after(Duration::from_millis(1500), "busy")
        );
        assert_eq!(text("retry(\"busy\")").unwrap_err(), JobError::retry("busy"));
    }

    #[test]
    fn what_is_no_json_is_named() {
        assert!(failure("|x| x + 1").contains("of type Fn"), "{}", failure("|x| x + 1"));
    }

    #[test]
    fn the_documentation_lists_the_functions_that_there_are() {
        let mut names: Vec<String> = engine()
            .gen_fn_signatures(true)
            .iter()
            .filter_map(|signature| signature.split('(').next())
            .map(|name| name.trim().to_owned())
            .filter(|name| {
                name != "get_fn_metadata_list"
                    && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
                    && !name.is_empty()
            })
            .collect();
        names.sort();
        names.dedup();
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/interpreters.md");
        let page = std::fs::read_to_string(path).unwrap();
        let parts: Vec<&str> = page.split("<!-- rhai -->").collect();
        assert_eq!(parts.len(), 3, "docs/interpreters.md has one place for Rhai");
        let fresh = format!("{}<!-- rhai -->\n{}\n<!-- rhai -->{}", parts[0], names.join(" "), parts[2]);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, fresh).unwrap();
        } else {
            assert_eq!(page, fresh, "run this test with UPDATE_DOCS=1");
        }
    }
}
