use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn payload(include: Option<&[&str]>, exclude: Option<&[&str]>) -> Payload {
    let owned = |list: &[&str]| list.iter().map(|p| p.to_string()).collect();
    Payload { mode: PayloadMode::Full, include: include.map(owned), exclude: exclude.map(owned) }
}

fn cut(data: &str, include: Option<&[&str]>, exclude: Option<&[&str]>) -> String {
    let data = Bytes::copy_from_slice(data.as_bytes());
    let bytes = match Cut::compile(&payload(include, exclude)).unwrap() {
        Some(cut) => cut.apply(&data).unwrap(),
        None => data,
    };
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_is_left_out_and_what_keeps_its_bytes() {
    let data = r#"{ "user" : {"id": 1.00,"email":"a@b" , "n": 2e400}, "meta":[1, 2 ,3],"x":null }"#;
    type Pointers<'a> = Option<&'a [&'a str]>;
    let cases: [(Pointers<'_>, Pointers<'_>, &str); 19] = [
        (None, Some(&["/user/email"]), r#"{"user" : {"id": 1.00,"n": 2e400},"meta":[1, 2 ,3],"x":null}"#),
        (None, Some(&["/user"]), r#"{"meta":[1, 2 ,3],"x":null}"#),
        (None, Some(&["/meta/1"]), r#"{"user" : {"id": 1.00,"email":"a@b" , "n": 2e400},"meta":[1,3],"x":null}"#),
        (None, Some(&["/user/id", "/user/email", "/user/n"]), r#"{"user" : {},"meta":[1, 2 ,3],"x":null}"#),
        // Nothing is found: the text itself.
        (None, Some(&["/nobody", "/user/id/deeper", "/meta/9", "/meta/-", "/meta/01"]), data),
        (None, Some(&[]), data),
        (None, Some(&[""]), "null"),
        (Some(&["/user/id"]), None, r#"{"user" : {"id": 1.00}}"#),
        (Some(&["/user"]), None, r#"{"user" : {"id": 1.00,"email":"a@b" , "n": 2e400}}"#),
        (Some(&["/meta/0", "/meta/2"]), None, r#"{"meta":[1,3]}"#),
        (Some(&["/x"]), None, r#"{"x":null}"#),
        (Some(&[""]), None, data),
        (
            Some(&["/user", "/meta", "/x"]),
            None,
            r#"{"user" : {"id": 1.00,"email":"a@b" , "n": 2e400},"meta":[1, 2 ,3],"x":null}"#,
        ),
        (Some(&["/user/nobody"]), None, "{}"),
        (Some(&["/nobody"]), None, "{}"),
        (Some(&[]), None, "{}"),
        // What is excluded is excluded, however it is included.
        (Some(&["/user"]), Some(&["/user/email"]), r#"{"user" : {"id": 1.00,"n": 2e400}}"#),
        (Some(&["/user/email"]), Some(&["/user"]), "{}"),
        (Some(&["/user/email"]), Some(&["/user/email"]), "{}"),
    ];
    for (include, exclude, expected) in cases {
        let out = cut(data, include, exclude);
        assert_eq!(out, expected, "{include:?} {exclude:?}");
        serde_json::from_str::<&serde_json::value::RawValue>(&out).unwrap();
    }
}

#[test]
fn names_compare_as_text_however_they_are_written() {
    let data = r#"{"a/b":1,"c~d":2,"\u0065":3,"e":4,"":5,"\ud800":6}"#;
    let without = |pointer: &str| cut(data, None, Some(&[pointer]));
    assert_eq!(without("/a~1b"), r#"{"c~d":2,"\u0065":3,"e":4,"":5,"\ud800":6}"#);
    assert_eq!(without("/c~0d"), r#"{"a/b":1,"\u0065":3,"e":4,"":5,"\ud800":6}"#);
    // Both spellings of one name go.
    assert_eq!(without("/e"), r#"{"a/b":1,"c~d":2,"":5,"\ud800":6}"#);
    assert_eq!(without("/"), r#"{"a/b":1,"c~d":2,"\u0065":3,"e":4,"\ud800":6}"#);
}

#[test]
fn values_that_are_no_containers() {
    for data in ["null", " 7 ", "\"text\"", "true", "-1.5e3"] {
        assert_eq!(cut(data, None, Some(&["/a"])), data);
        assert_eq!(cut(data, Some(&["/a"]), None), "null");
        assert_eq!(cut(data, Some(&[""]), None), data);
    }
    assert_eq!(cut(" [ ] ", Some(&["/a"]), None), "[]");
    assert_eq!(cut("{}", None, Some(&["/a"])), "{}");
}

#[test]
fn thin_sends_nothing_and_no_rule_cuts_nothing() {
    let thin = Payload { mode: PayloadMode::Thin, ..payload(Some(&["/a"]), None) };
    assert_eq!(Cut::compile(&thin).unwrap().unwrap().apply(&Bytes::from_static(b"{\"a\":1}")), None);
    assert!(Cut::compile(&Payload::default()).unwrap().is_none());
    assert!(Cut::compile(&payload(None, Some(&[]))).unwrap().is_none());
}

#[test]
fn what_is_no_json_is_kept_back() {
    let by = Cut::compile(&payload(None, Some(&["/a/b"]))).unwrap().unwrap();
    for broken in ["{", "{\"a\":", "{\"a\":{\"b\"", "[1,", "\"abc", "", "{\"a\" 1}", "}", "{\"a\":{\"b\":1 \"c\":2}}"] {
        assert_eq!(by.apply(&Bytes::from_static(broken.as_bytes())).unwrap(), "null", "{broken}");
    }
}

#[test]
fn pointers_follow_rfc_6901() {
    assert_eq!(tokens(""), Ok(vec![]));
    assert_eq!(tokens("/"), Ok(vec![String::new()]));
    assert_eq!(tokens("/a~1b/m~0n/~01"), Ok(vec!["a/b".into(), "m~n".into(), "~1".into()]));
    assert_eq!(tokens("a"), Err(BadPointer::Slash));
    assert_eq!(tokens("/a~"), Err(BadPointer::Tilde));
    assert_eq!(tokens("/a~2"), Err(BadPointer::Tilde));
    assert_eq!(tokens(&format!("/{}", "a".repeat(POINTER_MAX))), Err(BadPointer::Long));
}

/// The rules said again, over values.
fn judge(value: &Value, path: &str, include: Option<&[String]>, exclude: &[String], included: bool) -> Option<Value> {
    let included = included || include.is_none_or(|list| list.iter().any(|p| p == path));
    if exclude.iter().any(|p| p == path) {
        return None;
    }
    let below = format!("{path}/");
    let down = include.into_iter().flatten().chain(exclude).any(|p| p.starts_with(&below));
    let kept: Value = match value {
        Value::Object(members) if down => members
            .iter()
            .filter_map(|(n, v)| Some((n.clone(), judge(v, &format!("{path}/{n}"), include, exclude, included)?)))
            .collect::<serde_json::Map<_, _>>()
            .into(),
        Value::Array(items) if down => items
            .iter()
            .enumerate()
            .filter_map(|(i, v)| judge(v, &format!("{path}/{i}"), include, exclude, included))
            .collect::<Vec<_>>()
            .into(),
        _ => return included.then(|| value.clone()),
    };
    let empty = kept.as_object().map_or_else(|| kept.as_array().is_some_and(Vec::is_empty), |m| m.is_empty());
    (included || !empty).then_some(kept)
}

fn values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        "[ -~é\"\\\\]{0,6}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[abc]", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn pointers() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec("(/[abc012]){1,3}", 0..4)
}

proptest! {
    #[test]
    fn cutting_texts_is_cutting_values(
        value in values(),
        include in prop::option::of(pointers()),
        exclude in pointers(),
        pretty in any::<bool>(),
    ) {
        let text = if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() };
        let rules = Payload { mode: PayloadMode::Full, include: include.clone(), exclude: Some(exclude.clone()) };
        let data = Bytes::from(text);
        let out = match Cut::compile(&rules).unwrap() {
            Some(cut) => cut.apply(&data).unwrap(),
            None => data.clone(),
        };
        let read: Value = serde_json::from_slice(&out).unwrap();
        let expected = judge(&value, "", include.as_deref(), &exclude, false).unwrap_or(match &value {
            Value::Object(_) => json!({}),
            Value::Array(_) => json!([]),
            _ => Value::Null,
        });
        prop_assert_eq!(&read, &expected);
        if expected == value && !pretty {
            prop_assert_eq!(out, data);
        }
    }

    #[test]
    fn any_text_is_cut_without_panic(text in ".{0,40}", tricky in "[{}\\[\\]\",:\\\\a1 ]{0,30}") {
        let by = Cut::compile(&payload(Some(&["/a/0"]), Some(&["/a/1"]))).unwrap().unwrap();
        let _ = by.apply(&Bytes::from(text));
        let _ = by.apply(&Bytes::from(tricky));
    }
}
