//! What a jumpscript requests, beside who allows it.

use crate::job::visible;
use crate::permissions::Permissions;

/// A request, and what could allow it.
pub(super) struct Need<'a> {
    /// What the manifest requests.
    pub(super) request: &'a Permissions,
    /// What the configuration that this command reads allows.
    pub(super) ceiling: &'a Permissions,
    /// What was granted to the very code.
    pub(super) granted: &'a Permissions,
}

/// One line for each permission that is requested, and a head; nothing when there is none. HTTP is left out: it is
/// judged at each request.
pub(super) fn need_lines(need: &Need<'_>) -> Vec<String> {
    let requested: Vec<_> = need.request.entries().into_iter().filter(|(key, _)| *key != "http").collect();
    if requested.is_empty() {
        return Vec::new();
    }
    let (not_by_ceiling, not_by_grant) = (need.request.missing(need.ceiling), need.request.missing(need.granted));
    let is_in = |of: &Permissions, entry: &(&'static str, String)| of.entries().contains(entry);
    let line = |entry: (&'static str, String)| {
        let who = if !is_in(&not_by_grant, &entry) {
            "granted"
        } else if !is_in(&not_by_ceiling, &entry) {
            "allowed by the configuration"
        } else {
            "NOT GRANTED"
        };
        format!("  {:<9} {}  ({who})", entry.0, visible(&entry.1))
    };
    std::iter::once("requests".to_owned()).chain(requested.into_iter().map(line)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_says_who_allows_it() {
        let table = |text: &str| toml::from_str::<Permissions>(text).unwrap();
        let request = table("http = ['a.b:1']\nstate = ['orders', 'cache']\nenv = ['HOME']");
        let (ceiling, granted) = (table("env = ['*']"), table("state = ['orders']"));
        let lines = need_lines(&Need { request: &request, ceiling: &ceiling, granted: &granted });
        assert_eq!(
            lines[1..],
            [
                "  state     orders  (granted)",
                "  state     cache  (NOT GRANTED)",
                "  env       HOME  (allowed by the configuration)",
            ]
        );
    }
}
