//! Keys: a private one in a file of its owner, a public one as text.

use std::fmt;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::job::visible;

/// What stands before the 32 bytes of a private key in PKCS #8 (RFC 8410), as other programs write it.
const PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
const PEM_HEAD: &str = "-----BEGIN PRIVATE KEY-----";
const PEM_END: &str = "-----END PRIVATE KEY-----";
/// Largest key file in bytes.
const FILE_BYTES_MAX: u64 = 16 * 1024;

/// A public key of ed25519. As text it is the base64 of its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The first 16 hexadecimal digits of its SHA-256, for people.
    #[must_use]
    pub fn id(&self) -> String {
        let digest = Sha256::digest(self.0);
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Whether `signature` over `message` was made with its private key.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, &self.0).verify(message, signature).is_ok()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

impl FromStr for PublicKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown: String = text.chars().take(80).collect();
        let bad = || format!("`{}` is not a public key: it must be the base64 of 32 bytes", visible(&shown));
        let bytes = STANDARD.decode(text.trim()).map_err(|_| bad())?;
        bytes.try_into().map(Self).map_err(|_| bad())
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A private key. It is never shown.
pub struct SigningKey(Ed25519KeyPair);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SigningKey({})", self.public().id())
    }
}

impl SigningKey {
    /// Makes a key and writes it into a file that only its owner can read. A file that is there is never overwritten.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn create(path: &Path) -> Result<Self, String> {
        let shown = visible(&path.to_string_lossy());
        let mut seed = [0_u8; 32];
        getrandom::fill(&mut seed).map_err(|error| format!("the system gives no random bytes: {error}"))?;
        let bytes = [PKCS8_HEAD.as_slice(), &seed].concat();
        let key = Self::from_pkcs8(&bytes).map_err(|why| format!("the new key cannot be used: {why}"))?;
        let text = format!("{PEM_HEAD}\n{}\n{PEM_END}\n", STANDARD.encode(&bytes));
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                format!(
                    "`{shown}` is there already, and a key is never overwritten\nhint: name another file with --out"
                )
            }
            _ => format!("the key file `{shown}` cannot be written: {error}"),
        })?;
        Ok(key)
    }

    /// Reads a key from its file: PKCS #8 in PEM, as [`SigningKey::create`] and other programs write it.
    ///
    /// # Errors
    /// A sentence that names the file; nothing of its content is in it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = visible(&path.to_string_lossy());
        let fault = |error: std::io::Error| format!("the key file `{shown}` cannot be read: {error}");
        let meta = std::fs::metadata(path).map_err(fault)?;
        if !meta.is_file() || meta.len() > FILE_BYTES_MAX {
            return Err(format!("`{shown}` is not a key file"));
        }
        let mode = meta.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!(
                "others than its owner can read the key file `{shown}` (mode {mode:04o})\nhint: chmod 600 it"
            ));
        }
        let bad = |why: &str| {
            format!("`{shown}` is not a private key of ed25519: {why}\nhint: `wasmhost keys new` makes one")
        };
        let text = std::fs::read_to_string(path).map_err(fault)?;
        let body = text.split_once(PEM_HEAD).and_then(|(_, rest)| rest.split_once(PEM_END));
        let Some((body, _)) = body else { return Err(bad("it has no block `PRIVATE KEY`")) };
        let joined: String = body.split_whitespace().collect();
        let bytes = STANDARD.decode(joined).map_err(|_| bad("its block is not base64"))?;
        Self::from_pkcs8(&bytes).map_err(|why| bad(&why))
    }

    fn from_pkcs8(bytes: &[u8]) -> Result<Self, String> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(bytes).map(Self).map_err(|error| error.to_string())
    }

    /// Its public half.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.public_key().as_ref());
        PublicKey(bytes)
    }

    /// Signs a message.
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.0.sign(message).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_for_its_owner_alone_and_never_over_another() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let key = SigningKey::create(&file).unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(SigningKey::create(&file).unwrap_err().contains("never overwritten"));
        let read = SigningKey::read(&file).unwrap();
        assert_eq!(read.public(), key.public());
        assert!(key.public().verifies(b"text", &read.sign(b"text")));
        assert!(!key.public().verifies(b"texts", &read.sign(b"text")));
        assert_eq!(key.public().to_string().parse(), Ok(key.public()));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert!(SigningKey::read(&file).unwrap_err().contains("chmod 600"));
    }

    /// RFC 8032, section 7.1, test 2: other programs make the same signature.
    #[test]
    fn signatures_are_those_of_the_standard() {
        let seed = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
        let seed: Vec<u8> = (0..32).map(|n| u8::from_str_radix(&seed[2 * n..2 * n + 2], 16).unwrap()).collect();
        let key = SigningKey::from_pkcs8(&[PKCS8_HEAD.as_slice(), &seed].concat()).unwrap();
        let signature: String = key.sign(&[0x72]).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(signature.starts_with("92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"));
    }

    #[test]
    fn what_is_no_public_key_is_named() {
        for wrong in ["", "AAAA", "not base64 at all", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
            assert!(wrong.parse::<PublicKey>().unwrap_err().contains("base64 of 32 bytes"), "{wrong}");
        }
    }
}
