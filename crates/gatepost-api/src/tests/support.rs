//! For tests: files of `docs/` that are made from the source.

use std::path::Path;

/// Compares `docs/{name}` with what it should be; with `UPDATE_DOCS` set, writes it.
pub(crate) fn same_or_update(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(present == wanted, "docs/{name} is not up to date: run UPDATE_DOCS=1 cargo nextest run -p gatepost-api");
}
