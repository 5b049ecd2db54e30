//! An event as a filter sees it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use cel::common::types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt};
use cel::common::value::{CowVal, Val};
use cel::context::VariableResolver;
use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use super::cost::{FilterBudget, TooCostly, of_conversion};
use crate::event::{EventType, Subject};
use crate::json::readable;
use crate::matching::MatchFacts;
use crate::profiles::FilterData;

type Boxed = Box<dyn Val>;

/// JSON as CEL values.
struct Converted {
    value: Boxed,
    /// The most members any array or object in it has.
    longest: usize,
}

/// One event's facts, its JSON converted when a filter first mentions it and then kept for the
/// other filters.
pub struct Facts<'a> {
    given: MatchFacts<'a>,
    /// What stands for `data`, where a format sends something else.
    as_sent: Option<Vec<u8>>,
    /// This event as the filters see it that judge what their format sends.
    shaped: Mutex<Vec<(FilterData, Arc<Facts<'a>>)>>,
    event_type: OnceLock<Boxed>,
    subject: OnceLock<Boxed>,
    data: OnceLock<Option<Converted>>,
    attributes: OnceLock<Option<Converted>>,
}

impl<'a> Facts<'a> {
    /// Facts about one event. Nothing is parsed yet.
    pub fn new(given: &MatchFacts<'a>) -> Self {
        Facts {
            given: *given,
            as_sent: None,
            shaped: Mutex::default(),
            event_type: OnceLock::new(),
            subject: OnceLock::new(),
            data: OnceLock::new(),
            attributes: OnceLock::new(),
        }
    }

    /// The same event with `data` as a format sends it; made once for all who ask, and paid for then.
    ///
    /// # Errors
    /// When that costs more than is left of `budget`.
    pub(crate) fn shaped_by(&self, shape: FilterData, budget: &mut FilterBudget) -> Result<Arc<Facts<'a>>, TooCostly> {
        let mut known = self.shaped.lock().unwrap_or_else(PoisonError::into_inner);
        // A function is itself; should the compiler make two of one, the event is converted twice.
        if let Some((_, facts)) = known.iter().find(|(of, _)| std::ptr::fn_addr_eq(*of, shape)) {
            return Ok(Arc::clone(facts));
        }
        budget.spend(of_conversion(shaped_size(self.size())))?;
        let facts = Arc::new(Facts { as_sent: Some(shape(&self.given)), ..Facts::new(&self.given) });
        known.push((shape, Arc::clone(&facts)));
        Ok(facts)
    }

    /// JSON of `data` as filters see it.
    fn json(&self) -> &[u8] {
        self.as_sent.as_deref().unwrap_or(self.given.data)
    }

    /// Bytes of everything a filter can look at.
    pub(crate) fn size(&self) -> usize {
        let subject = self.given.subject.map_or(0, |s| s.id.len() + s.kind.as_deref().map_or(0, str::len));
        let attributes = self.given.attributes.map_or(2, <[u8]>::len);
        self.json().len() + attributes + subject + self.given.event_type.as_str().len() + 32
    }

    /// The event's type.
    pub(crate) fn event_type(&self) -> &'a EventType {
        self.given.event_type
    }

    /// The most members any array or object has that a filter can look at. Converts the JSON.
    pub(super) fn longest(&self) -> usize {
        let of = |part: &Option<Converted>| part.as_ref().map_or(0, |c| c.longest);
        of(self.data()).max(of(self.attributes())).max(2)
    }

    fn data(&self) -> &Option<Converted> {
        self.data.get_or_init(|| convert(self.json()))
    }

    fn attributes(&self) -> &Option<Converted> {
        self.attributes.get_or_init(|| convert(self.given.attributes.unwrap_or(b"{}")))
    }
}

impl fmt::Debug for Facts<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Facts({})", self.given.event_type)
    }
}

impl VariableResolver for Facts<'_> {
    /// JSON that cannot be converted (too deep) is as if undeclared: an evaluation that needs it fails,
    /// one that does not goes on. A member no value holds is absent, and null in a list.
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        let value = match variable {
            "type" => self.event_type.get_or_init(|| text(self.given.event_type.as_str())),
            "subject" => self.subject.get_or_init(|| subject(self.given.subject)),
            "data" => &self.data().as_ref()?.value,
            "attributes" => &self.attributes().as_ref()?.value,
            _ => return None,
        };
        Some(CowVal::Borrowed(value.as_ref()))
    }
}

fn text(text: &str) -> Boxed {
    Box::new(CelString::from(text.to_owned()))
}

fn subject(subject: Option<&Subject>) -> Boxed {
    let Some(subject) = subject else { return Box::new(CelNull) };
    let mut members: HashMap<CelMapKey<'static>, Boxed> = HashMap::with_capacity(2);
    if let Some(kind) = &subject.kind {
        members.insert(CelMapKey::from("type"), text(kind));
    }
    members.insert(CelMapKey::from("id"), text(&subject.id));
    Box::new(CelMap::from(members))
}

/// Bytes of an event of so many once a format shaped its data, at most ([`FilterData`]).
pub(crate) fn shaped_size(bytes: usize) -> usize {
    2 * bytes + 2_048
}

/// `None` for what is not JSON within the parser's limits (128 levels).
fn convert(json: &[u8]) -> Option<Converted> {
    converted(json).or_else(|| converted(&readable(json)?))
}

fn converted(json: &[u8]) -> Option<Converted> {
    let mut longest = 0;
    let mut parser = serde_json::Deserializer::from_slice(json);
    let value = ToVal { longest: &mut longest }.deserialize(&mut parser).ok()?;
    parser.end().ok()?;
    Some(Converted { value, longest })
}

/// Builds CEL values straight from the parser: integers become `int` (`uint` or `double` where they
/// do not fit), other numbers `double`.
struct ToVal<'l> {
    longest: &'l mut usize,
}

impl<'de> DeserializeSeed<'de> for ToVal<'_> {
    type Value = Boxed;

    fn deserialize<D: Deserializer<'de>>(self, d: D) -> Result<Boxed, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ToVal<'_> {
    type Value = Boxed;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Boxed, E> {
        Ok(Box::new(CelNull))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Boxed, E> {
        Ok(Box::new(CelBool::from(value)))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Boxed, E> {
        Ok(Box::new(CelInt::from(value)))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Boxed, E> {
        Ok(match i64::try_from(value) {
            Ok(value) => Box::new(CelInt::from(value)),
            Err(_) => Box::new(CelUInt::from(value)),
        })
    }

    fn visit_f64<E>(self, value: f64) -> Result<Boxed, E> {
        Ok(Box::new(CelDouble::from(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Boxed, E> {
        Ok(text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Boxed, A::Error> {
        let mut list: Vec<Boxed> = Vec::new();
        while let Some(item) = items.next_element_seed(ToVal { longest: &mut *self.longest })? {
            list.push(item);
        }
        *self.longest = (*self.longest).max(list.len());
        Ok(Box::new(CelList::from(list)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Boxed, A::Error> {
        let mut map: HashMap<CelMapKey<'static>, Boxed> = HashMap::new();
        while let Some(name) = members.next_key::<String>()? {
            let value = members.next_value_seed(ToVal { longest: &mut *self.longest })?;
            map.insert(CelMapKey::from(name), value);
        }
        *self.longest = (*self.longest).max(map.len());
        Ok(Box::new(CelMap::from(map)))
    }
}
