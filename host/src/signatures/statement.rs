//! What a key signs: that a name is this code from this time on.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::{PublicKey, SigningKey};
use crate::job::visible;
use crate::jumpscript::{Digest, ScriptName, parse_version};

/// Largest text of a signature in bytes.
pub const SIGNATURE_BYTES_MAX: usize = 4096;
/// The first line of what is signed: a signature for this means nothing else.
const CONTEXT: &str = "wasmhost jumpscript 1";

/// What a statement is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Purpose {
    /// The code goes live; its version is not lower than that of what was live.
    Publish,
    /// Code goes live again, whatever its version.
    Rollback,
}

impl Purpose {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Rollback => "rollback",
        }
    }
}

/// That a name is this code from this time on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// What it is for.
    pub purpose: Purpose,
    /// `organization/name`.
    pub name: String,
    /// The version in the file's manifest; empty when it has none.
    pub version: String,
    /// The SHA-256 of the file, its manifest embedded.
    pub digest: Digest,
    /// When it was signed, in Unix milliseconds. Of two statements the later one counts.
    pub signed_at_ms: i64,
}

impl Statement {
    /// The bytes that are signed: six lines. No value can hold a line feed ([`Statement::check`]).
    fn message(&self) -> Vec<u8> {
        let Self { purpose, name, version, digest, signed_at_ms } = self;
        format!(
            "{CONTEXT}\npurpose {}\nname {name}\nversion {version}\ndigest {digest}\nsigned-at-ms {signed_at_ms}\n",
            purpose.as_str()
        )
        .into_bytes()
    }

    fn check(&self) -> Result<(), String> {
        self.name.parse::<ScriptName>()?;
        if self.version.is_empty() { Ok(()) } else { parse_version(&self.version).map(drop) }
    }
}

/// A statement with its signature: a JSON object of one line, in the record of a jumpscript and in a file beside its
/// code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// What was signed.
    #[serde(flatten)]
    pub statement: Statement,
    /// The key.
    pub key: PublicKey,
    /// Base64 of the 64 bytes.
    signature: String,
}

impl Signature {
    /// Signs a statement.
    #[must_use]
    pub fn new(statement: Statement, key: &SigningKey) -> Self {
        let signature = STANDARD.encode(key.sign(&statement.message()));
        Self { statement, key: key.public(), signature }
    }

    /// Reads a signature, as it stands in a record or a file. Whether it is good is not looked at.
    ///
    /// # Errors
    /// A sentence that says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > SIGNATURE_BYTES_MAX {
            return Err(format!("its signature has {} bytes, at most {SIGNATURE_BYTES_MAX} are allowed", text.len()));
        }
        let signature: Self = serde_json::from_str(text)
            .map_err(|error| format!("its signature cannot be read: {}", visible(&error.to_string())))?;
        signature.statement.check().map_err(|why| format!("its signature cannot be read: {why}"))?;
        Ok(signature)
    }

    /// Whether its key made it.
    #[must_use]
    pub fn is_genuine(&self) -> bool {
        let bytes = STANDARD.decode(&self.signature).unwrap_or_default();
        self.key.verifies(&self.statement.message(), &bytes)
    }

    /// The text that [`Signature::parse`] reads.
    #[must_use]
    pub fn text(&self) -> String {
        // A struct of text and numbers always becomes JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_of_a_statement_is_signed() {
        let folder = tempfile::tempdir().unwrap();
        let key = SigningKey::create(&folder.path().join("key")).unwrap();
        let statement = Statement {
            purpose: Purpose::Publish,
            name: "acme/resize".to_owned(),
            version: "1.2".to_owned(),
            digest: Digest::of(b"code"),
            signed_at_ms: 1_800_000_000_000,
        };
        let good = Signature::new(statement, &key);
        assert!(good.is_genuine());
        assert_eq!(Signature::parse(&good.text()), Ok(good.clone()));
        let changes: [&dyn Fn(&mut Statement); 5] = [
            &|s| s.purpose = Purpose::Rollback,
            &|s| s.name = "acme/wipe".to_owned(),
            &|s| s.version = "1.3".to_owned(),
            &|s| s.digest = Digest::of(b"other"),
            &|s| s.signed_at_ms += 1,
        ];
        for change in changes {
            let mut forged = good.clone();
            change(&mut forged.statement);
            assert!(!forged.is_genuine(), "{:?}", forged.statement);
        }
    }

    #[test]
    fn what_is_no_signature_is_refused_with_a_reason() {
        for wrong in ["", "{}", "[]", "{\"purpose\":\"publish\"}"] {
            assert!(Signature::parse(wrong).unwrap_err().contains("cannot be read"), "{wrong}");
        }
        assert!(Signature::parse(&" ".repeat(SIGNATURE_BYTES_MAX + 1)).unwrap_err().contains("at most"));
    }
}
