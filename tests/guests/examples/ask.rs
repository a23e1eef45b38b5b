//! Asks for what needs a permission, as its payload says, and tells what came of it.
use wasmhost_guest::{Job, JobError, Raw};

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    let payload = String::from_utf8(job.args.0)?;
    let text = match payload.split(' ').collect::<Vec<_>>().as_slice() {
        ["env", name] => std::env::var(name).unwrap_or_else(|_| "nothing".to_owned()),
        ["environment"] => {
            let mut names: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
            names.sort();
            names.join(",")
        }
        ["read", path] => std::fs::read_to_string(path).unwrap_or_else(|error| format!("error {error}")),
        ["write", path] => match std::fs::write(path, "written") {
            Ok(()) => "written".to_owned(),
            Err(error) => format!("error {error}"),
        },
        _ => return Err(JobError::reject(format!("what is `{payload}`?"))),
    };
    Ok(Raw(text.into_bytes()))
}
