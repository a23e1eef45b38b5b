//! The table of keys as a page, and which row a key belongs to.

use super::{Row, TABLE};

/// Whether a key found in Redis is in [`TABLE`] for these prefixes; the row if it is.
#[must_use]
pub fn find(prefix: &str, node_prefix: &str, key: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| {
        if row.key.starts_with("{prefix}") {
            let pattern = row.key.replacen("{prefix}", prefix, 1);
            matches(&pattern, key)
        } else if node_prefix.is_empty() {
            row.key == key
        } else {
            key.strip_prefix(node_prefix).and_then(|rest| rest.strip_prefix(':')) == Some(row.key)
        }
    })
}

/// Whether `key` fits a pattern whose `{..}` parts stand for any text (the last one also for colons).
fn matches(pattern: &str, key: &str) -> bool {
    let Some((fixed, rest)) = pattern.split_once('{') else { return pattern == key };
    let Some(key) = key.strip_prefix(fixed) else { return false };
    let Some((_, after)) = rest.split_once('}') else { return false };
    if after.is_empty() {
        return !key.is_empty();
    }
    key.match_indices(':').any(|(at, _)| at > 0 && matches(after, &key[at..]))
}

/// The text of `docs/keys.md`.
#[must_use]
pub fn document() -> String {
    let mut text = String::from(
        "# Keys in Redis\n\nGenerated from `host/src/store/keys.rs`; a test compares them. `{prefix}` is `--prefix` (`wasmhost`). The keys without it \
         are read by other programs; `--node-prefix` sets a word and a colon before them. On a Redis Cluster both prefixes need the same hash tag.\n\n\
         | key | type | content | written by | lives |\n| --- | --- | --- | --- | --- |\n",
    );
    for row in TABLE {
        let cells = [
            format!("`{}`", row.key),
            row.kind.to_owned(),
            row.content.to_owned(),
            row.writer.to_owned(),
            row.bound.to_owned(),
        ];
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/keys.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, document()).unwrap();
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == document(), "docs/keys.md is not up to date; run with UPDATE_DOCS=1");
    }

    #[test]
    fn a_key_outside_the_table_is_found_out() {
        assert!(find("w", "", "w:job:a:b").is_some());
        assert!(find("w", "", "w:queue:mail:ready").is_some());
        assert!(find("w", "", "w:queue:mail:other").is_none());
        assert!(find("w", "", "w2:job:a").is_none());
        assert!(find("w", "n", "n:workers:watchdog").is_some());
        assert!(find("w", "n", "workers:watchdog").is_none());
    }
}
