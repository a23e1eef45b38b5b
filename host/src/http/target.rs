//! Paths and queries, decoded once.
//!
//! Invariant: a path is cut at its slashes before anything is decoded, so an encoded slash is a byte of an id and never
//! a step; nothing is decoded twice.

use super::answer::{BAD_REQUEST, Problem, TOKEN_IN_QUERY};
use crate::job::visible;

/// The parameters of a query, each once, decoded.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Query(Vec<(String, String)>);

/// Names under which people put tokens into addresses.
const TOKEN_NAMES: [&str; 6] = ["token", "access_token", "api_key", "apikey", "auth", "authorization"];

impl Query {
    /// Reads a query; only the `known` parameters are accepted.
    pub(super) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for part in text.unwrap_or_default().split('&').filter(|part| !part.is_empty()) {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            let name = decoded_text(name)?;
            if !known.contains(&name.as_str()) {
                return Err(unknown(&name, known));
            }
            if pairs.iter().any(|(given, _)| *given == name) {
                return Err(Problem::new(BAD_REQUEST, format!("the parameter `{name}` is given twice")));
            }
            let value = decoded_text(value)?;
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter; one without any text counts as not given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(given, _)| given == name)
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// The value of a parameter, read; a mistake names the parameter.
    pub(super) fn read<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Problem> {
        let bad = |reason: String| Problem::new(BAD_REQUEST, format!("the parameter `{name}`: {reason}"));
        self.get(name).map(read).transpose().map_err(bad)
    }
}

/// Refuses a query that carries a token: addresses end up in logs and histories.
pub(super) fn refuse_tokens(query: Option<&str>) -> Result<(), Problem> {
    let names = query.unwrap_or_default().split('&').filter_map(|part| part.split('=').next());
    let is_token = |name: &str| {
        let name = decoded(name).unwrap_or_default().to_ascii_lowercase();
        TOKEN_NAMES.iter().any(|known| known.as_bytes() == name)
    };
    if names.into_iter().any(is_token) {
        return Err(Problem::new(
            TOKEN_IN_QUERY,
            "a token in an address ends up in logs and histories; it was not looked at",
        )
        .hint("send the header `Authorization: Bearer TOKEN`"));
    }
    Ok(())
}

fn unknown(name: &str, known: &[&str]) -> Problem {
    let shown = visible(&name.chars().take(60).collect::<String>());
    let problem = Problem::new(BAD_REQUEST, format!("the parameter `{shown}` is not known here"));
    let nearest = known.iter().min_by_key(|known| strsim::damerau_levenshtein(known, name));
    match nearest {
        Some(nearest) if strsim::damerau_levenshtein(nearest, name) <= 2 => {
            problem.hint(format!("did you mean `{nearest}`?"))
        }
        Some(_) => problem.hint(format!("known are {}", known.join(", "))),
        None => problem.hint("this path takes no parameters"),
    }
}

fn decoded_text(text: &str) -> Result<String, Problem> {
    let bytes = decoded(&text.replace('+', " "))?;
    String::from_utf8(bytes).map_err(|_| Problem::new(BAD_REQUEST, "a parameter is not UTF-8"))
}

/// The bytes of a piece of a path or query.
pub(super) fn decoded(text: &str) -> Result<Vec<u8>, Problem> {
    let bad = || Problem::new(BAD_REQUEST, "a `%` in the address is not followed by two hexadecimal digits");
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = after else { return Err(bad()) };
        let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or_else(bad);
        bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).unwrap_or_default());
        rest = after;
    }
    Ok(bytes)
}

/// Bytes as a piece of a path.
pub(super) fn encoded(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(byte) {
            out.push(char::from(*byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encoded_is_decoded_once_and_byte_for_byte() {
        assert_eq!(decoded("a%2Fb%3a%0a%00").unwrap(), b"a/b:\n\0");
        assert_eq!(decoded("%252F").unwrap(), b"%2F");
        assert!(["%", "%1", "%zz", "%+1"].iter().all(|wrong| decoded(wrong).is_err()));
        let bytes: Vec<u8> = (0..=255).collect();
        assert_eq!(decoded(&encoded(&bytes)).unwrap(), bytes);
    }

    #[test]
    fn an_unknown_parameter_and_one_given_twice_are_refused() {
        let known = ["queue", "state"];
        let query = Query::parse(Some("queue=a+b%26&state="), &known).unwrap();
        assert_eq!((query.get("queue"), query.get("state")), (Some("a b&"), None));
        for wrong in ["quue=1", "queue=1&queue=2", "queue=%", "queue=%ff"] {
            assert!(Query::parse(Some(wrong), &known).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_in_a_query_is_refused_however_it_is_spelt() {
        for query in ["token=x", "a=b&Access_Token=x", "%74oken=x", "token"] {
            assert!(refuse_tokens(Some(query)).is_err(), "{query}");
        }
        assert!(refuse_tokens(Some("queue=token&cursor=token")).is_ok());
    }
}
