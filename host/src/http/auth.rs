//! Who may ask: the token, the rate of wrong ones, and where a browser's request comes from.
//!
//! Invariant: tokens are compared as digests under a key of this process, so the time says nothing about them; neither
//! a token nor a part of one is ever written anywhere.
//! Invariant: without a token only requests that name this machine as their host are answered; a site whose name is
//! made to lead here (DNS rebinding) is not.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use hmac::{Hmac, KeyInit as _, Mac as _};
use hyper::header::{AUTHORIZATION, HOST, HeaderMap, ORIGIN};
use sha2::Sha256;

use super::WRONG_TOKENS_MAX;
use super::answer::{CROSS_ORIGIN, Problem, UNAUTHORIZED, WRONG_HOST, WRONG_TOKENS};
use crate::config::Secret;
use crate::metrics::Counter;

/// Peers whose wrong tokens are remembered.
const PEERS_MAX: usize = 4096;

/// What a request may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everything.
    Full,
    /// An open path, by somebody unknown.
    Open,
}

/// The doorkeeper.
pub(super) struct Gate {
    key: [u8; 32],
    token: Option<[u8; 32]>,
    open: Vec<String>,
    tries: Mutex<HashMap<IpAddr, Tries>>,
    /// Requests without the right token.
    pub(super) n_refused: Counter,
}

/// Wrong tokens of one peer: how many more it may send now, and when that was so.
#[derive(Clone, Copy, Debug)]
struct Tries {
    left: f64,
    at: Instant,
}

impl Gate {
    /// A gate that wants `token`, but not for the paths of `open`.
    #[must_use]
    pub(super) fn new(token: Option<&Secret>, open: Vec<String>) -> Self {
        let mut key = [0; 32];
        // Without an entropy source nothing in this process is safe; leases and ids need one as well.
        getrandom::fill(&mut key).expect("the system has a source of random bytes");
        let mut gate = Self { key, token: None, open, tries: Mutex::default(), n_refused: Counter::default() };
        gate.token = token.map(|token| gate.digest(token.reveal().as_bytes()));
        gate
    }

    /// Lets a request in, or says why not.
    pub(super) fn check(&self, peer: IpAddr, headers: &HeaderMap, path: &str) -> Result<Access, Problem> {
        self.check_origin(headers)?;
        let Some(expected) = self.token else { return Ok(Access::Full) };
        let is_open = self.open.iter().any(|open| open == path);
        let mut given = headers.get_all(AUTHORIZATION).iter();
        let token = match (given.next(), given.next()) {
            (None, _) if is_open => return Ok(Access::Open),
            (None, _) => None,
            (Some(value), None) => bearer(value.as_bytes()),
            (Some(_), Some(_)) => None,
        };
        let Some(token) = token else {
            self.n_refused.increment();
            return Err(unauthorized("this path needs a token"));
        };
        if self.digest(token) == expected {
            return Ok(Access::Full);
        }
        self.n_refused.increment();
        // The right token is let in however many wrong ones its peer has sent: behind a proxy all peers are one, and a
        // stranger's tries must not lock out its neighbours.
        if self.may_try(peer, Instant::now()) {
            Err(unauthorized("the token is wrong"))
        } else {
            Err(Problem::new(WRONG_TOKENS, "this peer has sent many wrong tokens")
                .hint("wait a second, look at the token"))
        }
    }

    /// The digest of a token. Comparing digests under a random key takes the same time wherever they differ.
    fn digest(&self, token: &[u8]) -> [u8; 32] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.key).expect("HMAC takes a key of any length");
        mac.update(token);
        mac.finalize().into_bytes().into()
    }

    fn may_try(&self, peer: IpAddr, now: Instant) -> bool {
        let mut tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        if tries.len() >= PEERS_MAX && !tries.contains_key(&peer) {
            tries.retain(|_, tries| tries.at.elapsed().as_secs() < u64::from(WRONG_TOKENS_MAX));
            if tries.len() >= PEERS_MAX {
                return false;
            }
        }
        let most = f64::from(WRONG_TOKENS_MAX);
        let tries = tries.entry(peer).or_insert(Tries { left: most, at: now });
        tries.left = (tries.left + now.duration_since(tries.at).as_secs_f64()).min(most);
        tries.at = now;
        let may = tries.left >= 1.0;
        if may {
            tries.left -= 1.0;
        }
        may
    }

    /// A browser says where a request comes from; other programs say nothing.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let text = |name| headers.get(name).map(|value: &hyper::header::HeaderValue| value.to_str().unwrap_or("?"));
        let host = text(HOST);
        if self.token.is_none() && host.is_some_and(|host| !is_this_machine(host)) {
            return Err(Problem::new(WRONG_HOST, "without a token this server answers requests for this machine only")
                .hint("ask 127.0.0.1 or localhost, or give the server a token (http.token_file)"));
        }
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        let is_other_site = site.is_some_and(|site| !matches!(site, b"same-origin" | b"none"));
        let is_other_origin = text(ORIGIN).is_some_and(|origin| {
            let authority = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
            !matches!((authority, host), (Some(authority), Some(host)) if authority.eq_ignore_ascii_case(host))
        });
        if is_other_site || is_other_origin {
            return Err(Problem::new(CROSS_ORIGIN, "a page of another site cannot ask this server")
                .hint("send it from a program, or through a server of that site"));
        }
        Ok(())
    }
}

fn unauthorized(detail: &str) -> Problem {
    Problem::new(UNAUTHORIZED, detail).hint("send the header `Authorization: Bearer TOKEN`")
}

/// The token of `Bearer TOKEN`.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

/// Whether a `Host` names this machine by itself: a loopback address, or `localhost`.
fn is_this_machine(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => return rest == "::1]" || rest.starts_with("::1]:"),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<Ipv4Addr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| ((*name).parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn status(gate: &Gate, pairs: &[(&'static str, &str)]) -> u16 {
        gate.check(PEER, &headers(pairs), "/v1/jobs").map_or_else(|problem| problem.status(), |_| 200)
    }

    #[test]
    fn only_the_whole_token_in_its_own_header_opens() {
        let gate = Gate::new(Some(&Secret::new("0123456789abcdef")), vec!["/healthz".to_owned()]);
        let with = |value: &str| status(&gate, &[("authorization", value)]);
        assert_eq!((with("Bearer 0123456789abcdef"), with("bearer 0123456789abcdef")), (200, 200));
        let wrong = ["Bearer", "Bearer ", "Basic 0123456789abcdef", "0123456789abcdef", "Bearer  0123456789abcdef"];
        for wrong in wrong.into_iter().chain(["Bearer 0123456789abcde", "Bearer 0123456789abcdef0"]) {
            assert_eq!(with(wrong), 401, "{wrong:?}");
        }
        assert_eq!(status(&gate, &[]), 401);
        let twice = [("authorization", "Bearer 0123456789abcdef"), ("authorization", "Bearer x")];
        let mut both = HeaderMap::new();
        for (name, value) in twice {
            both.append(name, value.parse().unwrap());
        }
        assert_eq!(gate.check(PEER, &both, "/v1/jobs").unwrap_err().status(), 401);
        assert_eq!(gate.check(PEER, &HeaderMap::new(), "/healthz").unwrap(), Access::Open);
    }

    #[test]
    fn wrong_tokens_are_slowed_down_and_the_right_one_is_not() {
        let gate = Gate::new(Some(&Secret::new("0123456789abcdef")), Vec::new());
        let statuses: Vec<u16> = (0..100).map(|_| status(&gate, &[("authorization", "Bearer wrong")])).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 401).count(), WRONG_TOKENS_MAX as usize);
        assert_eq!(statuses[99], 429);
        assert_eq!(status(&gate, &[("authorization", "Bearer 0123456789abcdef")]), 200);
    }

    #[test]
    fn another_site_is_refused_and_so_is_a_name_that_was_made_to_lead_here() {
        let gate = Gate::new(None, Vec::new());
        let here = ("host", "127.0.0.1:8080");
        assert_eq!(status(&gate, &[here]), 200);
        assert_eq!(status(&gate, &[here, ("origin", "http://127.0.0.1:8080")]), 200);
        for origin in ["http://evil.example", "null", "http://127.0.0.1:8081", "ftp://127.0.0.1:8080", ""] {
            assert_eq!(status(&gate, &[here, ("origin", origin)]), 403, "{origin}");
        }
        for site in ["cross-site", "same-site", "x"] {
            assert_eq!(status(&gate, &[here, ("sec-fetch-site", site)]), 403, "{site}");
        }
        for host in
            ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "[::2]:8080", "[::1].evil"]
        {
            assert_eq!(status(&gate, &[("host", host)]), 403, "{host}");
        }
        for host in ["localhost", "LOCALHOST:1", "[::1]:8080", "127.9.9.9"] {
            assert_eq!(status(&gate, &[("host", host)]), 200, "{host}");
        }
        let with_token = Gate::new(Some(&Secret::new("0123456789abcdef")), Vec::new());
        let bearer = ("authorization", "Bearer 0123456789abcdef");
        assert_eq!(status(&with_token, &[("host", "jobs.example"), bearer]), 200);
    }
}
