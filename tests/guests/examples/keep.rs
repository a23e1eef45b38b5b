//! Reads and writes state and enqueues jobs as the lines of its payload say; its result is what it was told.
use std::time::Duration;
use wasmhost_guest::state::{self, Bucket};
use wasmhost_guest::{Job, JobError, Raw, http, jobs};

fn line(bucket: &mut Bucket, line: &str) -> Result<String, JobError> {
    let words: Vec<&str> = line.split(' ').collect();
    let text =
        |value: Option<Vec<u8>>| value.map_or("-".to_owned(), |value| String::from_utf8_lossy(&value).into_owned());
    Ok(match words.as_slice() {
        ["open", name] => {
            *bucket = state::open(name)?;
            String::new()
        }
        ["get", key] => text(bucket.get_raw(key)?),
        ["length", key] => bucket.get_raw(key)?.map_or(0, |value| value.len()).to_string(),
        ["set", key, value] => bucket.set_raw(key, *value).map(|()| String::new())?,
        ["large", key, bytes] => bucket.set_raw(key, vec![b'x'; bytes.parse()?]).map(|()| String::new())?,
        ["delete", key] => bucket.delete(key).map(|()| String::new())?,
        ["add", key, delta] => bucket.increment(key, delta.parse()?)?.to_string(),
        ["cas", key, expected, new] => {
            let value = |word: &&str| (*word != "-").then(|| (*word).to_owned());
            bucket.cas(key, value(expected).as_ref(), value(new).as_ref())?.to_string()
        }
        ["keys"] => bucket.keys()?.join(","),
        ["sets", number] => (0..number.parse::<u32>()?)
            .try_for_each(|n| bucket.set_raw(&format!("k{n}"), "v"))
            .map(|()| String::new())?,
        ["reads", number] => {
            let keys: Vec<String> = (0..number.parse::<u32>()?).map(|n| format!("k{n}")).collect();
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            bucket.get_many::<u32>(&keys)?.iter().flatten().count().to_string()
        }
        ["enqueue", queue, job_type, payload] => jobs::NewJob::new(queue, job_type)
            .payload_of("text/plain", *payload)
            .metadata_pair("from", "keep")
            .enqueue()?,
        ["once", queue, job_type, key] => jobs::NewJob::new(queue, job_type).idempotency_key(key).enqueue()?,
        ["later", queue, job_type, seconds] => {
            jobs::NewJob::new(queue, job_type).delay(Duration::from_secs(seconds.parse()?)).priority(3).enqueue()?
        }
        ["priority", queue, number] => jobs::NewJob::new(queue, "echo").priority(number.parse()?).enqueue()?,
        ["enqueues", queue, number] => {
            (0..number.parse::<u32>()?).try_for_each(|_| jobs::NewJob::new(queue, "echo").enqueue().map(drop))?;
            String::new()
        }
        ["call", url] => http::get(url)?.text(),
        ["cancelled"] => jobs::cancelled().to_string(),
        ["until-cancelled"] => {
            while !jobs::cancelled() {
                std::thread::sleep(Duration::from_millis(5));
            }
            String::new()
        }
        ["fail"] => return Err(JobError::failed("as told")),
        ["retry"] => return Err(JobError::retry("as told")),
        ["reject"] => return Err(JobError::reject("as told")),
        ["trap"] => panic!("as told"),
        ["loop"] => loop {
            std::hint::black_box(());
        },
        _ => return Err(JobError::reject(format!("what is `{line}`?"))),
    })
}

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    let payload = String::from_utf8(job.args.0)?;
    let mut bucket = state::own()?;
    let mut said = Vec::new();
    for each in payload.lines() {
        // What only one attempt is to do.
        let (only, each) = each.split_once("> ").unwrap_or(("", each));
        if only.is_empty() || only == job.attempt.to_string() {
            said.push(line(&mut bucket, each)?);
        }
    }
    Ok(Raw(said.join("\n").into_bytes()))
}
