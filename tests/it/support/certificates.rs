//! Certificates of an authority that lives as long as a test, made by the `openssl` command.

use std::path::PathBuf;
use std::process::Command;

/// A folder with `ca`, `server` (for 127.0.0.1 and localhost), `client` and `stranger` (signed by nobody), each `.crt`
/// and `.key`.
pub struct Certificates {
    dir: tempfile::TempDir,
}

impl Certificates {
    #[must_use]
    pub fn make() -> Self {
        let made = Self { dir: tempfile::tempdir().expect("a temporary directory") };
        let own = ["-addext", "basicConstraints=critical,CA:TRUE"];
        made.sign("ca", &own);
        made.sign("stranger", &own);
        let by_ca = ["-CA", "ca.crt", "-CAkey", "ca.key", "-addext", "basicConstraints=critical,CA:FALSE"];
        made.sign("server", &[&by_ca, ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"].as_slice()].concat());
        made.sign("client", &[&by_ca, ["-addext", "extendedKeyUsage=clientAuth"].as_slice()].concat());
        made
    }

    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn sign(&self, name: &str, more: &[&str]) {
        let output = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
            .args(["-subj", &format!("/CN={name}"), "-keyout", &format!("{name}.key"), "-out", &format!("{name}.crt")])
            .args(more)
            .current_dir(self.dir.path())
            .output()
            .expect("the `openssl` command is installed");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
