//! The URL of Redis: what is accepted, and its password kept apart from what is shown.

use super::value::Secret;

/// The URL when nobody names one.
pub const REDIS_URL: &str = "redis://127.0.0.1:6379";

/// Port of a Redis, when a URL names none.
const REDIS_PORT: u16 = 6379;
/// Port of a Sentinel, when a URL names none.
const SENTINEL_PORT: u16 = 26379;

/// Who knows where the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisWay<'a> {
    /// The URL itself.
    Server,
    /// Sentinels, which know the master of this service.
    Sentinel(&'a str),
    /// Any node of a Cluster.
    Cluster,
}

/// The parts of a URL that names hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisParts<'a> {
    /// Who knows where the server is.
    pub way: RedisWay<'a>,
    /// Whether TLS is spoken, also with Sentinels and nodes.
    pub is_tls: bool,
    /// `user`, `user:password`, `:password` or nothing; percent-encoded as it stands.
    pub login: &'a str,
    /// Every host with its port, or with the usual one; addresses without brackets.
    pub hosts: Vec<(&'a str, u16)>,
    /// The database and what follows, without the slash; empty when it is not named.
    pub database: &'a str,
}

/// Takes a URL that names hosts apart.
///
/// # Errors
/// The end of a sentence that says what it must be; it repeats nothing of the URL.
pub fn redis_parts(url: &str) -> Result<RedisParts<'_>, String> {
    let form = || FORM.to_owned();
    let (scheme, rest) = url.trim().split_once("://").ok_or_else(form)?;
    let (family, way) = scheme.split_once('+').unwrap_or((scheme, ""));
    let is_tls = match family {
        "redis" => false,
        "rediss" => true,
        _ => return Err(form()),
    };
    if rest.contains('#') {
        return Err(
            "must not end in `#...`: TLS without its checks (`#insecure`) is no TLS; name the file of your own \
                    authority with `redis.ca_file`"
                .to_owned(),
        );
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (login, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
    let path = path.strip_prefix('/').unwrap_or(path);
    let (way, database) = match way {
        "" => (RedisWay::Server, path),
        "cluster" if matches!(path, "" | "0") => (RedisWay::Cluster, ""),
        "cluster" => return Err("must not name a database: a Cluster has only one".to_owned()),
        "sentinel" => {
            let (service, database) = path.split_once('/').unwrap_or((path, ""));
            if service.is_empty() || service.contains(['?', '%']) {
                return Err("must be redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or .../SERVICE/DB".to_owned());
            }
            (RedisWay::Sentinel(service), database)
        }
        _ => return Err(form()),
    };
    if way == RedisWay::Server && hosts.contains(',') {
        return Err("must name one host; several are redis+cluster://HOST:PORT,HOST:PORT or \
                    redis+sentinel://HOST:PORT,HOST:PORT/SERVICE"
            .to_owned());
    }
    let usual = if matches!(way, RedisWay::Sentinel(_)) { SENTINEL_PORT } else { REDIS_PORT };
    let hosts = hosts.split(',').map(|host| host_and_port(host, usual)).collect::<Option<_>>().ok_or_else(form)?;
    Ok(RedisParts { way, is_tls, login, hosts, database })
}

const FORM: &str = "must be a URL such as redis://HOST:PORT/DB, rediss://HOST:PORT, unix:///PATH, \
                    redis+sentinel://HOST:PORT,HOST:PORT/SERVICE or redis+cluster://HOST:PORT,HOST:PORT";

fn host_and_port(text: &str, usual: u16) -> Option<(&str, u16)> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok().filter(|port| *port > 0)?),
        _ => (text, usual),
    };
    let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    (!name.is_empty()).then_some((name, port))
}

/// Splits a URL into what may be shown and the password.
///
/// # Errors
/// The end of a sentence that says what it must be; it never repeats the password.
pub(super) fn split(text: &str) -> Result<(String, Option<Secret>), String> {
    let text = text.trim();
    let (scheme, rest) = text.split_once("://").ok_or(FORM)?;
    if rest.is_empty() || rest.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return Err(FORM.to_owned());
    }
    if matches!(scheme, "unix" | "redis+unix") {
        return Ok(split_socket(scheme, rest));
    }
    let login = redis_parts(text)?.login;
    let (user, password) = login.split_once(':').map_or((login, None), |(user, word)| (user, Some(word)));
    let password = password.filter(|word| !word.is_empty()).map(|word| Secret::new(percent_decoded(word)));
    let hosts = rest.rsplit_once('@').map_or(rest, |(_, hosts)| hosts);
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    Ok((format!("{scheme}://{user}{hosts}"), password))
}

/// A socket's URL carries its password as `?pass=`.
fn split_socket(scheme: &str, rest: &str) -> (String, Option<Secret>) {
    let Some((path, query)) = rest.split_once('?') else { return (format!("{scheme}://{rest}"), None) };
    let (secret, open): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| pair.starts_with("pass="));
    let password = secret.first().and_then(|pair| pair.strip_prefix("pass=")).filter(|word| !word.is_empty());
    let query = if open.is_empty() { String::new() } else { format!("?{}", open.join("&")) };
    (format!("{scheme}://{path}{query}"), password.map(|word| Secret::new(percent_decoded(word))))
}

/// Every host (an address without brackets) and port that a Redis URL names; none for a socket.
#[must_use]
pub fn hosts_and_ports(url: &str) -> Vec<(String, u16)> {
    let parts = redis_parts(url).ok();
    let hosts = parts.iter().flat_map(|parts| &parts.hosts);
    hosts.map(|(host, port)| ((*host).to_owned(), *port)).collect()
}

/// A URL as text for a message, whatever is wrong with it: everything that could be a password is `***`.
pub(super) fn redacted(text: &str) -> String {
    if let Ok((shown, password)) = split(text) {
        return if password.is_some() { format!("{shown} (password ***)") } else { shown };
    }
    match text.rsplit_once('@') {
        Some((before, after)) => {
            let scheme = before.split_once("://").map_or(String::new(), |(scheme, _)| format!("{scheme}://"));
            format!("{scheme}***@{after}")
        }
        None => text.to_owned(),
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = (bytes[at] == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        if let Some(byte) = code.and_then(|code| u8::from_str_radix(code, 16).ok()) {
            out.push(byte);
            at += 3;
        } else {
            out.push(bytes[at]);
            at += 1;
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The URL that `REDIS_ADDR` stands for: `host:port`, or a URL as it is.
pub(super) fn from_address(address: &str) -> String {
    let address = address.trim();
    if address.contains("://") { address.to_owned() } else { format!("redis://{address}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts_of(url: &str) -> (String, Option<String>) {
        let (shown, password) = split(url).unwrap();
        (shown, password.map(|p| p.reveal().to_owned()))
    }

    #[test]
    fn the_password_is_taken_out_of_the_url() {
        assert_eq!(parts_of("redis://h:1/2"), ("redis://h:1/2".to_owned(), None));
        assert_eq!(parts_of("redis://:p%40s@h:1"), ("redis://h:1".to_owned(), Some("p@s".to_owned())));
        assert_eq!(parts_of("rediss://u:pw@[::1]:6"), ("rediss://u@[::1]:6".to_owned(), Some("pw".to_owned())));
        assert_eq!(parts_of("redis://u@h"), ("redis://u@h".to_owned(), None));
        assert_eq!(
            parts_of("unix:///run/r.sock?db=1&pass=x%20y"),
            ("unix:///run/r.sock?db=1".to_owned(), Some("x y".to_owned()))
        );
    }

    #[test]
    fn what_is_no_redis_url_is_refused_without_its_password() {
        for bad in ["", "localhost:6379", "http://h", "redis://", "redis://h:99999", "redis://:6379", "redis://a b"] {
            assert!(split(bad).unwrap_err().contains("redis://HOST:PORT"), "{bad}");
        }
        assert_eq!(redacted("http://u:secret@h"), "http://***@h");
        assert_eq!(redacted("redis://u:secret@h"), "redis://u@h (password ***)");
        assert!(!redacted("u:secret@h").contains("secret"));
    }

    #[test]
    fn a_url_has_hosts_and_ports() {
        let of = |url| hosts_and_ports(url).iter().map(|(host, port)| format!("{host} {port}")).collect::<Vec<_>>();
        assert_eq!(of("redis://h:1/2"), ["h 1"]);
        assert_eq!(of("rediss://u@[::1]:6"), ["::1 6"]);
        assert_eq!(of("redis://[::1]"), ["::1 6379"]);
        assert_eq!(of("redis://10.0.0.7?x"), ["10.0.0.7 6379"]);
        assert_eq!(of("redis+sentinel://a,b:7/main"), ["a 26379", "b 7"]);
        assert_eq!(of("redis+cluster://a,[::2]:7"), ["a 6379", "::2 7"]);
        assert!(of("unix:///run/r.sock").is_empty());
    }

    #[test]
    fn a_url_of_sentinels_has_a_service_and_a_database() {
        let parts = redis_parts("rediss+sentinel://me:pw@a:1,b:2/main/3").unwrap();
        assert_eq!(parts.way, RedisWay::Sentinel("main"));
        assert_eq!((parts.is_tls, parts.login, parts.database), (true, "me:pw", "3"));
        let shown = "rediss+sentinel://me@a:1,b:2/main/3".to_owned();
        assert_eq!(parts_of("rediss+sentinel://me:pw@a:1,b:2/main/3"), (shown, Some("pw".to_owned())));
        for (bad, why) in [
            ("redis+sentinel://a:1", "SERVICE"),
            ("redis+cluster://a:1/3", "database"),
            ("redis://a:1,b:2", "redis+cluster"),
            ("rediss://a:1/#insecure", "redis.ca_file"),
            ("redis+other://a", "redis+sentinel"),
            ("redis+cluster://a:1,", "redis+cluster"),
        ] {
            assert!(split(bad).unwrap_err().contains(why), "{bad}");
        }
    }

    #[test]
    fn an_address_without_scheme_is_a_redis_url() {
        assert_eq!(from_address("10.0.0.7:6379"), "redis://10.0.0.7:6379");
        assert_eq!(from_address("redis://x:1"), "redis://x:1");
    }
}
