//! What is particular to SQLite; the rest is in `conformance`.

mod durability;
mod erasure;
mod groups;
mod paging;
mod scale;
mod upgrade_health;
mod upgrade_hooks;
mod upgrade_jobs;
mod upgrade_trace;
mod upgrade_types;
mod upgrade_waiting;
mod waiting;

mod inline {
    use std::sync::Arc;

    use crate::{SqliteStore, Store};

    fn open() -> (Arc<dyn Store>, ()) {
        (Arc::new(SqliteStore::open_inline().unwrap()), ())
    }

    crate::conformance_tests!(open);
}

mod threads {
    use std::sync::Arc;

    use tempfile::TempDir;

    use crate::sqlite::Options;
    use crate::{SqliteStore, Store};

    fn open() -> (Arc<dyn Store>, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        (Arc::new(SqliteStore::open(folder.path(), Options::default()).unwrap()), folder)
    }

    crate::conformance_tests!(open);
}
