//! Typed ids.
//!
//! Every id is a kind prefix and a 26-character, time-ordered suffix in lower-case Crockford
//! base 32 (128 bits: 48 of milliseconds, 80 of the rest).
//!
//! *Registered* things (webhooks, keys, jobs, ...) get 80 random bits. *Numbered* things (events,
//! deliveries, attempts) carry the number the store gave them, so that looking one up by its id is
//! a primary-key read and no index on ids has to be kept.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{Entropy, Timestamp};

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an id of the form {prefix}…")]
pub struct BadId {
    /// The prefix an id of this kind has.
    pub prefix: &'static str,
}

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SUFFIX_LEN: usize = 26;
const MILLIS_BITS: u32 = 48;
const MILLIS_MASK: u64 = (1 << MILLIS_BITS) - 1;

fn encode(value: u128) -> [u8; SUFFIX_LEN] {
    let mut out = [0; SUFFIX_LEN];
    let mut rest = value;
    for slot in out.iter_mut().rev() {
        *slot = ALPHABET[(rest & 31) as usize];
        rest >>= 5;
    }
    out
}

fn decode(text: &str) -> Option<u128> {
    if text.len() != SUFFIX_LEN {
        return None;
    }
    let mut value: u128 = 0;
    for byte in text.bytes() {
        // The first character holds only three bits; shifting out the others would alias ids.
        if value >> 123 != 0 {
            return None;
        }
        let digit = ALPHABET.iter().position(|a| *a == byte)?;
        value = value << 5 | digit as u128;
    }
    Some(value)
}

fn millis_of(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis()).unwrap_or(0) & MILLIS_MASK
}

fn write_id(f: &mut fmt::Formatter<'_>, prefix: &str, value: u128) -> fmt::Result {
    f.write_str(prefix)?;
    let suffix = encode(value);
    // The alphabet is ASCII.
    f.write_str(std::str::from_utf8(&suffix).unwrap_or_default())
}

fn parse_id(s: &str, prefix: &'static str) -> Result<u128, BadId> {
    s.strip_prefix(prefix).and_then(decode).ok_or(BadId { prefix })
}

macro_rules! text_form {
    ($name:ident) => {
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(d)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

macro_rules! registered_id {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u128);

        impl $name {
            /// The prefix of this kind, with its underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id: `at` and 80 random bits.
            pub fn new(at: Timestamp, entropy: &(impl Entropy + ?Sized)) -> Self {
                let mut random = [0; 16];
                entropy.fill(&mut random[6..]);
                Self(u128::from(millis_of(at)) << 80 | u128::from_be_bytes(random))
            }

            /// The 16 bytes behind the text.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_be_bytes()
            }

            /// From the 16 bytes behind the text.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(u128::from_be_bytes(bytes))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_id(f, Self::PREFIX, self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(s: &str) -> Result<Self, BadId> {
                parse_id(s, Self::PREFIX).map(Self)
            }
        }

        text_form!($name);
    };
}

registered_id!(
    /// A tenant's registration: where, which events, how.
    WebhookId, "wh_"
);
registered_id!(
    /// An API credential.
    KeyId, "key_"
);
registered_id!(
    /// A piece of work that outlives its request (replay, erasure).
    JobId, "job_"
);
registered_id!(
    /// A tenant's registration on a blocking point.
    HookId, "hook_"
);
registered_id!(
    /// One blocking question.
    InvocationId, "inv_"
);
registered_id!(
    /// An inbound registration.
    SourceId, "src_"
);

/// The number the store gave an event. Numbers grow in commit order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct EventSeq(pub i64);

/// The number the store gave a delivery. Numbers grow in commit order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct DeliverySeq(pub i64);

/// The store's own number for a tenant. A tenant deleted and made again gets a new one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct TenantKey(pub i64);

/// The store's own number for a webhook.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct WebhookKey(pub i64);

/// An event's id: the caller's own text, or `evt_…` from time and number.
///
/// Grammar: `[A-Za-z0-9_:@~+=/-]{1,128}`. No dot, because Standard Webhooks signs `id.timestamp.body`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Arc<str>);

/// Why a text is not an event id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 128 characters of A-Z a-z 0-9 _ : @ ~ + = / - (no dot)")]
pub struct BadEventId;

impl EventId {
    /// The prefix of ids we make, with its underscore.
    pub const PREFIX: &'static str = "evt_";

    /// The id of event number `seq`, accepted `at`.
    pub fn numbered(at: Timestamp, seq: EventSeq) -> Self {
        let value = u128::from(millis_of(at)) << 80 | u128::from(seq.0 as u64);
        let mut text = String::with_capacity(Self::PREFIX.len() + SUFFIX_LEN);
        text.push_str(Self::PREFIX);
        text.push_str(std::str::from_utf8(&encode(value)).unwrap_or_default());
        EventId(text.into())
    }

    /// The number inside, when the text has the form of an id we make. The caller may have chosen
    /// such a text too: compare the found event's id before trusting it.
    pub fn as_numbered(&self) -> Option<EventSeq> {
        let value = parse_id(&self.0, Self::PREFIX).ok()?;
        let low = value & ((1 << 80) - 1);
        i64::try_from(low).ok().map(EventSeq)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for EventId {
    type Err = BadEventId;

    fn from_str(s: &str) -> Result<Self, BadEventId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_:@~+=/-".contains(&b);
        if (1..=128).contains(&s.len()) && s.bytes().all(allowed) { Ok(EventId(s.into())) } else { Err(BadEventId) }
    }
}

text_form!(EventId);

/// A delivery's id: when it was made, and its number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryId {
    millis: u64,
    seq: DeliverySeq,
}

impl DeliveryId {
    /// The prefix, with its underscore.
    pub const PREFIX: &'static str = "dlv_";

    /// The id of delivery number `seq`, made `at`.
    pub fn new(at: Timestamp, seq: DeliverySeq) -> Self {
        DeliveryId { millis: millis_of(at), seq }
    }

    /// The store's number.
    pub fn seq(self) -> DeliverySeq {
        self.seq
    }

    /// The 16 bytes behind the text: 6 of milliseconds, 10 of the number.
    pub fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.millis) << 80 | u128::from(self.seq.0 as u64)).to_be_bytes()
    }

    /// Whether this is the id of a delivery made `at`: guards against numbers that were guessed.
    pub fn made_at(self, at: Timestamp) -> bool {
        self.millis == millis_of(at)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_id(f, Self::PREFIX, u128::from(self.millis) << 80 | u128::from(self.seq.0 as u64))
    }
}

impl FromStr for DeliveryId {
    type Err = BadId;

    fn from_str(s: &str) -> Result<Self, BadId> {
        let value = parse_id(s, Self::PREFIX)?;
        let seq = i64::try_from(value & ((1 << 80) - 1)).map_err(|_| BadId { prefix: Self::PREFIX })?;
        Ok(DeliveryId { millis: (value >> 80) as u64, seq: DeliverySeq(seq) })
    }
}

text_form!(DeliveryId);

/// An attempt's id: its delivery's, and which attempt it was (from 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptId {
    delivery: DeliveryId,
    number: u16,
}

impl AttemptId {
    /// The prefix, with its underscore.
    pub const PREFIX: &'static str = "att_";

    /// The id of attempt `number` (from 1) of `delivery`.
    pub fn new(delivery: DeliveryId, number: u32) -> Self {
        AttemptId { delivery, number: u16::try_from(number).unwrap_or(u16::MAX) }
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = u128::from(self.delivery.millis) << 80
            | u128::from(self.number) << 64
            | u128::from(self.delivery.seq.0 as u64);
        write_id(f, Self::PREFIX, value)
    }
}

/// A tenant's id, chosen by the caller: `[a-z0-9][a-z0-9._-]{0,63}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TenantId(Box<str>);

/// Why a text is not a tenant id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 64 characters of a-z 0-9 . _ - and begin with a letter or digit")]
pub struct BadTenantId;

impl TenantId {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TenantId {
    type Err = BadTenantId;

    fn from_str(s: &str) -> Result<Self, BadTenantId> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let mut bytes = s.bytes();
        let starts = bytes.next().is_some_and(plain);
        if starts && s.len() <= 64 && bytes.all(|b| plain(b) || b"._-".contains(&b)) {
            Ok(TenantId(s.into()))
        } else {
            Err(BadTenantId)
        }
    }
}

text_form!(TenantId);

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Ones;
    impl Entropy for Ones {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(0xff);
        }
    }

    proptest! {
        #[test]
        fn numbered_ids_survive_text(millis in 0i64..(1 << 47), seq in 1i64..i64::MAX) {
            let at = Timestamp::from_millis(millis);
            let id = DeliveryId::new(at, DeliverySeq(seq));
            let back: DeliveryId = id.to_string().parse().unwrap();
            prop_assert_eq!(back, id);
            prop_assert!(back.made_at(at));
            prop_assert_eq!(EventId::numbered(at, EventSeq(seq)).as_numbered(), Some(EventSeq(seq)));
        }

        #[test]
        fn any_text_is_parsed_without_panic(text in ".{0,40}") {
            let _ = text.parse::<WebhookId>();
            let _ = text.parse::<DeliveryId>();
            let _ = text.parse::<EventId>().map(|id| id.as_numbered());
            let _ = text.parse::<TenantId>();
        }

        #[test]
        fn later_ids_sort_later(a in 0i64..(1 << 47), b in 0i64..(1 << 47), x in 1i64..1000, y in 1i64..1000) {
            let one = DeliveryId::new(Timestamp::from_millis(a), DeliverySeq(x));
            let two = DeliveryId::new(Timestamp::from_millis(b), DeliverySeq(y));
            prop_assert_eq!(one.to_string().cmp(&two.to_string()), (a, x).cmp(&(b, y)));
        }
    }

    #[test]
    fn registered_ids_have_the_promised_form() {
        let id = WebhookId::new(Timestamp::from_secs(1_700_000_000), &Ones);
        let text = id.to_string();
        assert_eq!(text.len(), 3 + 26);
        assert_eq!(text.parse::<WebhookId>(), Ok(id));
        assert_eq!(WebhookId::from_bytes(id.to_bytes()), id);
        assert!(text.parse::<KeyId>().is_err());
        // 26 characters could hold 130 bits: two texts must never mean one id.
        assert!("wh_zzzzzzzzzzzzzzzzzzzzzzzzzz".parse::<WebhookId>().is_err());
    }

    #[test]
    fn tenant_and_event_id_grammars() {
        for good in ["a", "acme", "acme.eu-1_x", "0"] {
            assert!(good.parse::<TenantId>().is_ok(), "{good}");
        }
        for bad in ["", "Acme", "-a", ".a", "a b", "ü", &"a".repeat(65)] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad}");
        }
        for good in ["1", "evt:1/2+3=4@x~y-z_w", &"a".repeat(128)] {
            assert!(good.parse::<EventId>().is_ok(), "{good}");
        }
        for bad in ["", "a.b", "a b", "é", &"a".repeat(129), "a\n"] {
            assert!(bad.parse::<EventId>().is_err(), "{bad}");
        }
    }
}
