//! The pages about HTTP, compared with the code and tried out.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use super::World;
use crate::support::client::Request;
use crate::support::docs::assert_document;
use crate::support::guests;

#[test]
fn the_page_on_metrics_is_what_the_table_says() {
    assert_document("metrics.md", &wasmhost::metrics::markdown());
}

#[test]
fn the_description_of_the_api_is_what_the_routes_say() {
    assert_document("openapi.json", &wasmhost::http::openapi_json());
}

/// Every route and method of the description is served, and the fields of its requests are those that are read: the
/// answer to a wrong field names all that there are.
#[tokio::test]
async fn what_the_description_lists_is_served_and_nothing_else_is_read() {
    let world = World::with(&[]).await;
    let api = Request::get("/v1/openapi.json").send(world.http).ok(200);
    assert_eq!(api["openapi"], "3.1.0");
    for (path, operations) in api["paths"].as_object().unwrap() {
        let real = path.replace("{id}", "nobody");
        for method in ["get", "post"] {
            let request =
                Request::new(&method.to_uppercase(), &real).header("Content-Type: application/json").body("{}");
            let answer = request.send(world.http);
            let is_served = answer.status != 405 && (path.contains("{id}") || answer.status != 404);
            assert_eq!(is_served, operations.get(method).is_some(), "{method} {path}: {}", answer.status);
        }
    }
    let wrong = |path: &str, status| Request::post(path, r#"{"no such field":1}"#).send(world.http).problem(status);
    let (job, cancel) = (wrong("/v1/jobs", 422), wrong("/v1/jobs/x/cancel", 400));
    let of_a_job = job.split("known are ").nth(1).unwrap().split(", ").collect();
    let of_a_cancel = cancel.split('`').skip(3).step_by(2).collect();
    for (schema, read) in [("Job", of_a_job), ("Cancel", of_a_cancel)] {
        let described: BTreeSet<&str> = api["components"]["schemas"][schema]["properties"]
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        assert_eq!(described, read, "{schema}");
    }
    let text = std::fs::read_to_string(guests::root().join("docs/http.md")).unwrap();
    for (path, operations) in api["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            assert!(
                text.contains(&format!("| `{} {path}", method.to_uppercase())),
                "docs/http.md has no {method} {path}"
            );
        }
    }
}

/// The recipes of docs/http.md, each block a script of its own.
#[tokio::test]
async fn the_recipes_of_the_page_work() {
    if Command::new("curl").arg("--version").output().is_err() {
        eprintln!("skipped: no curl on this machine");
        return;
    }
    let world = World::new().await;
    let text = std::fs::read_to_string(guests::root().join("docs/http.md")).unwrap();
    let recipes = text.split("\n## Recipes").nth(1).expect("the heading is there");
    let blocks: Vec<&str> = recipes.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(blocks.len() >= 5, "{blocks:?}");
    let script = blocks.join("\n").replace("127.0.0.1:8080", &world.http.to_string());
    let output = Command::new("sh").args(["-euc", &script]).output().unwrap();
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}\n{complained}");
    for answer in said.lines().filter(|line| line.starts_with('{')) {
        let shape: Value = serde_json::from_str(answer).unwrap();
        assert!(shape.get("detail").is_none(), "a recipe met a problem: {answer}");
    }
    assert!(said.contains("\"status\":\"done\"") && said.contains("event: end"), "{said}");
}
