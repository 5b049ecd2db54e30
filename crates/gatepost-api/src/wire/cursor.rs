//! Cursors: opaque to callers, versioned, and good for the list they came from only.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The form's version; a cursor of another version is refused, never misread.
const VERSION: u8 = 1;

/// Which list a cursor belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub(crate) enum List {
    /// Tenants.
    Tenants = 1,
    /// Keys.
    Keys = 2,
    /// A tenant's webhooks.
    Webhooks = 3,
    /// A tenant's events, newest first.
    Events = 4,
    /// A tenant's events as a feed.
    Feed = 5,
    /// A tenant's deliveries.
    Deliveries = 6,
    /// The catalogue, by name.
    EventTypes = 7,
    /// A tenant's blocking hooks.
    Hooks = 20,
    /// A tenant's blocking points.
    Points = 21,
    /// A tenant's invocations.
    Invocations = 22,
    /// A tenant's jobs.
    Jobs = 8,
    /// Who was told about a person.
    Told = 9,
    /// A tenant's setup: webhooks.
    SetupWebhooks = 40,
    /// A tenant's setup: event types.
    SetupTypes = 41,
    /// A tenant's setup: hooks.
    SetupHooks = 42,
    /// A tenant's setup: points.
    SetupPoints = 43,
}

/// FNV-1a: finds damage and cursors of another tenant. No protection against forgery is needed:
/// a made-up position shows nothing its maker could not list.
fn checksum(parts: [&[u8]; 3]) -> [u8; 4] {
    let hash = parts
        .into_iter()
        .flatten()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
    hash.to_be_bytes()
}

/// The cursor for `position` in `list` of `owner` (a tenant's number; 0 for the installation's lists).
pub(crate) fn encode(list: List, owner: i64, position: &[u8]) -> String {
    let head = [VERSION, list as u8];
    let sum = checksum([&head, &owner.to_be_bytes(), position]);
    URL_SAFE_NO_PAD.encode([&head, &sum[..], position].concat())
}

/// The cursor for a numbered position.
pub(crate) fn encode_number(list: List, owner: i64, position: i64) -> String {
    encode(list, owner, &position.to_be_bytes())
}

/// The position a cursor stands for; `None`: damaged, or another list's.
pub(crate) fn decode(text: &str, list: List, owner: i64) -> Option<Vec<u8>> {
    if text.len() > 512 {
        return None;
    }
    let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
    let (head, rest) = bytes.split_at_checked(2)?;
    let (sum, position) = rest.split_at_checked(4)?;
    let right = head == [VERSION, list as u8] && sum == checksum([head, &owner.to_be_bytes(), position]);
    right.then(|| position.to_vec())
}

/// The numbered position a cursor stands for.
pub(crate) fn decode_number(text: &str, list: List, owner: i64) -> Option<i64> {
    decode(text, list, owner)?.try_into().ok().map(i64::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_survive_text_and_nothing_else(position in any::<i64>(), owner in any::<i64>()) {
            let cursor = encode_number(List::Events, owner, position);
            prop_assert_eq!(decode_number(&cursor, List::Events, owner), Some(position));
            prop_assert_eq!(decode_number(&cursor, List::Feed, owner), None);
            prop_assert_eq!(decode_number(&cursor, List::Events, owner.wrapping_add(1)), None);
        }

        #[test]
        fn a_changed_character_is_noticed(position in any::<i64>(), at in 0usize..18, to in "[A-Za-z0-9_-]") {
            let cursor = encode_number(List::Events, 7, position);
            let mut changed = cursor.clone();
            changed.replace_range(at..at + 1, &to);
            if changed != cursor {
                prop_assert_eq!(decode_number(&changed, List::Events, 7), None);
            }
        }

        #[test]
        fn any_text_is_no_panic(text in ".{0,80}") {
            let _ = decode(&text, List::Tenants, 0);
        }
    }
}
