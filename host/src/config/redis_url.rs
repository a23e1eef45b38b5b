//! The URL of Redis: what is accepted, and its password kept apart from what is shown.

use super::value::Secret;

/// The URL when nobody names one.
pub const REDIS_URL: &str = "redis://127.0.0.1:6379";

/// Splits a URL into what may be shown and the password.
///
/// # Errors
/// The end of a sentence that says what it must be; it never repeats the password.
pub(super) fn split(text: &str) -> Result<(String, Option<Secret>), String> {
    let form = "must be a URL such as redis://HOST:PORT/DB, rediss://HOST:PORT or unix:///PATH";
    let (scheme, rest) = text.trim().split_once("://").ok_or(form)?;
    let rest_has_hidden = rest.chars().any(|c| c.is_control() || c.is_whitespace());
    if rest.is_empty() || rest_has_hidden {
        return Err(form.to_owned());
    }
    match scheme {
        "redis" | "rediss" => split_network(scheme, rest).ok_or_else(|| form.to_owned()),
        "unix" | "redis+unix" => Ok(split_socket(scheme, rest)),
        _ => Err(form.to_owned()),
    }
}

fn split_network(scheme: &str, rest: &str) -> Option<(String, Option<Secret>)> {
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (user_info, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if host.is_empty() || host.starts_with(':') {
        return None;
    }
    if let Some((name, port)) = host.rsplit_once(':')
        && !name.ends_with(':')
        && !port.contains(']')
    {
        port.parse::<u16>().ok().filter(|port| *port > 0)?;
    }
    let (user, password) = user_info.split_once(':').map_or((user_info, None), |(user, word)| (user, Some(word)));
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    let password = password.filter(|word| !word.is_empty()).map(|word| Secret::new(percent_decoded(word)));
    Some((format!("{scheme}://{user}{host}{path}"), password))
}

/// A socket's URL carries its password as `?pass=`.
fn split_socket(scheme: &str, rest: &str) -> (String, Option<Secret>) {
    let Some((path, query)) = rest.split_once('?') else { return (format!("{scheme}://{rest}"), None) };
    let (secret, open): (Vec<&str>, Vec<&str>) = query.split('&').partition(|pair| pair.starts_with("pass="));
    let password = secret.first().and_then(|pair| pair.strip_prefix("pass=")).filter(|word| !word.is_empty());
    let query = if open.is_empty() { String::new() } else { format!("?{}", open.join("&")) };
    (format!("{scheme}://{path}{query}"), password.map(|word| Secret::new(percent_decoded(word))))
}

/// The host (an address without brackets) and the port of a Redis URL; `None` for a socket.
#[must_use]
pub fn host_and_port(url: &str) -> Option<(String, u16)> {
    let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://"))?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => (name, port.parse().ok()?),
        _ => (host, 6379),
    };
    Some((name.trim_start_matches('[').trim_end_matches(']').to_owned(), port))
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

    fn parts(url: &str) -> (String, Option<String>) {
        let (shown, password) = split(url).unwrap();
        (shown, password.map(|p| p.reveal().to_owned()))
    }

    #[test]
    fn the_password_is_taken_out_of_the_url() {
        assert_eq!(parts("redis://h:1/2"), ("redis://h:1/2".to_owned(), None));
        assert_eq!(parts("redis://:p%40s@h:1"), ("redis://h:1".to_owned(), Some("p@s".to_owned())));
        assert_eq!(parts("rediss://u:pw@[::1]:6"), ("rediss://u@[::1]:6".to_owned(), Some("pw".to_owned())));
        assert_eq!(parts("redis://u@h"), ("redis://u@h".to_owned(), None));
        assert_eq!(
            parts("unix:///run/r.sock?db=1&pass=x%20y"),
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
    fn a_url_has_a_host_and_a_port() {
        let of = |url| host_and_port(url).map(|(host, port)| format!("{host} {port}"));
        assert_eq!(of("redis://h:1/2").unwrap(), "h 1");
        assert_eq!(of("rediss://u@[::1]:6").unwrap(), "::1 6");
        assert_eq!(of("redis://[::1]").unwrap(), "::1 6379");
        assert_eq!(of("redis://10.0.0.7?x").unwrap(), "10.0.0.7 6379");
        assert_eq!(of("unix:///run/r.sock"), None);
    }

    #[test]
    fn an_address_without_scheme_is_a_redis_url() {
        assert_eq!(from_address("10.0.0.7:6379"), "redis://10.0.0.7:6379");
        assert_eq!(from_address("redis://x:1"), "redis://x:1");
    }
}
