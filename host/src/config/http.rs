//! The settings of the HTTP server: where it listens, who may ask.
//!
//! Invariant: without a token it listens on loopback only; whoever reaches the job API can run code.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::error::{Error, Origin};
use super::keys;
use super::merge::Merge;
use super::value::Secret;

/// Shortest token in bytes: shorter ones can be guessed.
pub const TOKEN_BYTES_MIN: usize = 16;
/// Longest token in bytes.
pub const TOKEN_BYTES_MAX: usize = 512;
/// Paths that may be open to everybody.
pub const HTTP_OPENABLE: [&str; 4] = ["/healthz", "/readyz", "/metrics", "/v1/openapi.json"];
/// Those that are unless something else is said: probes bring no token.
const OPEN: [&str; 2] = ["/healthz", "/readyz"];

/// What is served over HTTP, and to whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Http {
    /// Where it is served; nothing is when this is `None`.
    pub listen: Option<SocketAddr>,
    /// What requests must bring; nothing on loopback when this is `None`.
    pub token: Option<Secret>,
    /// Paths that need no token.
    pub open: Vec<String>,
}

impl Merge<'_> {
    pub(super) fn http(&mut self) -> Result<Http, Error> {
        let token = self.http_token()?;
        let open = self.take(
            "http.open",
            |g| g.http_open.clone(),
            || OPEN.map(str::to_owned).to_vec(),
            |paths| check_open(paths),
        )?;
        let listen = match self.find("http.listen", |g| g.http_listen.clone()) {
            Some((text, origin)) => {
                let bad = |rule: String| Error::bad(keys::spec("http.listen"), &origin, &text, rule);
                let address = parse_listen(&text).map_err(bad)?;
                if token.is_none() && !address.ip().to_canonical().is_loopback() {
                    return Err(bad("which others can reach, and there is no token".to_owned()).with_hint(
                        "put a token into a file (openssl rand -hex 24) and name it with --http-token-file, or listen on 127.0.0.1",
                    ));
                }
                self.note("http.listen", address.to_string(), origin);
                Some(address)
            }
            None => {
                self.note("http.listen", String::new(), Origin::Default);
                None
            }
        };
        Ok(Http { listen, token, open })
    }

    fn http_token(&mut self) -> Result<Option<Secret>, Error> {
        const KEYS: (&str, &str) = ("http.token", "http.token_file");
        for (given, from) in self.by_rank() {
            if let Some(found) = self.secret(KEYS, &from, given.http_token, given.http_token_file)? {
                let key = if found.file.is_some() { KEYS.1 } else { KEYS.0 };
                let shown = found.file.as_ref().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
                check_token(found.word.reveal())
                    .map_err(|rule| Error::bad(keys::spec(key), &found.origin, &shown, rule))?;
                self.note_secret(KEYS, true, found.file, found.origin);
                return Ok(Some(found.word));
            }
        }
        self.note_secret(KEYS, false, None, Origin::Default);
        Ok(None)
    }
}

fn parse_listen(text: &str) -> Result<SocketAddr, String> {
    let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
    if let Some(port) = local {
        return Ok(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port));
    }
    text.parse().map_err(|_| "must be ADDRESS:PORT, such as 127.0.0.1:8080, 0.0.0.0:8080 or [::1]:8080".to_owned())
}

fn check_token(token: &str) -> Result<(), String> {
    if !(TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&token.len()) {
        return Err(format!("whose token has {} bytes, must have {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX}", token.len()));
    }
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("whose token has characters other than visible ASCII".to_owned());
    }
    Ok(())
}

fn check_open(paths: &[String]) -> Result<(), String> {
    match paths.iter().find(|path| !HTTP_OPENABLE.contains(&path.as_str())) {
        Some(_) => Err(format!("must be of {}", HTTP_OPENABLE.join(", "))),
        None => Ok(()),
    }
}
