//! Documents that are made from the code.

use std::path::Path;

/// Compares a file of `docs/` with what the code says; with `UPDATE_DOCS` set it writes the file first.
///
/// # Panics
/// When they differ, with the first line that does.
pub fn assert_document(name: &str, made: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, made).expect("docs can be written");
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = found.lines().zip(made.lines()).find(|(found, made)| found != made);
    assert!(
        found == made,
        "docs/{name} is not what the code says; run the tests once with UPDATE_DOCS=1\nfirst difference: {differs:#?}"
    );
}
