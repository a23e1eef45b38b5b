//! Sends HTTP requests as its payload says, and tells what came of them.
use wasmhost_guest::http::{self, Error, Request, Response};
use wasmhost_guest::{Job, JobError, Raw};

fn told(answer: Result<Response, Error>) -> String {
    match answer {
        Ok(answer) => {
            let location = answer.header("location").unwrap_or("-");
            let start: String = answer.text().chars().take(200).collect();
            format!("{} {location} {} {start}", answer.status, answer.body.len())
        }
        Err(error) => format!("error {}", error.reason()),
    }
}

#[wasmhost_guest::job]
fn run(job: Job<Raw>) -> Result<Raw, JobError> {
    let payload = String::from_utf8(job.args.0)?;
    let words: Vec<&str> = payload.split(' ').collect();
    let text = match words.as_slice() {
        ["get", url] => told(http::get(url)),
        ["post", url, bytes] => told(http::post(url, vec![b'x'; bytes.parse()?])),
        ["method", url, method] => told(Request::new(method, url).send()),
        ["header", url, name, value] => {
            let value = value.replace("CRLF", "\r\n").into_bytes();
            told(Request::new("GET", url).header(name, value).send())
        }
        ["headers", url, number] => {
            let one_more = |request: Request, n: usize| request.header(&format!("x-{n}"), "y");
            told((0..number.parse()?).fold(Request::new("GET", url), one_more).send())
        }
        ["path", url] => told(http::get(&url.replace("CRLF", "\r\nx: y\r\n").replace("SPACE", " "))),
        ["often", url, number] => {
            let answers = (0..number.parse::<usize>()?).map(|_| told(http::get(url)));
            let answers: Vec<String> = answers.collect();
            let good = answers.iter().filter(|answer| answer.starts_with("200")).count();
            format!("{good} {}", answers.last().map_or("", String::as_str))
        }
        _ => return Err(JobError::reject(format!("what is `{payload}`?"))),
    };
    Ok(Raw(text.into_bytes()))
}
