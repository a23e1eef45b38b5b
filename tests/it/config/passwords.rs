//! The password of Redis: where it may come from, which one counts, and that nobody sees it.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::{Config, Sources, environment, file, silent, value};

fn secret_file(word: &str, mode: u32) -> (PathBuf, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("password");
    std::fs::write(&path, format!("{word}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    (path, dir)
}

/// The password in force; nothing else of the configuration may show it.
fn password(sources: &Sources) -> Option<String> {
    let config = Config::load(sources).unwrap();
    let word = config.redis.password.clone().map(|word| word.reveal().to_owned());
    if let Some(word) = &word {
        assert!(!format!("{config:?}").contains(word.as_str()), "{config:?}");
    }
    word
}

#[test]
fn the_source_that_weighs_most_gives_the_password() {
    let (by_flag, _a) = secret_file("word-of-flag", 0o600);
    let (by_file, _b) = secret_file("word-of-file", 0o600);
    let (mut sources, _dir) = file(&format!("redis.password_file = '{}'", by_file.display()));
    assert_eq!(password(&sources).as_deref(), Some("word-of-file"));
    sources.environment.insert("WASMHOST_REDIS_PASSWORD".to_owned(), "word-of-env".to_owned());
    assert_eq!(password(&sources).as_deref(), Some("word-of-env"));
    sources.flags.redis_password_file = Some(by_flag);
    assert_eq!(password(&sources).as_deref(), Some("word-of-flag"));
    assert_eq!(value(&Config::load(&sources).unwrap(), "redis.password").0, "***");
}

#[test]
fn a_password_file_goes_before_the_url_of_the_same_source() {
    let (path, _dir) = secret_file("word-of-file", 0o600);
    let mut sources = environment(&[("WASMHOST_REDIS", "redis://user:word-of-url@h:1")]);
    assert_eq!(password(&sources).as_deref(), Some("word-of-url"));
    assert_eq!(Config::load(&sources).unwrap().redis.url, "redis://user@h:1");
    sources.environment.insert("WASMHOST_REDIS_PASSWORD_FILE".to_owned(), path.display().to_string());
    assert_eq!(password(&sources).as_deref(), Some("word-of-file"));
}

#[test]
fn redis_addr_may_carry_a_password_too() {
    let sources = environment(&[("REDIS_ADDR", "redis://:word-of-addr@h:1")]);
    assert_eq!(password(&sources).as_deref(), Some("word-of-addr"));
}

#[test]
fn two_passwords_in_one_source_are_refused_without_showing_one() {
    let sources =
        environment(&[("WASMHOST_REDIS_PASSWORD", "hidden-word"), ("WASMHOST_REDIS_PASSWORD_FILE", "/tmp/x")]);
    let error = Config::load(&sources).unwrap_err();
    assert!(error.to_string().contains("WASMHOST_REDIS_PASSWORD_FILE"), "{error}");
    assert!(!format!("{error:?}{error}").contains("hidden-word"));
}

#[test]
fn a_password_file_that_everybody_can_read_is_warned_of() {
    for (mode, n_notes) in [(0o644, 1), (0o600, 0), (0o640, 0)] {
        let (path, _dir) = secret_file("word", mode);
        let mut sources = silent();
        sources.flags.redis_password_file = Some(path);
        let notes = Config::load(&sources).unwrap().notes;
        assert_eq!(notes.len(), n_notes, "{mode:o}: {notes:?}");
    }
}

#[test]
fn a_configuration_file_with_a_password_that_everybody_can_read_is_warned_of() {
    let (sources, _dir) = file("redis.password = 'word-of-file'");
    let path = sources.file.clone().unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    let notes = Config::load(&sources).unwrap().notes;
    assert!(notes[0].contains("chmod 600") && !notes[0].contains("word-of-file"), "{notes:?}");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Config::load(&sources).unwrap().notes.is_empty());
}

#[test]
fn a_password_in_a_flag_is_warned_of() {
    let mut sources = silent();
    sources.flags.redis_url = Some("redis://:word-of-flag@h:1".to_owned());
    let notes = Config::load(&sources).unwrap().notes;
    assert!(notes[0].contains("--redis-password-file") && !notes[0].contains("word-of-flag"), "{notes:?}");
}

#[test]
fn an_empty_or_absent_password_file_is_refused_by_name() {
    let (path, dir) = secret_file("", 0o600);
    for (path, why) in [(path, "empty"), (dir.path().join("absent"), "cannot be read")] {
        let mut sources = silent();
        sources.flags.redis_password_file = Some(path.clone());
        let error = Config::load(&sources).unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&*path.to_string_lossy()), "{error}");
    }
}

#[test]
fn a_url_that_is_none_is_refused_without_its_password() {
    for bad in ["http://u:hidden-word@h", "u:hidden-word@h:1", "redis://:hidden-word@h:99999"] {
        let error = Config::load(&environment(&[("WASMHOST_REDIS", bad)])).unwrap_err();
        let text = format!("{error} {error:?} {:?}", error.hint());
        assert!(text.contains("WASMHOST_REDIS") && text.contains("redis://HOST:PORT"), "{text}");
        assert!(!text.contains("hidden-word"), "{text}");
    }
    let (sources, _dir) = file("redis.password = 17");
    let error = Config::load(&sources).unwrap_err().to_string();
    assert!(error.contains("`***`") && !error.contains("17"), "{error}");
}
