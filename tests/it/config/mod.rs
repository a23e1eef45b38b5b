//! Configuration: what is accepted, what is refused, and in which words (list O of the bad inputs).

mod documents;
mod passwords;
mod refusals;

use std::path::PathBuf;

use wasmhost::config::{Config, Environment, Error, Given, Machine, Origin, Sources};

use std::time::Duration;

/// The sources of a machine with 4 cores called `box-1`, with nothing said.
fn silent() -> Sources {
    Sources {
        flags: Given::default(),
        environment: Environment::new(),
        file: None,
        machine: Machine { cores: 4, name: "box-1".to_owned(), is_root: false },
    }
}

fn environment(pairs: &[(&str, &str)]) -> Sources {
    let environment = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Sources { environment, ..silent() }
}

/// Sources with a file, and the folder that keeps it alive.
fn file(text: &str) -> (Sources, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wasmhost.toml");
    std::fs::write(&path, text).unwrap();
    (Sources { file: Some(path), ..silent() }, dir)
}

fn load_file(text: &str) -> Result<Config, Error> {
    let (sources, _dir) = file(text);
    Config::load(&sources)
}

fn value(config: &Config, key: &str) -> (String, Origin) {
    let setting = config.setting(key).unwrap();
    (setting.value.clone(), setting.origin.clone())
}

#[test]
fn without_a_word_every_value_is_the_default() {
    let config = Config::load(&silent()).unwrap();
    assert_eq!(config.redis.url, "redis://127.0.0.1:6379");
    assert_eq!((config.prefix.as_str(), config.node_prefix.as_str()), ("wasmhost", ""));
    assert_eq!(config.queues.iter().map(ToString::to_string).collect::<Vec<_>>(), ["default=1"]);
    assert_eq!((config.concurrency, config.node.as_str()), (32, "box-1"));
    assert_eq!((config.lease, config.heartbeat), (Duration::from_secs(30), Duration::from_secs(10)));
    assert_eq!(config.grace, Duration::from_secs(25));
    assert_eq!(config.limits.memory_bytes_max, 64 * 1024 * 1024);
    assert!(config.settings.iter().all(|setting| setting.origin == Origin::Default));
    assert!(config.notes.is_empty());
}

#[test]
fn an_empty_file_changes_nothing() {
    let config = load_file("").unwrap();
    assert!(config.settings.iter().all(|setting| setting.origin == Origin::Default));
}

#[test]
fn flags_go_over_environment_over_file_over_default() {
    let (mut sources, _dir) = file("lease = '10s'\ngrace = '11s'\nprefix = 'file'\nconcurrency = 3\n");
    sources.environment.insert("WASMHOST_LEASE".to_owned(), "20s".to_owned());
    sources.environment.insert("WASMHOST_GRACE".to_owned(), "21s".to_owned());
    sources.flags.lease = Some(Duration::from_secs(31));
    let config = Config::load(&sources).unwrap();
    let path = sources.file.clone().unwrap();
    assert_eq!(value(&config, "lease"), ("31s".to_owned(), Origin::Flag));
    assert_eq!(value(&config, "grace"), ("21s".to_owned(), Origin::Environment("WASMHOST_GRACE")));
    assert_eq!(value(&config, "prefix"), ("file".to_owned(), Origin::File(path.clone())));
    assert_eq!(value(&config, "concurrency"), ("3".to_owned(), Origin::File(path)));
    assert_eq!(value(&config, "retry.cap"), ("10m".to_owned(), Origin::Default));
}

#[test]
fn the_file_is_found_by_its_variable_and_never_unasked() {
    let (sources, dir) = file("prefix = 'named'");
    let path = sources.file.unwrap();
    let by_variable = environment(&[("WASMHOST_CONFIG", path.to_str().unwrap())]);
    assert_eq!(Config::load(&by_variable).unwrap().prefix, "named");
    let absent = Sources { file: Some(dir.path().join("absent.toml")), ..silent() };
    let error = Config::load(&absent).unwrap_err().to_string();
    assert!(error.contains("absent.toml") && error.contains("No such file"), "{error}");
}

#[test]
fn every_kind_of_value_is_read_from_the_file() {
    let text = r#"
        queues = { mail = 3, default = 1 }
        roles = ["node", "grid"]
        scripts = "/srv/scripts"
        [redis]
        url = "unix:///run/redis.sock"
        connect_timeout = "250ms"
        [log]
        level = "info,wasmhost::worker=debug"
        format = "json"
        [sandbox]
        hardening = "strict"
        [health]
        disk_mib = 0
    "#;
    let config = load_file(text).unwrap();
    assert_eq!(value(&config, "queues").0, "default=1,mail=3");
    assert_eq!(config.roles, ["node", "grid"]);
    assert_eq!(config.scripts, Some(PathBuf::from("/srv/scripts")));
    assert_eq!(config.redis.connect_timeout, Duration::from_millis(250));
    assert_eq!(config.health.disk_bytes_min, 0);
    assert_eq!(value(&config, "sandbox.hardening").0, "strict");
}

#[test]
fn every_setting_can_be_given_by_its_variable() {
    let config = Config::load(&environment(&[
        ("WASMHOST_QUEUES", "mail=3, default"),
        ("WASMHOST_NID", "7"),
        ("WASMHOST_EMBEDDED", "true"),
        ("WASMHOST_LOG_FORMAT", ""),
    ]))
    .unwrap();
    assert_eq!(value(&config, "queues"), ("mail=3,default=1".to_owned(), Origin::Environment("WASMHOST_QUEUES")));
    assert_eq!(config.nid, 7);
    assert!(config.redis.is_embedded);
    assert_eq!(value(&config, "log.format").1, Origin::Default, "an empty variable is not set");
}

#[test]
fn redis_addr_is_the_last_resort_for_the_url() {
    let config = Config::load(&environment(&[("REDIS_ADDR", "10.0.0.7:6380")])).unwrap();
    assert_eq!(value(&config, "redis.url"), ("redis://10.0.0.7:6380".to_owned(), Origin::Environment("REDIS_ADDR")));
    let (mut sources, _dir) = file("redis.url = 'redis://file:1'");
    sources.environment.insert("REDIS_ADDR".to_owned(), "10.0.0.7:6380".to_owned());
    assert_eq!(Config::load(&sources).unwrap().redis.url, "redis://file:1");
}

#[test]
fn an_embedded_redis_yields_to_a_url_that_weighs_more() {
    let (mut sources, _dir) = file("redis.embedded = true");
    assert!(Config::load(&sources).unwrap().redis.is_embedded);
    sources.environment.insert("REDIS_ADDR".to_owned(), "10.0.0.7:6380".to_owned());
    assert!(Config::load(&sources).unwrap().redis.is_embedded, "REDIS_ADDR was said to another program");
    sources.flags.redis_url = Some("redis://there:1".to_owned());
    assert!(!Config::load(&sources).unwrap().redis.is_embedded);
    sources.flags.redis_embedded = Some(true);
    let error = Config::load(&sources).unwrap_err();
    assert!(error.to_string().contains("flag `--embedded`"), "{error}");
}

#[test]
fn a_node_without_number_gets_one_that_depends_on_its_name_only() {
    let number = |name: &str| {
        let mut sources = silent();
        sources.flags.node = Some(name.to_owned());
        Config::load(&sources).unwrap().nid
    };
    assert_eq!(number("a"), number("a"));
    assert_ne!(number("a"), number("b"));
}

#[test]
fn a_host_name_with_strange_characters_still_makes_a_node_name() {
    let mut sources = silent();
    sources.machine.name = "büro box:1".to_owned();
    assert_eq!(Config::load(&sources).unwrap().node, "b-ro-box-1");
}

#[test]
fn a_broken_file_at_reload_leaves_the_old_values_in_force() {
    let (sources, _dir) = file("health.disk_mib = 100");
    let path = sources.file.clone().unwrap();
    let config = Config::load(&sources).unwrap();

    std::fs::write(&path, "health.disk_mib = 'much'").unwrap();
    assert!(config.reload(&sources).unwrap_err().to_string().contains("health.disk_mib"));
    assert_eq!(config.health.disk_bytes_min, 100 * 1024 * 1024);

    std::fs::write(&path, "health.disk_mib = 200\nconcurrency = 5\n").unwrap();
    let reload = config.reload(&sources).unwrap();
    assert_eq!(reload.config.health.disk_bytes_min, 200 * 1024 * 1024);
    assert_eq!(reload.config.concurrency, config.concurrency, "what needs a restart waits for it");
    assert_eq!((reload.applied, reload.needs_restart), (vec!["health.disk_mib"], vec!["concurrency"]));
}
