//! Asks for what needs a permission, as its payload says, and tells what came of it.
use wasmhost_guest::{Job, JobError, Raw, config, facts, log, progress, secrets};

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    let payload = String::from_utf8(job.args.0)?;
    let secret = |name: &str| secrets::get(name).and_then(|secret| Ok(secret.text()?.to_owned()));
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
        ["facts", "disks"] => format!("{:?}", facts::disks()?),
        ["facts", "memory"] => format!("{:?}", facts::memory()?),
        ["facts", "load"] => format!("{:?}", facts::load()?),
        ["facts", "uptime"] => facts::uptime()?.to_string(),
        ["facts", "health"] => format!("{:?}", facts::health()?),
        ["facts", "processes", names @ ..] => format!("{:?}", facts::processes(names)?),
        ["facts", "many", number] => {
            let names = vec!["x"; number.parse()?];
            facts::processes(&names).map_or_else(|error| error.to_string(), |counts| counts.len().to_string())
        }
        ["config", key] => config::get(key)?.unwrap_or_else(|| "nothing".to_owned()),
        ["configs"] => config::all()?.into_iter().map(|(key, value)| format!("{key}={value} ")).collect(),
        ["secret", name] => secret(name)?.len().to_string(),
        ["try", name] => secret(name).map_or_else(|error| error.to_string(), |value| value.len().to_string()),
        ["say", name] => {
            let value = secret(name)?;
            log::log(log::Level::Warn, &value, format!("the secret is {value}!"));
            log::info(format!("{{\"key\": {value:?}}}"));
            progress::report(50, &value);
            println!("{value}");
            let (front, back) = value.split_at(value.len() / 2);
            eprint!("{front}");
            eprintln!("{back} on stderr");
            "said".to_owned()
        }
        ["fail", name] => return Err(JobError::failed(format!("cannot log in with {}", secret(name)?))),
        ["reject", name] => return Err(JobError::reject(secret(name)?)),
        ["retry", name] => return Err(JobError::retry(secret(name)?)),
        ["trap", name] => panic!("with {}", secret(name)?),
        ["flood", name] => {
            let value = secret(name)?;
            // Wherever a line or the end that is kept is cut, it is cut through one of them.
            (0..5_000).for_each(|_| eprint!("{value}"));
            panic!("after the flood");
        }
        _ => return Err(JobError::reject(format!("what is `{payload}`?"))),
    };
    Ok(Raw(text.into_bytes()))
}
