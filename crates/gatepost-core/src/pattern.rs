//! Event patterns: which types a webhook asks for.
//!
//! `all` or `*` (every type but Gatepost's own), `family.*` or `family.all` (every type below a
//! prefix, on segment boundaries of any depth), or one exact type (DESIGN 3.2, SETTLED).

use std::collections::HashSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::event::{BadEventType, EventType, is_segment};

/// One member of a webhook's `events`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum EventPattern {
    /// `all` or `*`: every type but those of the family `gatepost`.
    All,
    /// `p.*` or `p.all`: every type that begins with `p` and a dot. Holds `p`.
    Below(Arc<str>),
    /// One type.
    Exact(EventType),
}

/// Why a text is not an [`EventPattern`], and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPattern(String);

impl EventPattern {
    /// Whether an event of this type is asked for.
    pub fn matches(&self, event_type: &EventType) -> bool {
        match self {
            EventPattern::All => !event_type.is_own(),
            EventPattern::Below(prefix) => {
                event_type.as_str().strip_prefix(&**prefix).is_some_and(|rest| rest.starts_with('.'))
            }
            EventPattern::Exact(exact) => exact == event_type,
        }
    }
}

impl EventPattern {
    fn prefix(&self) -> Option<&Arc<str>> {
        match self {
            EventPattern::Below(prefix) => Some(prefix),
            EventPattern::All | EventPattern::Exact(_) => None,
        }
    }
}

impl FromStr for EventPattern {
    type Err = BadPattern;

    fn from_str(s: &str) -> Result<Self, BadPattern> {
        if s == "all" || s == "*" {
            return Ok(EventPattern::All);
        }
        if let Some(prefix) = s.strip_suffix(".*").or_else(|| s.strip_suffix(".all")) {
            if prefix.len() <= 126 && prefix.split('.').all(is_segment) {
                return Ok(EventPattern::Below(prefix.into()));
            }
        } else if !s.contains('*') {
            return s.parse().map(EventPattern::Exact).map_err(|e: BadEventType| BadPattern(e.to_string()));
        }
        Err(BadPattern(explain(s)))
    }
}

/// What is wrong with a pattern that holds a star or ends in `.all`.
fn explain(s: &str) -> String {
    let body = s.strip_suffix(".*").or_else(|| s.strip_suffix(".all")).unwrap_or(s);
    if body.split('.').any(|segment| segment == "*") {
        return "* can only be the last segment, as in \"user.*\"; to select on another part of the type, \
                subscribe to \"*\" and use filter"
            .into();
    }
    if let Some(stem) = body.strip_suffix('*')
        && !stem.is_empty()
        && stem.split('.').all(is_segment)
    {
        return format!(
            "* stands for whole segments only: write \"{stem}.*\" for everything below {stem}, or list the types"
        );
    }
    "must be \"*\", \"family.*\" or an event type: dot-separated segments of A-Z a-z 0-9 _ -, at most 128 characters"
        .into()
}

impl fmt::Display for EventPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EventPattern::All => f.write_str("*"),
            EventPattern::Below(prefix) => write!(f, "{prefix}.*"),
            EventPattern::Exact(exact) => fmt::Display::fmt(exact, f),
        }
    }
}

/// Everything a webhook asks for.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PatternSet(Box<[EventPattern]>);

impl PatternSet {
    /// Reads every text; on failure, each bad one with its position.
    pub fn parse<S: AsRef<str>>(texts: &[S]) -> Result<Self, Vec<(usize, BadPattern)>> {
        let (mut good, mut bad) = (Vec::with_capacity(texts.len()), Vec::new());
        for (i, text) in texts.iter().enumerate() {
            match text.as_ref().parse() {
                Ok(pattern) => good.push(pattern),
                Err(e) => bad.push((i, e)),
            }
        }
        if bad.is_empty() { Ok(PatternSet(good.into())) } else { Err(bad) }
    }

    /// Whether any pattern asks for this type.
    pub fn matches(&self, event_type: &EventType) -> bool {
        self.0.iter().any(|pattern| pattern.matches(event_type))
    }

    /// These patterns and one more.
    #[must_use]
    pub fn with(&self, pattern: EventPattern) -> Self {
        PatternSet(self.0.iter().cloned().chain([pattern]).collect())
    }

    /// The patterns, as given.
    pub fn iter(&self) -> impl Iterator<Item = &EventPattern> {
        self.0.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut EventPattern> {
        self.0.iter_mut()
    }

    /// A set that asks for the same types by as few patterns as that takes: no type is asked for by two
    /// of them. Those left stay in their order.
    #[must_use]
    pub fn reduced(self) -> Self {
        if self.0.len() < 2 {
            return self;
        }
        let all = self.0.contains(&EventPattern::All);
        let below: HashSet<Arc<str>> = self.0.iter().filter_map(EventPattern::prefix).cloned().collect();
        let mut seen = HashSet::new();
        let needed = |pattern: &EventPattern| {
            let text = match pattern {
                EventPattern::All => "*",
                EventPattern::Below(prefix) => prefix,
                EventPattern::Exact(exact) => exact.as_str(),
            };
            if *pattern == EventPattern::All {
                return true;
            }
            let own = text.split('.').next() == Some(EventType::OWN_FAMILY);
            let wider = text.match_indices('.').any(|(dot, _)| below.contains(&text[..dot]));
            !wider && (own || !all)
        };
        let kept = self.0.iter().filter(|pattern| needed(pattern) && seen.insert(*pattern)).cloned().collect();
        PatternSet(kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, event_type: &str) -> bool {
        pattern.parse::<EventPattern>().unwrap().matches(&event_type.parse().unwrap())
    }

    #[test]
    fn the_table_of_patterns() {
        let cases = [
            ("*", "user.created", true),
            ("all", "user", true),
            ("*", "gatepost.webhook.created", false),
            ("all", "gatepost", false),
            ("*", "gatepostx.a", true),
            ("gatepost.*", "gatepost.webhook.created", true),
            ("gatepost.all", "gatepost.secret.rotated", true),
            ("gatepost.webhook.*", "gatepost.webhook.created", true),
            ("gatepost.secret.rotated", "gatepost.secret.rotated", true),
            ("user.*", "user.created", true),
            ("user.all", "user.role.assigned", true),
            ("user.*", "user", false),
            ("user.*", "users.created", false),
            ("dir_sync.user.all", "dir_sync.user.update.success", true),
            ("dir_sync.user.all", "dir_sync.users.update.success", false),
            ("dir_sync.all", "dir_syncx.user.update", false),
            ("user.created", "user.created", true),
            ("user.created", "user.created.late", false),
            ("user.created", "User.created", false),
        ];
        for (pattern, event_type, expected) in cases {
            assert_eq!(matches(pattern, event_type), expected, "{pattern} on {event_type}");
        }
    }

    #[test]
    fn bad_patterns_say_what_to_write_instead() {
        let cases = [
            ("*.created", "last segment"),
            ("user.*.created", "last segment"),
            ("*.*", "last segment"),
            ("*.all", "last segment"),
            ("us*", "\"us.*\""),
            ("user.cre*", "\"user.cre.*\""),
            ("**", "must be"),
            ("", "must be"),
            (".*", "must be"),
            (".all", "must be"),
            ("user..*", "must be"),
            ("us er.*", "must be"),
            ("user.", "must be"),
            ("ALL*x", "must be"),
        ];
        for (pattern, part) in cases {
            let message = pattern.parse::<EventPattern>().unwrap_err().to_string();
            assert!(message.contains(part), "{pattern}: {message}");
        }
        let bad = PatternSet::parse(&["user.*", "us*", "x", "*.a"]).unwrap_err();
        assert_eq!(bad.iter().map(|(i, _)| *i).collect::<Vec<_>>(), [1, 3]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic_and_survives_printing(text in "[a-z.*é ]{0,12}") {
            if let Ok(pattern) = text.parse::<EventPattern>() {
                prop_assert_eq!(pattern.to_string().parse::<EventPattern>().unwrap(), pattern);
            }
        }

        #[test]
        fn a_reduced_set_asks_for_the_same_and_for_nothing_twice(
            texts in proptest::collection::vec("(\\*|all|[ab](\\.[ab]){0,2}(\\.\\*)?|gatepost(\\.a)?(\\.\\*)?)", 0..6),
            name in "([ab](\\.[ab]){0,3}|gatepost(\\.[ab]){0,2})",
        ) {
            let given = PatternSet::parse(&texts).unwrap();
            let reduced = given.clone().reduced();
            let event_type: EventType = name.parse().unwrap();
            let asking = reduced.iter().filter(|pattern| pattern.matches(&event_type)).count();
            prop_assert_eq!(asking, usize::from(given.matches(&event_type)), "{:?} of {:?}", reduced, given);
        }

        #[test]
        fn below_is_the_same_as_comparing_segments(prefix in "[ab](\\.[ab]){0,2}", name in "[ab](\\.[ab]){0,4}") {
            let pattern: EventPattern = format!("{prefix}.*").parse().unwrap();
            let event_type: EventType = name.parse().unwrap();
            let (p, n): (Vec<_>, Vec<_>) = (prefix.split('.').collect(), name.split('.').collect());
            prop_assert_eq!(pattern.matches(&event_type), n.len() > p.len() && n.starts_with(&p));
        }
    }
}
