//! Named values that change together.

use std::sync::Arc;

use crate::{MetaSwap, Store};

fn swap(name: &str, from: &str, to: &str) -> MetaSwap {
    MetaSwap { name: name.into(), from: from.into(), to: to.into() }
}

/// See the name.
pub async fn named_values_are_swapped_together_or_not_at_all(store: Arc<dyn Store>) {
    store.set_meta("a", b"1").await.unwrap();
    store.set_meta("b", b"2").await.unwrap();
    for wrong in [
        vec![swap("a", "1", "3"), swap("b", "x", "4")],
        vec![swap("a", "x", "3"), swap("b", "2", "4")],
        vec![swap("a", "1", "3"), swap("none", "", "4")],
    ] {
        assert!(!store.swap_meta(wrong).await.unwrap());
        assert_eq!(store.meta("a").await.unwrap().unwrap(), b"1");
        assert_eq!(store.meta("b").await.unwrap().unwrap(), b"2");
        assert_eq!(store.meta("none").await.unwrap(), None);
    }
    assert!(store.swap_meta(vec![swap("a", "1", "3"), swap("b", "2", "4")]).await.unwrap());
    assert_eq!(store.meta("a").await.unwrap().unwrap(), b"3");
    assert_eq!(store.meta("b").await.unwrap().unwrap(), b"4");
}
