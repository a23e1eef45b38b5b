//! Going back to code that was live before.

use super::StorePublisher;
use super::signing::identity;
use crate::job::visible;
use crate::jumpscript::{Digest, ScriptName, parse_version};
use crate::ports::{Candidate, PublishError, PublishRule, Published};
use crate::store::{Act, How, Past};

/// What code a name is to go back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Back {
    /// What was live before.
    Before,
    /// Code with a digest that begins so, or with this version.
    To(String),
}

/// Shortest part of a digest that names it.
const DIGEST_PART_MIN: usize = 6;

impl StorePublisher {
    /// Makes code that was live before live again, on every node at once.
    ///
    /// # Errors
    /// [`PublishError::Refused`] when the history has no such code, or it cannot be published any more.
    pub async fn roll_back(&self, name: &ScriptName, back: &Back) -> Result<Published, PublishError> {
        let failed = |error: crate::store::Error| PublishError::of_store(&name.to_string(), &error);
        let history = self.store.history(name).await.map_err(failed)?;
        let live = self.store.script(name).await.map_err(failed)?.map(|live| live.digest);
        let digest = find(name, &history, live, back).map_err(PublishError::Refused)?;
        let wasm = self.store.wasm(&digest).await.map_err(failed)?.ok_or_else(|| {
            let short = digest.short();
            PublishError::Refused(format!(
                "the code {short} of jumpscript `{name}` is not in Redis any more\nhint: publish its file again"
            ))
        })?;
        let own_name = identity(&wasm, name.name()).map(|identity| identity.name);
        let file = format!("{} of {name}", digest.short());
        let candidate = Candidate { file, wasm, manifest: None, default_name: name.name().to_owned(), signature: None };
        if own_name.is_ok_and(|own| own != *name) {
            return Err(PublishError::Refused(format!(
                "the code {} does not call itself `{name}`: another program put it there\n\
                 hint: publish a file with that name",
                digest.short()
            )));
        }
        self.publish(candidate, How { act: Act::RolledBack, rule: PublishRule::Always, signature: None }).await
    }
}

/// The digest to go back to.
fn find(name: &ScriptName, history: &[Past], live: Option<Digest>, back: &Back) -> Result<Digest, String> {
    let others = || history.iter().filter_map(|past| Some((past, past.digest?))).filter(|(_, own)| Some(*own) != live);
    if history.is_empty() {
        return Err(format!(
            "jumpscript `{name}` has no history: it was never published\nhint: `wasmhost scripts ls` lists what is published"
        ));
    }
    let Back::To(wanted) = back else {
        return others().next().map(|(_, digest)| digest).ok_or_else(|| {
            format!("jumpscript `{name}` has no earlier code than the one that is live\nhint: see `wasmhost scripts history {name}`")
        });
    };
    let is_version = |past: &Past| {
        let parsed = parse_version(&past.version).ok().filter(|_| !past.version.is_empty());
        parsed.is_some() && parsed == parse_version(wanted).ok()
    };
    let is_digest =
        |digest: &Digest| wanted.len() >= DIGEST_PART_MIN && digest.to_string().starts_with(wanted.as_str());
    if let Some((_, digest)) = others().find(|(past, _)| is_version(past)) {
        return Ok(digest);
    }
    let mut found: Vec<Digest> = others().map(|(_, digest)| digest).filter(is_digest).collect();
    found.sort_unstable();
    found.dedup();
    let shown = visible(wanted);
    match found.as_slice() {
        [digest] => Ok(*digest),
        [] if live.is_some_and(|live| {
            is_digest(&live) || history.iter().any(|p| is_version(p) && p.digest == Some(live))
        }) =>
        {
            Err(format!("`{shown}` of jumpscript `{name}` is live already"))
        }
        [] => {
            let known: Vec<String> = others().map(|(past, digest)| named(past, &digest)).collect();
            let known =
                if known.is_empty() { "there is none".to_owned() } else { format!("there are {}", known.join(", ")) };
            Err(format!("jumpscript `{name}` has no earlier code `{shown}`\nhint: {known}"))
        }
        _ => Err(format!("`{shown}` may be several digests of jumpscript `{name}`\nhint: give more of its digits")),
    }
}

/// A digest and its version, for people.
fn named(past: &Past, digest: &Digest) -> String {
    if past.version.is_empty() { digest.short() } else { format!("{} ({})", digest.short(), visible(&past.version)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(code: &str, version: &str) -> Past {
        Past {
            at: 0,
            act: "published".to_owned(),
            by: String::new(),
            digest: Some(Digest::of(code.as_bytes())),
            version: version.to_owned(),
            size: 1,
            signed_by: String::new(),
        }
    }

    #[test]
    fn the_code_to_go_back_to_is_found_by_version_and_by_digest() {
        let name: ScriptName = "acme/resize".parse().unwrap();
        let of = |code: &str| Digest::of(code.as_bytes());
        let history = [past("c", "1.3"), past("b", "1.2"), past("a", "")];
        let to = |text: &str| find(&name, &history, Some(of("c")), &Back::To(text.to_owned()));
        assert_eq!(find(&name, &history, Some(of("c")), &Back::Before), Ok(of("b")));
        assert_eq!(find(&name, &history, None, &Back::Before), Ok(of("c")), "a name that was removed");
        assert_eq!(to("1.2.0"), Ok(of("b")));
        assert_eq!(to(&of("a").short()), Ok(of("a")));
        assert!(to("1.3").unwrap_err().contains("live already"));
        assert!(to(&of("c").to_string()).unwrap_err().contains("live already"));
        let error = to("9.9").unwrap_err();
        assert!(error.contains("9.9") && error.contains(&format!("{} (1.2)", of("b").short())), "{error}");
        assert!(to("a").is_err(), "too short to mean a digest");
    }
}
