//! The description of the API, in OpenAPI 3.1: made from the table of routes and the tables of fields.

use serde_json::{Map, Value, json};

use super::BULK_MAX;
use super::answer::problem_words;
use super::routes::{Page, ROUTES, Route};
use crate::job::submission::{FIELDS, Field};

/// The description as text.
#[must_use]
pub fn openapi_json() -> String {
    let mut text = serde_json::to_string_pretty(&description()).unwrap_or_default();
    text.push('\n');
    text
}

fn description() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "wasmhost",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Jobs over HTTP. Any answer may be a problem (RFC 9457): 400, 401, 403, 405, 429, 503.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
            "schemas": schemas(),
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut parameters: Vec<Value> = Vec::new();
    if route.path.contains("{id}") {
        parameters.push(json!({
            "name": "id", "in": "path", "required": true, "schema": { "type": "string" },
            "description": "The id of a job, percent-encoded.",
        }));
    }
    for parameter in route.query {
        parameters.push(json!({
            "name": parameter.name, "in": "query", "schema": { "type": "string" }, "description": parameter.what,
        }));
    }
    let mut responses = Map::new();
    for (status, what) in route.answers {
        let content = if *status < 400 || !route.path.starts_with("/v1/") {
            content_of(route.page)
        } else {
            json!({ "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } })
        };
        responses.insert(status.to_string(), json!({ "description": what, "content": content }));
    }
    let mut operation = json!({ "summary": route.what, "responses": responses });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    let body = match route.page {
        Page::Submit => Some(json!({ "oneOf": [
            { "$ref": "#/components/schemas/Job" }, { "$ref": "#/components/schemas/Jobs" },
        ] })),
        Page::Cancel => Some(json!({ "$ref": "#/components/schemas/Cancel" })),
        _ => None,
    };
    if let Some(schema) = body {
        let is_required = route.page == Page::Submit;
        operation["requestBody"] =
            json!({ "required": is_required, "content": { "application/json": { "schema": schema } } });
    }
    if route.page == Page::Submit {
        operation["parameters"] = json!([{
            "name": "Idempotency-Key", "in": "header", "schema": { "type": "string" },
            "description": "As the field `idempotency_key`, for a single job.",
        }]);
    }
    operation
}

fn content_of(page: Page) -> Value {
    match page {
        Page::Metrics => json!({ "text/plain": { "schema": { "type": "string" } } }),
        Page::Logs => json!({ "text/event-stream": { "schema": { "type": "string" } } }),
        _ => json!({ "application/json": { "schema": { "type": "object" } } }),
    }
}

fn schemas() -> Value {
    let kinds = problem_words();
    json!({
        "Job": schema_of(&FIELDS),
        "Jobs": {
            "type": "object", "additionalProperties": false, "required": ["jobs"],
            "properties": {
                "jobs": {
                    "type": "array", "minItems": 1, "maxItems": BULK_MAX,
                    "items": { "$ref": "#/components/schemas/Job" },
                },
            },
        },
        "Cancel": {
            "type": "object", "additionalProperties": false,
            "properties": { "reason": {
                "type": "string", "default": "cancelled over HTTP", "description": "Why, for the job's record.",
            } },
        },
        "Problem": {
            "type": "object",
            "properties": {
                "type": { "type": "string", "description": "urn:wasmhost:problem: and a word", "x-words": kinds },
                "title": { "type": "string" },
                "status": { "type": "integer" },
                "detail": { "type": "string" },
                "hint": { "type": "string", "description": "What to do about it." },
                "index": { "type": "integer", "description": "Of a list of jobs: the one that is wrong." },
                "jobs": { "type": "array", "description": "Of a list of jobs: those that were made all the same." },
            },
        },
    })
}

fn schema_of(fields: &[Field]) -> Value {
    let mut properties = Map::new();
    for field in fields {
        let mut schema: Value = serde_json::from_str(field.schema).unwrap_or_default();
        schema["description"] = field.what.into();
        properties.insert(field.name.to_owned(), schema);
    }
    let required: Vec<&str> = fields.iter().filter(|field| field.is_required()).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object", "additionalProperties": false, "properties": properties });
    if !required.is_empty() {
        schema["required"] = required.into();
    }
    schema
}
