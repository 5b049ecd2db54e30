//! The catalogue of event types: data, not an enum.
//!
//! What is built in lives in `catalogue/*.json`, one file per system; what operators and tenants
//! declare is added by the store. A type needs no entry to be published.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::event::{EventType, Urgency};
use crate::schema::SchemaText;

/// What is declared about an event type.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EventTypeDefinition {
    /// The group it is listed under; usually its first segment.
    pub family: String,
    /// One line for people.
    #[serde(default)]
    pub description: String,
    /// An example of `data`, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub example: Option<Box<RawValue>>,
    /// Examples by system, of a built-in type that systems share, where theirs look otherwise.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub examples: BTreeMap<String, Box<RawValue>>,
    /// A JSON Schema of `data`, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Arc<RawValue>>,
    /// How much its events hurry unless they say otherwise.
    #[serde(default)]
    pub urgency: Urgency,
    /// Whether it should no longer be used.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deprecated: bool,
}

impl PartialEq for EventTypeDefinition {
    /// Raw JSON compares by its bytes: it is kept as given.
    fn eq(&self, other: &Self) -> bool {
        fn text(raw: Option<&RawValue>) -> Option<&str> {
            raw.map(RawValue::get)
        }
        fn texts(all: &BTreeMap<String, Box<RawValue>>) -> impl Iterator<Item = (&str, &str)> {
            all.iter().map(|(system, example)| (system.as_str(), example.get()))
        }
        self.family == other.family
            && self.description == other.description
            && text(self.example.as_deref()) == text(other.example.as_deref())
            && text(self.schema.as_deref()) == text(other.schema.as_deref())
            && texts(&self.examples).eq(texts(&other.examples))
            && self.urgency == other.urgency
            && self.deprecated == other.deprecated
    }
}

impl EventTypeDefinition {
    /// The example of `data` as a system has it.
    pub fn example_for(&self, system: &str) -> Option<&RawValue> {
        self.examples.get(system).or(self.example.as_ref()).map(|example| &**example)
    }
}

/// The real sample event of Cryptr's documentation, its three trailing commas removed.
pub const CRYPTR_SAMPLE_EVENT: &str = include_str!("../fixtures/cryptr_event.json");
/// The same as printed there: no JSON, because of the three trailing commas.
pub const CRYPTR_SAMPLE_EVENT_BROKEN: &str = include_str!("../fixtures/cryptr_event_broken.txt");

/// A type Gatepost knows without being told.
#[derive(Clone, Debug)]
pub struct BuiltinType {
    /// Its name.
    pub name: EventType,
    /// Which system it comes from, by the name of its file: `gatepost` (the default identity set),
    /// `own`, `cryptr`, `ferriskey`, `cymmetri`, `okta`.
    pub system: String,
    /// What is declared about it.
    pub definition: EventTypeDefinition,
    /// Its schema to be enforced, one for all types that have it.
    pub schema: Option<Arc<SchemaText>>,
}

/// A file of the catalogue.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    system: String,
    /// Types of this system that another file declares under the same name, and its own examples of them.
    #[serde(default)]
    shares: BTreeMap<EventType, Box<RawValue>>,
    /// Types that are asked as a point and never published as an event.
    #[serde(default)]
    points: Vec<EventType>,
    families: Vec<Family>,
}

/// The types of one family, with what they have in common.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Family {
    family: String,
    #[serde(default)]
    urgency: Urgency,
    example: Option<Box<RawValue>>,
    /// By its name in `schemas.json`.
    schema: Option<String>,
    types: BTreeMap<EventType, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    description: String,
    urgency: Option<Urgency>,
    example: Option<Box<RawValue>>,
    /// By its name in `schemas.json`.
    schema: Option<String>,
    #[serde(default)]
    deprecated: bool,
}

const FILES: [&str; 6] = [
    include_str!("../catalogue/identity.json"),
    include_str!("../catalogue/own.json"),
    include_str!("../catalogue/cryptr.json"),
    include_str!("../catalogue/ferriskey.json"),
    include_str!("../catalogue/cymmetri.json"),
    include_str!("../catalogue/okta.json"),
];

/// The schemas of what systems document, by name: one for many types.
const SCHEMAS: &str = include_str!("../catalogue/schemas.json");

/// What to say of a file that cannot be read.
const PART_OF_THE_PROGRAM: &str = "the catalogue's files are part of the program, and a test reads each of them";

struct Catalogue {
    types: Vec<BuiltinType>,
    by_name: HashMap<EventType, usize>,
    shares: Vec<(String, EventType)>,
    points: Vec<EventType>,
}

static CATALOGUE: LazyLock<Catalogue> = LazyLock::new(|| {
    let schemas: BTreeMap<String, Arc<RawValue>> = serde_json::from_str(SCHEMAS).expect(PART_OF_THE_PROGRAM);
    let schemas: BTreeMap<_, _> = schemas
        .into_iter()
        .map(|(name, schema)| {
            let text = Arc::new(SchemaText::new(schema.get()));
            (name, (schema, text))
        })
        .collect();
    let mut catalogue =
        Catalogue { types: Vec::new(), by_name: HashMap::new(), shares: Vec::new(), points: Vec::new() };
    for text in FILES {
        let file: File = serde_json::from_str(text).expect(PART_OF_THE_PROGRAM);
        catalogue.points.extend(file.points);
        for family in file.families {
            for (name, entry) in family.types {
                let schema = entry.schema.or_else(|| family.schema.clone());
                let schema = schema.map(|name| schemas.get(&name).expect(PART_OF_THE_PROGRAM));
                let definition = EventTypeDefinition {
                    family: family.family.clone(),
                    description: entry.description,
                    example: entry.example.or_else(|| family.example.clone()),
                    examples: BTreeMap::new(),
                    schema: schema.map(|(schema, _)| Arc::clone(schema)),
                    urgency: entry.urgency.unwrap_or(family.urgency),
                    deprecated: entry.deprecated,
                };
                catalogue.by_name.insert(name.clone(), catalogue.types.len());
                let schema = schema.map(|(_, text)| Arc::clone(text));
                catalogue.types.push(BuiltinType { name, system: file.system.clone(), definition, schema });
            }
        }
        // The files that declare what others share come first.
        for (name, example) in file.shares {
            let declared = *catalogue.by_name.get(&name).expect(PART_OF_THE_PROGRAM);
            catalogue.types[declared].definition.examples.insert(file.system.clone(), example);
            catalogue.shares.push((file.system.clone(), name));
        }
    }
    catalogue
});

/// Every built-in type, each name once: the default identity set first, then by system.
pub fn builtin() -> impl Iterator<Item = &'static BuiltinType> {
    CATALOGUE.types.iter()
}

/// The built-in type with this name.
pub fn find(name: &EventType) -> Option<&'static BuiltinType> {
    CATALOGUE.by_name.get(name).map(|i| &CATALOGUE.types[*i])
}

/// Every built-in type a system has, those it shares with the default identity set included.
pub fn of_system(system: &str) -> impl Iterator<Item = &'static BuiltinType> {
    let shared = CATALOGUE.shares.iter().filter(move |(of, _)| of == system).filter_map(|(_, name)| find(name));
    shared.chain(builtin().filter(move |t| t.system == system))
}

/// Whether a type can only be asked as a point: what it carries must not be stored, so publishing it
/// is refused (SETTLED, Events and types).
pub fn is_point_only(name: &EventType) -> bool {
    CATALOGUE.points.contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_built_in_type_is_sound() {
        let mut seen = BTreeSet::new();
        for BuiltinType { name, definition, .. } in builtin() {
            assert!(seen.insert(name.clone()), "{name} twice");
            assert_eq!(definition.family, name.family(), "{name}");
            let example = definition.example.as_deref().unwrap_or_else(|| panic!("{name} has no example"));
            serde_json::from_str::<serde_json::Value>(example.get()).unwrap();
            assert!(!example.get().contains('\n'), "{name}: examples are sent as written, so compact");
            assert!(definition.description.len() > 5 && definition.description.ends_with(['.', ')']), "{name}");
            assert_eq!(find(name).unwrap().name, *name);
        }
        for (system, name) in &CATALOGUE.shares {
            assert!(find(name).is_some_and(|t| t.system != *system), "{name}");
        }
    }

    /// Schemas are for documentation and for making types: they must be true of what is shown beside them.
    #[test]
    fn every_built_in_example_fits_its_schema() {
        let mut with_schema = BTreeSet::new();
        for shipped in builtin() {
            let Some(text) = &shipped.schema else { continue };
            let definition = &shipped.definition;
            assert_eq!(definition.schema.as_ref().unwrap().get(), text.text());
            let schema = text.compiled().unwrap_or_else(|error| panic!("{}: {error}", shipped.name));
            let violations = |data: &str| {
                schema.violations(data.as_bytes(), &mut crate::schema::SchemaBudget::of_publish()).unwrap()
            };
            for example in definition.example.iter().chain(definition.examples.values()) {
                assert_eq!(violations(example.get()), [], "{}: {example}", shipped.name);
                serde_json::from_str::<serde_json::Value>(example.get()).unwrap();
                assert!(!example.get().contains('\n'), "{}", shipped.name);
            }
            assert!(!violations(r#"{"severity":5,"a":1}"#).is_empty() || shipped.name.as_str() == "cymmetri.test");
            with_schema.insert(shipped.name.as_str());
        }
        let count = |system| of_system(system).filter(|t| with_schema.contains(t.name.as_str())).count();
        // Not documented: FerrisKey's SAML types and what a deleted credential looks like; Cryptr's SSO logins.
        assert_eq!((count("okta"), count("cymmetri"), count("ferriskey"), count("cryptr")), (314, 12, 34, 16));
    }

    #[test]
    fn ferriskeys_shared_types_have_its_own_shapes_too() {
        let shares: Vec<_> = CATALOGUE.shares.iter().filter(|(system, _)| system == "ferriskey").collect();
        assert_eq!(shares.len(), 9);
        for (_, name) in shares {
            let definition = &find(name).unwrap().definition;
            assert!(definition.examples.contains_key("ferriskey"), "{name}");
            assert_eq!(definition.example_for("okta").map(RawValue::get), definition.example.as_ref().map(|e| e.get()));
        }
        let of = |name: &str| {
            let definition = &find(&name.parse().unwrap()).unwrap().definition;
            serde_json::from_str::<serde_json::Value>(definition.example_for("ferriskey").unwrap().get()).unwrap()
        };
        assert_eq!(of("user.created")["username"], "ada");
        assert!(of("user.role.assigned")["permissions"].is_array() && of("auth.reset_password").is_null());
        let webhook = of("webhook.created");
        assert_eq!(webhook["subscribers"][0]["webhook_id"], webhook["id"]);
        assert!(webhook.get("headers").is_none() && webhook.get("secret").is_none());
    }

    #[test]
    fn the_four_systems_lists_are_complete() {
        let count = |system| of_system(system).count();
        assert_eq!(count("okta"), 314);
        assert_eq!(count("cymmetri"), 12);
        assert_eq!(count("ferriskey"), 38);
        assert_eq!(count("cryptr"), 18);
        assert!(count("gatepost") >= 40);
        let names: BTreeSet<_> = of_system("ferriskey").map(|t| t.name.as_str()).collect();
        let published = [
            "user.created",
            "user.updated",
            "user.deleted",
            "user.role.assigned",
            "user.role.unassigned",
            "user.bulk_deleted",
            "user.credentials.deleted",
            "auth.reset_password",
            "client.created",
            "client.updated",
            "client.deleted",
            "client.role.created",
            "client.role.updated",
            "redirect_uri.created",
            "redirect_uri.updated",
            "redirect_uri.deleted",
            "role.created",
            "role.updated",
            "role.deleted",
            "role.permission.updated",
            "realm.created",
            "realm.updated",
            "realm.deleted",
            "realm.settings.updated",
            "webhook.created",
            "webhook.updated",
            "webhook.deleted",
        ];
        assert_eq!(published.len(), 27);
        for name in published {
            assert!(names.contains(name), "{name}");
        }
        let own: BTreeSet<_> = of_system("own").map(|t| t.name.as_str()).collect();
        for name in ["gatepost.webhook.disabled", "gatepost.delivery.exhausted", "gatepost.hook.invocation.aborted"] {
            assert!(own.contains(name), "{name}");
        }
        assert!(own.iter().all(|name| name.starts_with("gatepost.")));
    }

    #[test]
    fn urgency_follows_the_design() {
        let urgency = |name: &str| find(&name.parse().unwrap()).unwrap().definition.urgency;
        for name in [
            "session.revoked",
            "user.deactivated",
            "user.deleted",
            "credential.password_changed",
            "user.lifecycle.deactivate",
            "user.session.clear",
            "dir_sync.user.deprovision.success",
        ] {
            assert_eq!(urgency(name), Urgency::Urgent, "{name}");
        }
        for name in ["import.completed", "user.imported", "system.import.start"] {
            assert_eq!(urgency(name), Urgency::Bulk, "{name}");
        }
        assert_eq!(urgency("user.created"), Urgency::Normal);
    }

    #[test]
    fn one_point_is_never_an_event() {
        assert!(is_point_only(&"cymmetri.changePassword".parse().unwrap()));
        assert!(!is_point_only(&"cymmetri.preProvision".parse().unwrap()));
    }

    #[test]
    fn the_sample_of_cryptrs_document_parses_once_repaired() {
        let event: serde_json::Value = serde_json::from_str(CRYPTR_SAMPLE_EVENT).unwrap();
        assert_eq!(event.as_object().unwrap().len(), 9);
        assert_eq!(event["code"], "dir_sync.user.update.success");
        assert!(serde_json::from_str::<serde_json::Value>(CRYPTR_SAMPLE_EVENT_BROKEN).is_err());
        let squeezed = |text: &str| text.split_whitespace().collect::<String>();
        let (good, broken) = (squeezed(CRYPTR_SAMPLE_EVENT), squeezed(CRYPTR_SAMPLE_EVENT_BROKEN));
        assert_eq!(broken.len(), good.len() + 3);
        assert_eq!(broken.replace(",}", "}"), good);
        let example = find(&"dir_sync.user.update.success".parse().unwrap()).unwrap().definition.example.clone();
        let example: serde_json::Value = serde_json::from_str(example.unwrap().get()).unwrap();
        assert_eq!(example, event["data"]);
    }

    #[test]
    fn a_definition_is_kept_as_json() {
        for BuiltinType { name, definition, .. } in builtin() {
            let text = serde_json::to_string(definition).unwrap();
            assert_eq!(&serde_json::from_str::<EventTypeDefinition>(&text).unwrap(), definition, "{name}");
        }
    }
}
