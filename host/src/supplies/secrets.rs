//! Reads secrets where the configuration says they are.
//!
//! Invariant: nothing is kept. A secret is read when it is asked for, so that a changed file is seen at once and a value
//! lies in the host's memory for as long as it is handed over. No error says more of a file than what is wrong with it; its
//! path goes to the host's log.

use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

use crate::config::{SecretSource, Supplies};
use crate::job::visible;
use crate::permissions::is_secret_name;
use crate::ports::SecretError;
use crate::secret::{SECRET_BYTES_MAX, SecretValue};

/// The value of a secret, from the variable or the file that is named for it, else from the folder.
pub(super) fn read(told: &Supplies, name: &str) -> Result<SecretValue, SecretError> {
    let value = match told.secrets.source(name) {
        Some(SecretSource::Variable(variable)) => {
            std::env::var_os(variable).map(OsStringExt::into_vec).ok_or_else(|| {
                missing(name, &format!("the variable `{}` is not set in the host's environment", visible(variable)))
            })?
        }
        Some(SecretSource::File(path)) => file(path, name)?,
        // The name of a file, never a path.
        None if name.is_empty() || !is_secret_name(name) => {
            return Err(missing(name, "there can be none of this name"));
        }
        None => match &told.secrets_dir {
            Some(folder) => file(&folder.join(name), name)?,
            None => return Err(missing(name, "this node has none of this name")),
        },
    };
    let value = SecretValue::new(value).without_line_end();
    match value.reveal().len() {
        0 => Err(missing(name, "it is empty")),
        n if n > SECRET_BYTES_MAX => Err(too_large(name)),
        _ => Ok(value),
    }
}

fn file(path: &Path, name: &str) -> Result<Vec<u8>, SecretError> {
    let told = |error: &std::io::Error| {
        let path = path.display();
        if error.kind() == ErrorKind::NotFound {
            tracing::debug!(secret = name, %path, "secret not there");
            return missing(name, "its file is not there");
        }
        tracing::warn!(secret = name, %path, %error, "secret cannot be read");
        SecretError::Unreadable(format!("secret `{}` cannot be read: {}", visible(name), error.kind()))
    };
    // What waits for a writer, or never ends, is no secret.
    let nonblock = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = File::options().read(true).custom_flags(nonblock).open(path).map_err(|error| told(&error))?;
    let meta = file.metadata().map_err(|error| told(&error))?;
    if !meta.is_file() {
        return Err(SecretError::Unreadable(format!("secret `{}` cannot be read: it is no file", visible(name))));
    }
    // With room for all of it from the start: a vector that grows leaves copies behind.
    let mut bytes = Vec::with_capacity(SECRET_BYTES_MAX + 2);
    file.take(SECRET_BYTES_MAX as u64 + 2).read_to_end(&mut bytes).map_err(|error| told(&error))?;
    Ok(bytes)
}

fn too_large(name: &str) -> SecretError {
    SecretError::Unreadable(format!(
        "secret `{}` cannot be read: it has more than {SECRET_BYTES_MAX} bytes, the most that is allowed",
        visible(name)
    ))
}

fn missing(name: &str, why: &str) -> SecretError {
    let name = visible(name);
    SecretError::Missing(format!(
        "there is no secret `{name}`: {why}; name its source in the node's configuration, {name} = {{ env = \"VARIABLE\" }} or \
         {{ file = \"/path\" }} under [secrets], or put the file `{name}` into the folder `secrets_dir`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn in_folder(folder: &Path) -> Supplies {
        Supplies { secrets_dir: Some(folder.to_owned()), ..Supplies::default() }
    }

    #[test]
    fn a_file_of_the_folder_is_read_anew_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let told = in_folder(folder.path());
        let value = |name: &str| read(&told, name).map(|value| value.reveal().to_vec());
        assert!(matches!(value("token"), Err(SecretError::Missing(text)) if text.contains("[secrets]")));
        std::fs::write(folder.path().join("token"), "first\n").unwrap();
        assert_eq!(value("token"), Ok(b"first".to_vec()));
        // As Kubernetes does it: a new folder takes the place of a link.
        std::fs::create_dir(folder.path().join("..second")).unwrap();
        std::fs::write(folder.path().join("..second/token"), "second").unwrap();
        std::os::unix::fs::symlink("..second/token", folder.path().join("new")).unwrap();
        std::fs::rename(folder.path().join("new"), folder.path().join("token")).unwrap();
        assert_eq!(value("token"), Ok(b"second".to_vec()));
    }

    #[test]
    fn what_is_no_secret_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let told = in_folder(folder.path());
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        std::fs::write(folder.path().join("large"), vec![b'x'; SECRET_BYTES_MAX + 1]).unwrap();
        std::fs::write(folder.path().join("largest"), [vec![b'x'; SECRET_BYTES_MAX], b"\r\n".to_vec()].concat())
            .unwrap();
        std::fs::create_dir(folder.path().join("folder")).unwrap();
        let said = |name: &str| format!("{:?}", read(&told, name).unwrap_err());
        assert!(said("empty").contains("it is empty"));
        assert!(said("large").contains("more than 65536"));
        assert_eq!(read(&told, "largest").unwrap().reveal().len(), SECRET_BYTES_MAX);
        assert!(said("folder").contains("it is no file"));
        for name in ["", ".", "..", "../token", "/etc/passwd", "a/b", ".hidden"] {
            assert!(matches!(read(&told, name), Err(SecretError::Missing(_))), "{name}");
        }
    }
}
