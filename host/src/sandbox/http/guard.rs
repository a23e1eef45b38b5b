//! What may be reached: one look-up, every address checked, and only checked addresses handed on.
//!
//! Invariant: when one address of a host may not be reached, none is; a name that answers with a public and a private
//! address is a trick or a mistake.

use std::net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use wasmtime_wasi_http::Error;

use super::send::Task;
use crate::permissions::{Host, HttpPattern, KeepOut, Target};

/// Addresses of one host that are tried.
const ADDRESSES_MAX: usize = 8;

/// Why a place is not reached.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It may not be; a sentence that says why and what to do.
    Denied(String),
    /// Its name has no address.
    NotFound,
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Denied(_) => Self::HttpRequestDenied,
            Refusal::NotFound => Self::DnsError { rcode: Some("the name has no address".to_owned()), info_code: None },
        }
    }
}

/// The addresses of a place, in the order in which they are to be tried. `allow` are the patterns of the node.
pub(super) async fn addresses<'a>(
    target: &Target,
    allow: impl Iterator<Item = &'a HttpPattern> + Clone,
    keep_out: &[KeepOut],
) -> Result<Vec<SocketAddr>, Refusal> {
    let found = match &target.host {
        Host::Address(address) => vec![*address],
        Host::Name(name) => look_up(name.clone()).await,
    };
    if found.is_empty() {
        return Err(Refusal::NotFound);
    }
    check(target, &found, allow).map_err(Refusal::Denied)?;
    for place in keep_out {
        if place.port.is_none_or(|port| port == target.port) && is_same(place, target, &found).await {
            return Err(Refusal::Denied(format!("it is {}, which no jumpscript reaches", place.what)));
        }
    }
    Ok(found.into_iter().take(ADDRESSES_MAX).map(|address| SocketAddr::new(address, target.port)).collect())
}

/// Checks every address against the patterns that match the place.
fn check<'a>(
    target: &Target,
    found: &[IpAddr],
    allow: impl Iterator<Item = &'a HttpPattern> + Clone,
) -> Result<(), String> {
    let matching = || allow.clone().filter(|pattern| pattern.matches(target));
    let closed = found.iter().find(|address| !matching().any(|pattern| pattern.opens(**address)));
    let Some(address) = closed else { return Ok(()) };
    let itself = Target { host: Host::Address(*address), port: target.port };
    Err(match &target.host {
        Host::Address(_) => format!("{address} is not public; start the host with `--allow-http {itself}`"),
        Host::Name(name) => format!(
            "{name} has the address {address}, which is not public; allow the very address and use it: \
             `--allow-http {itself}`, or, in a private network, the whole name: `--allow-http {target}`"
        ),
    })
}

/// Whether a place is one that nothing may reach: the same address, or another address of the same machine when that
/// machine is this one.
async fn is_same(place: &KeepOut, target: &Target, found: &[IpAddr]) -> bool {
    let own = match place.host.parse::<IpAddr>() {
        Ok(address) => vec![address.to_canonical()],
        Err(_) => look_up(place.host.clone()).await,
    };
    // Its name has no address at the moment: better a request too few.
    own.is_empty()
        || matches!(&target.host, Host::Name(name) if *name == place.host.to_ascii_lowercase())
        || found.iter().any(|address| own.contains(address))
        || (own.iter().any(is_this_machine) && found.iter().any(is_this_machine))
}

fn is_this_machine(address: &IpAddr) -> bool {
    // Only an address of this machine can be bound.
    address.is_loopback() || UdpSocket::bind((*address, 0)).is_ok()
}

/// The addresses of a name, each once; none when there are none, for whatever reason.
async fn look_up(name: String) -> Vec<IpAddr> {
    let looked_up = Task(tokio::task::spawn_blocking(move || (name.as_str(), 0).to_socket_addrs()));
    let mut found = Vec::new();
    if let Ok(Ok(addresses)) = looked_up.await {
        for address in addresses {
            let address = address.ip().to_canonical();
            if !found.contains(&address) {
                found.push(address);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(texts: &[&str]) -> Vec<HttpPattern> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn keep_out(host: &str, port: Option<u16>) -> KeepOut {
        KeepOut { what: "the node's own Redis", host: host.to_owned(), port }
    }

    async fn reached(place: &str, allow: &[&str], keep: &[KeepOut]) -> Result<Vec<SocketAddr>, String> {
        let target = Target::parse(place, 80).unwrap();
        addresses(&target, patterns(allow).iter(), keep).await.map_err(|refusal| match refusal {
            Refusal::Denied(why) => why,
            Refusal::NotFound => "not found".to_owned(),
        })
    }

    #[test]
    fn one_closed_address_closes_the_name() {
        let target = Target::parse("api.example.com:80", 80).unwrap();
        let check = |found: &[&str], allow: &[&str]| {
            let found: Vec<IpAddr> = found.iter().map(|text| text.parse().unwrap()).collect();
            super::check(&target, &found, patterns(allow).iter())
        };
        assert_eq!(check(&["8.8.8.8", "2606:4700::1"], &["api.example.com:80"]), Ok(()));
        assert!(check(&["8.8.8.8", "127.0.0.1"], &["api.example.com:80"]).unwrap_err().contains("127.0.0.1"));
        assert!(check(&["8.8.8.8", "::1"], &["*.example.com:80", "[::1]:80"]).is_err(), "names match names only");
        assert!(check(&["10.1.2.3"], &["*.example.com:80"]).is_err());
        assert_eq!(check(&["10.1.2.3"], &["*.example.com:80", "api.example.com:80"]), Ok(()));
        assert!(check(&["169.254.169.254"], &["api.example.com:80", "169.254.169.254:80"]).is_err());
    }

    #[tokio::test]
    async fn the_nodes_own_redis_is_closed_on_every_address_of_this_machine() {
        let keep = [keep_out("127.0.0.1", Some(6379))];
        for place in ["127.0.0.1:6379", "127.0.0.9:6379", "[::1]:6379"] {
            let why = reached(place, &[place], &keep).await.unwrap_err();
            assert!(why.contains("the node's own Redis"), "{why}");
        }
        assert!(reached("localhost:6379", &["localhost:6379"], &keep).await.is_err());
        assert!(reached("127.0.0.1:6380", &["127.0.0.1:*"], &keep).await.is_ok());
        assert!(reached("127.0.0.1:1", &["127.0.0.1:*"], &[keep_out("localhost", None)]).await.is_err());
        let elsewhere = [keep_out("10.9.8.7", Some(6379))];
        assert!(reached("10.9.8.7:6379", &["10.9.8.7:6379"], &elsewhere).await.is_err());
        assert!(reached("10.9.8.6:6379", &["10.9.8.6:6379"], &elsewhere).await.is_ok());
    }

    #[tokio::test]
    async fn loopback_is_reached_by_its_address_or_as_localhost_only() {
        assert!(reached("127.0.0.1:80", &["*:*"], &[]).await.unwrap_err().contains("--allow-http 127.0.0.1:80"));
        assert!(reached("localhost:80", &["*:*"], &[]).await.unwrap_err().contains("not public"));
        let found = reached("localhost:80", &["localhost:80"], &[]).await.unwrap();
        assert!(!found.is_empty() && found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
        assert_eq!(reached("no-such-name.invalid:80", &["*:*"], &[]).await, Err("not found".to_owned()));
    }
}
