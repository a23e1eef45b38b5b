//! The documents that are made from tables and constants.

use wasmhost::config::{KEYS, OTHER_VARIABLES, configuration_markdown};

use super::{Config, silent};
use crate::support::docs::assert_document;

#[test]
fn the_page_on_configuration_is_what_the_table_says() {
    assert_document("configuration.md", &configuration_markdown());
}

#[test]
fn the_page_on_limits_is_what_the_constants_say() {
    assert_document("limits.md", &wasmhost::limits::markdown());
}

#[test]
fn keys_variables_and_flags_are_unique_and_variables_carry_our_name() {
    let unique = |names: Vec<&str>| {
        let mut sorted = names.clone();
        sorted.sort_unstable();
        sorted.dedup();
        assert_eq!(sorted.len(), names.len(), "{names:?}");
    };
    unique(KEYS.iter().map(|spec| spec.key).collect());
    unique(KEYS.iter().map(|spec| spec.variable).chain(OTHER_VARIABLES.iter().map(|(name, _)| *name)).collect());
    unique(KEYS.iter().map(|spec| spec.flag).filter(|flag| !flag.is_empty()).collect());
    assert!(KEYS.iter().all(|spec| spec.variable.starts_with("WASMHOST_")));
}

#[test]
fn the_effective_configuration_lists_every_key_of_the_table_in_its_order() {
    let config = Config::load(&silent()).unwrap();
    let listed: Vec<&str> = config.settings.iter().map(|setting| setting.key).collect();
    assert_eq!(listed, KEYS.iter().map(|spec| spec.key).collect::<Vec<_>>());
}

#[test]
fn defaults_of_the_table_are_those_in_force() {
    let config = Config::load(&silent()).unwrap();
    for spec in KEYS {
        let value = &config.setting(spec.key).unwrap().value;
        // Defaults that depend on the machine are told in words.
        let is_words = spec.default.contains(' ') || ["none", "empty"].contains(&spec.default);
        assert!(
            is_words || value == spec.default,
            "{}: {value} is in force, the table says {}",
            spec.key,
            spec.default
        );
    }
}
