use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn violations(schema: &Value, data: &Value) -> Vec<Violation> {
    let schema = Schema::compile(&schema.to_string()).unwrap_or_else(|error| panic!("{schema}: {error}"));
    schema.violations(data.to_string().as_bytes(), &mut SchemaBudget::of_publish()).unwrap()
}

fn library() -> jsonschema::ValidationOptions<'static> {
    jsonschema::options().with_pattern_options(jsonschema::PatternOptions::regex()).should_validate_formats(false)
}

#[test]
fn violations_name_the_member_and_not_its_value() {
    let schema =
        json!({"type":"object","required":["id"],"properties":{"id":{"type":"string"},"age":{"minimum":0},"~/":false}});
    assert_eq!(violations(&schema, &json!({"id":"u1","age":3})), []);
    let bad = violations(&schema, &json!({"id":"u1","age":-5432, "~/": 1}));
    assert_eq!(bad.iter().map(|v| v.pointer.as_str()).collect::<Vec<_>>(), ["/age", "/~0~1"]);
    assert_eq!(bad[0].message, "breaks the schema of the event type: must be at least 0");
    assert_eq!(violations(&schema, &json!({}))[0].pointer, "");
    assert_eq!(violations(&schema, &json!([])).len(), 1);
    let many = violations(&json!({"items":{"type":"string"}}), &json!(vec![0; 500]));
    assert_eq!(many.len(), REPORTED);
}

#[test]
fn every_part_of_a_schema_is_explained_where_it_breaks() {
    for (schema, data, place) in [
        (json!({"$ref":"#/$defs/a","$defs":{"a":{"properties":{"x":{"const":1}}}}}), json!({"x":2}), "/x"),
        (json!({"allOf":[true,{"items":{"maximum":1}}]}), json!([1, 2]), "/1"),
        (json!({"if":{"required":["a"]},"then":{"properties":{"b":false}}}), json!({"a":1,"b":2}), "/b"),
        (json!({"dependentSchemas":{"a":{"properties":{"b":{"type":"null"}}}}}), json!({"a":1,"b":2}), "/b"),
        (json!({"properties":{"a":true},"unevaluatedProperties":false}), json!({"a":1,"b":2}), "/b"),
        (json!({"prefixItems":[true],"unevaluatedItems":{"type":"null"}}), json!([1, 2]), "/1"),
        (json!({"anyOf":[{"type":"null"},{"type":"string"}]}), json!(1), ""),
        (json!({"propertyNames":{"maxLength":1}}), json!({"ab":1}), ""),
    ] {
        let found = violations(&schema, &data);
        assert_eq!(found.iter().map(|v| v.pointer.as_str()).collect::<Vec<_>>(), [place], "{schema}: {found:?}");
    }
}

#[test]
fn schemas_that_cannot_be_used_are_refused_at_write() {
    for bad in [
        r#"{"type":"strin"}"#,
        r#"{"$ref":"https://example.com/schema.json"}"#,
        r#"{"pattern":"("}"#,
        "7",
        r#"{"properties":[]}"#,
        r##"{"$ref":"#"}"##,
        r##"{"anyOf":[{"type":"null"},{"$ref":"#"}]}"##,
        r##"{"$ref":"#/$defs/none"}"##,
        r##"{"$ref":"#none"}"##,
        r#"{"properties":{"a":{"$id":"https://a.example/a"}}}"#,
        r#"{"$schema":"https://example.com/own"}"#,
        r#"{"multipleOf":0}"#,
        r#"{"minLength":-1}"#,
        r#"{"allOf":[]}"#,
        r#"{"items":[{}]}"#,
        "{",
    ] {
        assert!(Schema::compile(bad).is_err(), "{bad}");
    }
    for good in [
        "true",
        r##"{"$schema":"http://json-schema.org/draft-07/schema#","items":[{}],"$id":"#x"}"##,
        r#"{"$schema":"http://json-schema.org/draft-04/schema#","minimum":1,"exclusiveMinimum":true,"id":"a"}"#,
        r##"{"$id":"https://a.example/x","$defs":{"b/c":{"$anchor":"n"}},"anyOf":[{"$ref":"#/$defs/b~1c"},{"$ref":"#n"}]}"##,
        r##"{"$id":"https://a.example/x","properties":{"a":{"$ref":"https://a.example/x#/$defs/a"}},"$defs":{"a":{}}}"##,
        r##"{"properties":{"next":{"$ref":"#"},"format":{"format":"nonsense"}}}"##,
    ] {
        Schema::compile(good).unwrap_or_else(|error| panic!("{good}: {error}"));
        Schema::check(good).unwrap();
    }
}

/// What could be built to take the server down, with data to match.
fn attacks() -> Vec<(&'static str, String)> {
    let doubled = (0..27).map(|i| {
        let next = i + 1;
        format!(r##""d{i}":{{"allOf":[{{"$ref":"#/$defs/d{next}"}},{{"$ref":"#/$defs/d{next}"}}]}}"##)
    });
    let doubled: Vec<_> = doubled.collect();
    let both = |of: &str| {
        format!(r##"{{"{of}":[{{"properties":{{"a":{{"$ref":"#"}}}}}},{{"properties":{{"a":{{"$ref":"#"}}}}}}]"##)
    };
    let patterns: Vec<_> = (0..300).map(|i| format!(r#""p{i}":{{"pattern":"^(\\p{{L}}|{i}){{1,60}}$"}}"#)).collect();
    vec![
        ("any of itself twice", both("anyOf") + "}"),
        ("one of itself twice", both("oneOf") + "}"),
        ("all of itself twice, and what is left", both("allOf") + r#","unevaluatedProperties":false}"#),
        ("doubled 27 levels", format!(r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d27":{{}}}}}}"##, doubled.join(","))),
        ("three hundred patterns", format!(r#"{{"properties":{{{}}}}}"#, patterns.join(","))),
        (
            "a counted pattern",
            r#"{"items":{"pattern":"(a?){200}a{200}"},"properties":{"a":{"pattern":"x"}}}"#.to_owned(),
        ),
        ("unique", r#"{"uniqueItems":true,"contains":{"uniqueItems":true}}"#.to_owned()),
        (
            "what is left, at every level",
            r##"{"properties":{"a":{"$ref":"#"}},"anyOf":[{"$ref":"#/$defs/m"},{"$ref":"#/$defs/m"}],
               "unevaluatedProperties":{"$ref":"#"},"$defs":{"m":{"patternProperties":{"^a":{"$ref":"#"}}}}}"##
                .to_owned(),
        ),
        ("a thousand constants", format!(r#"{{"items":{{"enum":[{}]}}}}"#, vec!["1"; 1_000].join(","))),
        ("many ways", format!(r#"{{"allOf":[{}]}}"#, vec!["{\"type\":[]}"; 4_000].join(","))),
        ("deep", format!("{}true{}", r#"{"not":"#.repeat(100), "}".repeat(100))),
        ("long", format!(r#"{{"description":"{}"}}"#, "x".repeat(70_000))),
    ]
}

#[test]
fn p5_no_schema_costs_more_than_it_may_on_any_data() {
    let nested = |depth: usize| format!("{}0{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
    let data = [
        nested(40),
        nested(127),
        format!("[{}0]", "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\",".repeat(20_000)),
        format!("[{}0]", "0,".repeat(200_000)),
        format!("{{{}\"z\":0}}", (0..50_000).map(|i| format!("\"a{i}\":{{}},")).collect::<String>()),
        format!("\"{}\"", "a".repeat(1 << 20)),
    ];
    let (mut refused, mut ended, mut done) = (0, 0, 0);
    for (name, schema) in attacks() {
        let Ok(schema) = Schema::compile(&schema) else {
            refused += 1;
            continue;
        };
        assert!(schema.weight() < 2 << 20, "{name}");
        for data in &data {
            // So little that the test is quick, and more than any of them needs where it is linear.
            let mut budget = SchemaBudget::of(20_000_000);
            match schema.violations(data.as_bytes(), &mut budget) {
                Ok(_) => done += 1,
                Err(TooCostly) => ended += 1,
            }
        }
    }
    assert!(refused >= 4 && ended >= 4 && done >= 20, "{refused} refused, {ended} ended, {done} done");
}

#[test]
fn p5_what_refers_to_itself_twice_costs_what_it_would_once() {
    let once = r##"{"anyOf":[{"properties":{"a":{"$ref":"#"}}}]}"##;
    let twice =
        r##"{"anyOf":[{"properties":{"a":{"$ref":"#"}},"propertyNames":false},{"properties":{"a":{"$ref":"#"}}}]}"##;
    // The first branch is refused only after all below it was looked at.
    let data = format!("{}0{}", r#"{"a":"#.repeat(60), "}".repeat(60));
    let cost = |text: &str| {
        let schema = Schema::compile(text).unwrap();
        let fits = |cost: u64| schema.violations(data.as_bytes(), &mut SchemaBudget::of(cost)).is_ok();
        (0..18).map(|power| 1_000 << power).find(|cost| fits(*cost)).expect("within a quarter of a second")
    };
    assert!(cost(twice) <= 4 * cost(once), "{} {}", cost(twice), cost(once));
}

#[test]
fn deep_data_is_a_violation_and_no_crash() {
    let deep = [vec![b'['; 5_000], vec![b']'; 5_000]].concat();
    let schema = Schema::compile("{}").unwrap();
    assert_eq!(schema.violations(&deep, &mut SchemaBudget::of_publish()).unwrap().len(), 1);
    // As deep as it goes, on a stack half as large as the smallest there is.
    let chain = (0..50).map(|i| format!(r##""d{i}":{{"allOf":[{{"$ref":"#/$defs/d{}"}}]}}"##, i + 1));
    let text = format!(
        r##"{{"$ref":"#/$defs/d0","$defs":{{{},"d50":{{"not":{{"properties":{{"a":{{"not":{{"$ref":"#"}}}}}}}}}}}}}}"##,
        chain.collect::<Vec<_>>().join(",")
    );
    let run = move || {
        let schema = Schema::compile(&text);
        let data = format!("{}0{}", r#"{"a":"#.repeat(127), "}".repeat(127));
        schema.map(|schema| schema.violations(data.as_bytes(), &mut SchemaBudget::of_publish()))
    };
    let small = std::thread::Builder::new().stack_size(1 << 20).spawn(run).unwrap();
    assert!(matches!(small.join().unwrap(), Ok(Err(TooCostly)) | Err(_)));
}

#[test]
fn what_a_text_of_a_schema_compiles_to_is_kept_until_it_is_let_go() {
    let text = SchemaText::new(r#"{"type":"object"}"#);
    assert!(text.ready().is_none());
    let first = text.compiled().unwrap();
    assert!(Arc::ptr_eq(&first, &text.compiled().unwrap()) && text.ready().is_some());
    text.release();
    assert!(text.ready().is_none());
    assert!(SchemaText::new("7").compiled().is_err());
}

/// Keywords by draft, whose meaning changed.
#[test]
fn older_drafts_mean_what_they_meant() {
    let draft = |n: &str, mut schema: Value| {
        schema["$schema"] = json!(format!("http://json-schema.org/draft-0{n}/schema#"));
        schema
    };
    for (schema, data) in [
        (draft("4", json!({"minimum":1,"exclusiveMinimum":true})), json!(1)),
        (draft("7", json!({"items":[{"type":"string"}],"additionalItems":false})), json!(["a", 1])),
        (draft("7", json!({"dependencies":{"a":["b"],"c":{"required":["d"]}}})), json!({"a":1})),
        (draft("7", json!({"dependencies":{"a":["b"],"c":{"required":["d"]}}})), json!({"c":1})),
        (draft("7", json!({"definitions":{"x":{"$id":"#x","type":"null"}},"$ref":"#x","type":"string"})), json!("a")),
        (draft("6", json!({"contains":{"const":1}})), json!([2])),
    ] {
        assert!(!violations(&schema, &data).is_empty(), "{schema}");
        assert!(!library().build(&schema).unwrap().is_valid(&data), "{schema}");
    }
    assert_eq!(
        violations(&draft("7", json!({"$ref":"#/definitions/a","definitions":{"a":{}},"type":"string"})), &json!(1)),
        []
    );
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(|b| json!(b)),
        (-3i64..6).prop_map(|n| json!(n)),
        prop_oneof![Just(json!(1.0)), Just(json!(0.5)), Just(json!(-1.5)), Just(json!(1e300))],
        "[ab1é]{0,3}".prop_map(|s| json!(s)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(3, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
            prop::collection::btree_map("[abc]{1,2}", inner, 0..4).prop_map(|m| json!(m)),
        ]
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("a".to_owned()), Just("b".to_owned()), Just("ab".to_owned()), Just("c".to_owned())]
}

/// Any of the keywords, with subschemas out of `inner`.
fn keyword(inner: impl Strategy<Value = Value> + Clone + 'static) -> impl Strategy<Value = (&'static str, Value)> {
    let kind = prop::sample::select(vec!["null", "boolean", "object", "array", "number", "string", "integer"]);
    let list = |s: BoxedStrategy<Value>| prop::collection::vec(s, 1..3).prop_map(Value::Array).boxed();
    let map = |s: BoxedStrategy<Value>| prop::collection::btree_map(name(), s, 0..3).prop_map(|m| json!(m)).boxed();
    let names = || prop::collection::btree_set(name(), 0..3).prop_map(|s| json!(s));
    let one = inner.boxed();
    let pattern = prop::sample::select(vec!["^a", "b$", "^[a-z]+$", "\\d", "^.{1,2}$", "^(a|b)*$"]);
    let count = || (0u8..4).prop_map(|n| json!(n));
    let named = |name: &'static str, s: BoxedStrategy<Value>| s.prop_map(move |v| (name, v)).boxed();
    prop::strategy::Union::new(vec![
        named(
            "type",
            prop_oneof![
                kind.clone().prop_map(|k| json!(k)),
                prop::collection::btree_set(kind, 1..4).prop_map(|k| json!(k))
            ]
            .boxed(),
        ),
        named("enum", prop::collection::vec(value(), 1..4).prop_map(Value::Array).boxed()),
        named("const", value().boxed()),
        named("minimum", scalar().prop_filter("a number", Value::is_number).boxed()),
        named("maximum", (-1i64..4).prop_map(|n| json!(n)).boxed()),
        named("exclusiveMinimum", (-1i64..4).prop_map(|n| json!(n)).boxed()),
        named("exclusiveMaximum", (-1i64..4).prop_map(|n| json!(n)).boxed()),
        named("multipleOf", prop_oneof![Just(json!(2)), Just(json!(0.5))].boxed()),
        named("minLength", count().boxed()),
        named("maxLength", count().boxed()),
        named("minItems", count().boxed()),
        named("maxItems", count().boxed()),
        named("minProperties", count().boxed()),
        named("maxProperties", count().boxed()),
        named("pattern", pattern.clone().prop_map(|p| json!(p)).boxed()),
        named("uniqueItems", any::<bool>().prop_map(|b| json!(b)).boxed()),
        named("required", names().boxed()),
        named("dependentRequired", prop::collection::btree_map(name(), names(), 0..3).prop_map(|m| json!(m)).boxed()),
        named("allOf", list(one.clone())),
        named("anyOf", list(one.clone())),
        named("oneOf", list(one.clone())),
        named("not", one.clone()),
        named("if", one.clone()),
        named("then", one.clone()),
        named("else", one.clone()),
        named("dependentSchemas", map(one.clone())),
        named("prefixItems", list(one.clone())),
        named("items", one.clone()),
        named("contains", one.clone()),
        named("minContains", count().boxed()),
        named("maxContains", count().boxed()),
        named("properties", map(one.clone())),
        named(
            "patternProperties",
            prop::collection::btree_map(pattern, one.clone(), 0..3).prop_map(|m| json!(m)).boxed(),
        ),
        named("additionalProperties", one.clone()),
        named("propertyNames", one.clone()),
        named("unevaluatedItems", one.clone()),
        named("unevaluatedProperties", one.clone()),
        named("$ref", prop::sample::select(vec!["#/$defs/x", "#/$defs/y", "#y"]).prop_map(|r| json!(r)).boxed()),
    ])
}

fn subschema() -> impl Strategy<Value = Value> + Clone {
    let leaf = prop_oneof![4 => Just(json!({})), 1 => Just(json!(true)), 1 => Just(json!(false))];
    leaf.prop_recursive(4, 40, 4, |inner| {
        prop::collection::vec(keyword(inner), 0..4)
            .prop_map(|words| Value::Object(words.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()))
    })
}

/// A root with two definitions that are referred to; `y` refers to nothing, so nothing goes in circles.
fn root() -> impl Strategy<Value = Value> {
    let plain = subschema().prop_map(|schema| without_references(&schema));
    let seen = |y: &str| json!({"$ref": y});
    (subschema(), plain.clone(), plain).prop_map(move |(root, x, y)| {
        let mut root = if root.is_object() { root } else { json!({"allOf": [root]}) };
        let y = json!({"$anchor": "y", "allOf": [y]});
        root["$defs"] = json!({"x": {"anyOf": [x, seen("#y")]}, "y": y});
        root
    })
}

fn without_references(schema: &Value) -> Value {
    match schema {
        Value::Object(members) => {
            let members = members.iter().filter(|(name, _)| *name != "$ref");
            Value::Object(members.map(|(name, value)| (name.clone(), without_references(value))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(without_references).collect()),
        other => other.clone(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// A second opinion, on schemas and data that no person would write.
    #[test]
    fn the_library_agrees(schema in root(), data in prop::collection::vec(value(), 4)) {
        let Ok(other) = library().build(&schema) else { return Ok(()) };
        let own = Schema::compile(&schema.to_string());
        let own = own.map_err(|error| TestCaseError::fail(format!("{schema}: {error}")))?;
        for data in data {
            let found = own.violations(data.to_string().as_bytes(), &mut SchemaBudget::of_publish()).unwrap();
            prop_assert_eq!(found.is_empty(), other.is_valid(&data), "{} on {}: {:?}", schema, data, found);
        }
    }
}
