//! What somebody meant who wrote something else.

/// Characters of a text that is looked at: the cost grows with their square.
const LONGEST: usize = 128;

/// The one of `names` that `text` is most likely a slip of: a letter left out, added, changed or swapped, more of
/// them the longer it is. `None`: it is like none.
pub fn nearest<'n>(text: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let length = text.chars().count();
    if length > LONGEST {
        return None;
    }
    let most = (length / 5).clamp(1, 3);
    names
        .into_iter()
        .filter(|name| name.chars().count().abs_diff(length) <= most)
        .map(|name| (strsim::osa_distance(text, name), name))
        .filter(|(distance, _)| *distance <= most)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_other_words_are_not() {
        let names = ["user.created", "user.deleted", "user.updated", "group.created"];
        assert_eq!(nearest("user.craeted", names), Some("user.created"));
        assert_eq!(nearest("user.create", names), Some("user.created"));
        assert_eq!(nearest("group.createdd", names), Some("group.created"));
        assert_eq!(nearest("order.placed", names), None);
        assert_eq!(nearest("", names), None);
        assert_eq!(nearest(&"a".repeat(10_000), names), None);
    }
}
