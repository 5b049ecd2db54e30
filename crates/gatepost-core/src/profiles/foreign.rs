//! Ids and times as other systems write them. Every id here is another spelling of one of ours, so that
//! nothing has to be kept to find it again.

use uuid::Uuid;

use crate::{DeliveryId, DeliverySeq, TenantId, Timestamp};

const BASE62: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A big-endian number in base 62, `width` digits; bytes that do not fit are lost.
pub(super) fn base62(bytes: &[u8], width: usize) -> String {
    let mut number = bytes.to_vec();
    let mut digits = vec![b'0'; width];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut number {
            let value = rest << 8 | u32::from(*byte);
            // Below 256: the rest was below 62.
            *byte = (value / 62) as u8;
            rest = value % 62;
        }
        *digit = BASE62[rest as usize];
    }
    digits.into_iter().map(char::from).collect()
}

/// The `N` bytes a base-62 number of any width has; `None`: other characters, or it is larger.
pub(super) fn from_base62<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut number = [0_u8; N];
    for character in text.bytes() {
        let mut carry = BASE62.iter().position(|c| *c == character)?;
        for byte in number.iter_mut().rev() {
            let value = usize::from(*byte) * 62 + carry;
            *byte = (value & 0xff) as u8;
            carry = value >> 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

/// A time with exactly this many fractional digits (at most six).
pub(super) fn fixed(at: Timestamp, digits: usize) -> String {
    let mut text = Timestamp::from_secs(at.as_secs()).to_string();
    // Always printed with `Z`.
    text.pop();
    let micros = format!("{:06}", at.as_micros().rem_euclid(1_000_000));
    format!("{text}.{}Z", &micros[..digits.min(6)])
}

/// What stands for a tenant where a system knows only UUIDs: always the same for the same id.
pub(super) fn tenant_uuid(tenant: &TenantId) -> Uuid {
    Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("urn:gatepost:tenant:{tenant}").as_bytes())
}

/// A text that is to be a UUID: itself if it is one, else one made of it within the tenant.
pub(super) fn uuid_of(tenant: &TenantId, text: &str) -> Uuid {
    match hyphenated(text) {
        Some(uuid) => uuid,
        None => Uuid::new_v5(&tenant_uuid(tenant), text.as_bytes()),
    }
}

/// A UUID in its usual form: a long hexadecimal number is none.
pub(super) fn hyphenated(text: &str) -> Option<Uuid> {
    Some(text).filter(|text| text.len() == 36).and_then(|text| Uuid::try_parse(text).ok())
}

/// A delivery's id as a UUID of version 7: its time, and its number where chance would be.
pub(super) fn uuid_of_delivery(id: DeliveryId) -> Uuid {
    let bytes = id.to_bytes();
    let (mut millis, mut number) = ([0; 8], [0; 8]);
    millis[2..].copy_from_slice(&bytes[..6]);
    number.copy_from_slice(&bytes[8..]);
    // Numbers begin at 1 and grow by one: they never reach 62 bits.
    let low = u64::from_be_bytes(number) & (u64::MAX >> 2);
    Uuid::from_u64_pair(u64::from_be_bytes(millis) << 16 | 0x7000, 1 << 63 | low)
}

/// The delivery a UUID of [`uuid_of_delivery`] means.
pub(super) fn delivery_of_uuid(uuid: Uuid) -> Option<DeliveryId> {
    let (high, low) = uuid.as_u64_pair();
    let millis = i64::try_from(high >> 16).ok()?;
    let number = i64::try_from(low & (u64::MAX >> 2)).ok()?;
    let id = DeliveryId::new(Timestamp::from_millis(millis), DeliverySeq(number));
    (uuid_of_delivery(id) == uuid).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_have_the_digits_asked_for() {
        for (time, six, three) in [
            ("2023-06-06T08:49:33.075265Z", "2023-06-06T08:49:33.075265Z", "2023-06-06T08:49:33.075Z"),
            ("2026-11-22T10:00:00Z", "2026-11-22T10:00:00.000000Z", "2026-11-22T10:00:00.000Z"),
            ("2026-11-22T10:00:00.5Z", "2026-11-22T10:00:00.500000Z", "2026-11-22T10:00:00.500Z"),
            ("1969-12-31T23:59:59.25Z", "1969-12-31T23:59:59.250000Z", "1969-12-31T23:59:59.250Z"),
        ] {
            let at = time.parse().unwrap();
            assert_eq!((fixed(at, 6).as_str(), fixed(at, 3).as_str()), (six, three));
        }
    }

    #[test]
    fn uuids_of_texts() {
        let (acme, other): (TenantId, TenantId) = ("acme".parse().unwrap(), "other".parse().unwrap());
        let given = "01992f00-7c4e-7aaa-8000-00000000abcd";
        assert_eq!(uuid_of(&acme, given).to_string(), given);
        assert_eq!(uuid_of(&acme, "u1"), uuid_of(&acme, "u1"));
        assert_ne!(uuid_of(&acme, "u1"), uuid_of(&other, "u1"));
        assert_ne!(uuid_of(&acme, "u1"), uuid_of(&acme, "u2"));
        assert_eq!(uuid_of(&acme, "u1").get_version_num(), 5);
        // 32 hexadecimal digits are a text like any other.
        assert_ne!(uuid_of(&acme, &"a".repeat(32)).to_string(), "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa");
    }

    proptest! {
        #[test]
        fn base62_survives_text(bytes in any::<[u8; 20]>()) {
            prop_assert_eq!(from_base62::<20>(&base62(&bytes, 27)), Some(bytes));
        }

        #[test]
        fn a_deliverys_uuid_means_it(millis in 0i64..(1 << 47), seq in 1i64..(1 << 61)) {
            let id = DeliveryId::new(Timestamp::from_millis(millis), DeliverySeq(seq));
            let uuid = uuid_of_delivery(id);
            prop_assert_eq!(uuid.get_version_num(), 7);
            prop_assert_eq!(delivery_of_uuid(uuid), Some(id));
        }

        #[test]
        fn any_uuid_is_read_without_panic(bits in any::<u128>()) {
            let uuid = Uuid::from_u128(bits);
            if let Some(id) = delivery_of_uuid(uuid) {
                prop_assert_eq!(uuid_of_delivery(id), uuid);
            }
        }
    }

    #[test]
    fn numbers_too_large_are_refused() {
        assert_eq!(from_base62::<1>("47"), Some([255]));
        assert_eq!(from_base62::<1>("48"), None);
        assert_eq!(from_base62::<2>("a-b"), None);
    }
}
