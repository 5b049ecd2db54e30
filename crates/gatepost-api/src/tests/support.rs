//! For tests: files of `docs/` that are made from the source.

use std::path::{Path, PathBuf};

/// Compares `docs/{name}` with what it should be; with `UPDATE_DOCS` set, writes it.
pub(crate) fn same_or_update(name: &str, wanted: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, wanted).unwrap();
    }
    let present = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(present == wanted, "docs/{name} is not up to date: run UPDATE_DOCS=1 cargo nextest run -p gatepost-api");
}

/// Every source file below `folder`, with its text.
pub(crate) fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).unwrap();
            found.push((path, text));
        }
    }
    found
}
