//! `/healthz` and `/readyz`.
//!
//! Invariant: `/healthz` asks nobody, so it answers whatever Redis does; `/readyz` answers within the limit of Redis.

use serde_json::{Value, json};

use super::answer::Answer;
use super::app::App;
use super::auth::Access;
use super::{Facts, LOOP_SILENCE_MAX};
use crate::node::State;

/// Whether the process lives.
pub(super) fn healthz(facts: &Facts) -> Answer {
    let silence = facts.pulse.age();
    let is_alive = silence < LOOP_SILENCE_MAX;
    let status = if is_alive { 200 } else { 503 };
    Answer::json(status, &json!({ "alive": is_alive, "loop_silence_s": silence.as_secs() }))
}

/// Something that keeps the host from taking jobs, or that somebody should look at.
struct Reason {
    component: String,
    text: String,
    remedy: String,
}

impl Reason {
    /// Texts name addresses and files: they are for those who may see everything.
    fn shape(&self, access: Access) -> Value {
        match access {
            Access::Full => json!({ "component": self.component, "text": self.text, "remedy": self.remedy }),
            Access::Open => json!({ "component": self.component }),
        }
    }
}

/// Whether the host takes jobs.
pub(super) async fn readyz(app: &App, access: Access) -> Answer {
    let facts = &app.facts;
    let mut reasons = Vec::new();
    if *facts.stopping.borrow() {
        let remedy = "wait for its end, or ask another host".to_owned();
        reasons.push(Reason { component: "host".to_owned(), text: "it is about to stop".to_owned(), remedy });
    }
    if let Err(error) = app.redis_answers().await {
        let remedy = error.hint().unwrap_or_default();
        reasons.push(Reason { component: "redis".to_owned(), text: error.to_string(), remedy });
    }
    let mut warnings = Vec::new();
    for check in facts.board.report().iter().flat_map(|report| &report.checks).filter(|c| c.state != State::Ok) {
        let reason =
            Reason { component: check.component.clone(), text: check.text.clone(), remedy: check.remedy.clone() };
        // A full disk or a queue that cannot be served is for a person; the host takes jobs all the same.
        let is_grave = check.state == State::Error && (check.component == "loops" || check.category == "redis");
        if !is_grave {
            warnings.push(reason);
        } else if check.category != "redis" || !reasons.iter().any(|known| known.component == "redis") {
            reasons.push(reason);
        }
    }
    let shapes = |found: &[Reason]| found.iter().map(|reason| reason.shape(access)).collect::<Vec<_>>();
    let status = if reasons.is_empty() { 200 } else { 503 };
    let shape = json!({ "ready": reasons.is_empty(), "reasons": shapes(&reasons), "warnings": shapes(&warnings) });
    Answer::json(status, &shape)
}
