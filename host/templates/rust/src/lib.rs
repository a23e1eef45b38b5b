//! Greets whoever is named.

use serde::{Deserialize, Serialize};
use wasmhost_guest::{Job, JobError, log, progress};

#[derive(Deserialize)]
struct Args {
    name: String,
}

#[derive(Debug, PartialEq, Serialize)]
struct Greeting {
    greeting: String,
}

#[wasmhost_guest::job]
fn run(job: Job<Args>) -> Result<Greeting, JobError> {
    let name = job.args.name.trim();
    if name.is_empty() {
        return Err(JobError::reject("a greeting needs a name"));
    }
    log::info(format!("greeting {name}, attempt {} of {}", job.attempt, job.max_attempts));
    progress::report(50, "halfway");
    Ok(Greeting { greeting: format!("Hello, {name}!") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_greets_by_name() {
        let greeting = run(Job::test(Args { name: "Ada".to_owned() })).unwrap();
        assert_eq!(greeting.greeting, "Hello, Ada!");
    }
}
