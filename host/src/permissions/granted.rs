//! What is effective: the request, as far as it is allowed.

use std::sync::{Arc, OnceLock};

use super::{Directory, HttpPattern, NamePattern, Permissions};

/// What one jumpscript may do on this node now. The default is what every jumpscript may: nothing but the job's own
/// bucket of state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Granted {
    /// Everything in it is allowed but `http`, which is judged request by request.
    request: Permissions,
    http_allowed: Vec<HttpPattern>,
    directories: Vec<GrantedDirectory>,
    /// The names of its code: what the node has for it goes by them.
    names: Vec<String>,
}

/// A directory that may be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantedDirectory {
    /// The directory that was requested.
    pub path: Directory,
    /// The directory that was allowed, in which it must really lie, links resolved.
    pub within: Directory,
}

impl Granted {
    /// What a jumpscript may that requests nothing; all of them share it.
    #[must_use]
    pub fn none() -> Arc<Self> {
        static NONE: OnceLock<Arc<Granted>> = OnceLock::new();
        Arc::clone(NONE.get_or_init(Arc::default))
    }

    /// Compares a request with what is allowed.
    ///
    /// # Errors
    /// What is requested and not allowed.
    pub fn of(request: &Permissions, allowed: &Permissions) -> Result<Self, Box<Permissions>> {
        let missing = request.missing(allowed);
        if !missing.is_empty() {
            return Err(Box::new(missing));
        }
        let within = |path: &Directory| allowed.files.iter().find(|directory| directory.covers(path)).cloned();
        let directories = request.files.iter();
        let directories = directories
            .filter_map(|path| Some(GrantedDirectory { path: path.clone(), within: within(path)? }))
            .collect();
        Ok(Self { request: request.clone(), http_allowed: allowed.http.clone(), directories, names: Vec::new() })
    }

    /// With the names under which the node knows the code.
    #[must_use]
    pub fn named(self, names: Vec<String>) -> Self {
        Self { names, ..self }
    }

    /// The names under which the node knows the code, `organization/name`; none when another program published it.
    #[must_use]
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Whether a bucket may be read. The empty name is the job's own.
    #[must_use]
    pub fn may_read_state(&self, bucket: &str) -> bool {
        bucket.is_empty() || self.request.state.iter().any(|pattern| pattern.bucket.matches(bucket))
    }

    /// Whether a bucket may be written. The empty name is the job's own.
    #[must_use]
    pub fn may_write_state(&self, bucket: &str) -> bool {
        bucket.is_empty()
            || self.request.state.iter().any(|pattern| !pattern.is_read_only && pattern.bucket.matches(bucket))
    }

    /// Whether jobs may be enqueued into a queue.
    #[must_use]
    pub fn may_enqueue(&self, queue: &str) -> bool {
        names(&self.request.enqueue, queue)
    }

    /// Whether a variable of the host's environment may be read.
    #[must_use]
    pub fn env(&self, name: &str) -> bool {
        names(&self.request.env, name)
    }

    /// Whether a value of the node's configuration may be read.
    #[must_use]
    pub fn may_read_config(&self, key: &str) -> bool {
        names(&self.request.config, key)
    }

    /// Whether a secret of the node may be read.
    #[must_use]
    pub fn may_read_secret(&self, name: &str) -> bool {
        names(&self.request.secrets, name)
    }

    /// Whether facts of an area may be read.
    #[must_use]
    pub fn may_read_facts(&self, area: &str) -> bool {
        names(&self.request.facts, area)
    }

    /// The directories that may be read.
    #[must_use]
    pub fn directories(&self) -> &[GrantedDirectory] {
        &self.directories
    }

    /// What ceiling and grants allow of HTTP; a request must be named by the manifest too.
    #[must_use]
    pub fn http_allowed(&self) -> &[HttpPattern] {
        &self.http_allowed
    }

    /// What was requested.
    #[must_use]
    pub const fn request(&self) -> &Permissions {
        &self.request
    }
}

fn names(patterns: &[NamePattern], name: &str) -> bool {
    patterns.iter().any(|pattern| pattern.matches(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Permissions {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn nobody_may_anything_but_the_jobs_own_bucket() {
        let none = Granted::default();
        assert!(none.may_read_state("") && none.may_write_state(""));
        assert!(!none.may_read_state("orders") && !none.may_write_state("orders") && !none.may_enqueue("mail"));
        assert!(!none.env("HOME") && none.directories().is_empty());
        assert!(!none.may_read_config("url") && !none.may_read_secret("key"));
    }

    #[test]
    fn what_is_allowed_and_not_requested_is_not_granted() {
        let allowed = table("state = ['*']\nenv = ['*']\nfiles = ['/']");
        assert_eq!(Granted::of(&Permissions::default(), &allowed), Ok(Granted::default()));
        let granted = Granted::of(&table("state = ['orders:ro']\nfiles = ['/etc/ssl']"), &allowed).unwrap();
        assert!(granted.may_read_state("orders") && !granted.may_write_state("orders") && !granted.env("HOME"));
        assert_eq!(granted.directories()[0].within.as_str(), "/");
    }

    #[test]
    fn what_is_requested_and_not_allowed_is_told() {
        let request = table("state = ['orders', 'cache']\nenqueue = ['mail-*']\nenv = ['A', 'B']");
        let missing = Granted::of(&request, &table("state = ['cache']\nenqueue = ['mail-in']\nenv = ['A']"));
        assert_eq!(missing.unwrap_err().flags(), " --state orders --enqueue 'mail-*' --env B");
    }
}
