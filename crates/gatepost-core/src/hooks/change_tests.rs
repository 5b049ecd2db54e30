use super::*;
use crate::hooks::json::json;
use proptest::prelude::*;

fn at(text: &str) -> Pointer {
    text.parse().unwrap()
}

fn places(texts: &[&str]) -> MayChange {
    MayChange::places(texts.iter().map(|text| at(text)).collect())
}

fn applied(object: Value, proposed: Value, mode: ReplaceMode, may: &MayChange) -> Result<(Value, Vec<String>), String> {
    let proposal = Proposal { at: Pointer::root(), value: proposed };
    apply(&object, &Lifted::default(), proposal, mode, may, &[], true)
        .map(|a| (a.object, a.changes.iter().map(|c| c.pointer.to_string()).collect()))
        .map_err(|place| place.to_string())
}

#[test]
fn merge_keeps_what_is_omitted_and_null_removes() {
    let all = places(&[""]);
    let object = || json!({"user":{"a":1,"b":{"c":2,"d":[1,2]},"n":null},"x":9});
    let rows = [
        (json!({}), object(), vec![]),
        (json!({"user":{"a":2}}), json!({"user":{"a":2,"b":{"c":2,"d":[1,2]},"n":null},"x":9}), vec!["/user/a"]),
        (json!({"user":{"b":{"c":null}}}), json!({"user":{"a":1,"b":{"d":[1,2]},"n":null},"x":9}), vec!["/user/b/c"]),
        (
            json!({"user":{"b":{"d":[3]}}}),
            json!({"user":{"a":1,"b":{"c":2,"d":[3]},"n":null},"x":9}),
            vec!["/user/b/d"],
        ),
        (
            json!({"user":{"b":null,"e":"n"}}),
            json!({"user":{"a":1,"n":null,"e":"n"},"x":9}),
            vec!["/user/b", "/user/e"],
        ),
        // What comes back as it went out is no change, however it is written.
        (json!({"x":9.0,"user":{"n":null,"b":{"d":[1.0,2],"c":2},"a":1}}), object(), vec![]),
        (json!({"gone":null}), object(), vec![]),
    ];
    for (proposed, object_after, changed) in rows {
        let (after, places) = applied(object(), proposed.clone(), ReplaceMode::Merge, &all).unwrap();
        assert!(same(&after, &object_after), "{proposed}: {after}");
        assert_eq!(places, changed, "{proposed}");
    }
}

#[test]
fn replace_removes_what_is_omitted_only_where_it_speaks() {
    let all = places(&[""]);
    let object = json!({"user":{"a":1,"b":2},"x":9});
    let (after, places) = applied(object.clone(), json!({"user":{"a":1}}), ReplaceMode::Replace, &all).unwrap();
    assert_eq!((after, places), (json!({"user":{"a":1}}), vec!["/user/b".to_owned(), "/x".to_owned()]));
    let proposal = Proposal { at: at("/user"), value: json!({"a":1}) };
    let part = apply(&object, &Lifted::default(), proposal, ReplaceMode::Replace, &all, &[], true).unwrap();
    assert_eq!(part.object, json!({"user":{"a":1},"x":9}));
}

#[test]
fn a_forbidden_change_refuses_the_whole_answer() {
    let object = || json!({"user":{"login":"a","city":"x","address":{"street":"s"}},"username":"u"});
    let rows: [(&[&str], Value, Result<(), &str>); 12] = [
        (&["/user"], json!({"user":{"login":"b"}}), Ok(())),
        (&["/user"], json!({"username":"v"}), Err("/username")),
        (&["/user/city"], json!({"user":{"city":"y"}}), Ok(())),
        (&["/user/city"], json!({"user":{"city":"y","login":"b"}}), Err("/user/login")),
        (&["/user/city"], json!({"user":null}), Err("/user")),
        (&["/user/address/street"], json!({"user":{"address":{"street":"t"}}}), Ok(())),
        (&["/user/address/street"], json!({"user":{"address":{"zip":1}}}), Err("/user/address/zip")),
        (&["/user/address/street"], json!({"user":{"address":"s"}}), Err("/user/address")),
        (&["/user/office/city"], json!({"user":{"office":{"city":"c"}}}), Ok(())),
        (&["/user/office/city"], json!({"user":{"office":{"city":"c","zip":1}}}), Err("/user/office/zip")),
        (&["/user/office/city"], json!({"user":{"office":{}}}), Err("/user/office")),
        (&[], json!({"user":{"city":"x"}}), Ok(())),
    ];
    for (allowed, proposed, expected) in rows {
        let result = applied(object(), proposed.clone(), ReplaceMode::Merge, &places(allowed));
        assert_eq!(result.map(drop), expected.map_err(str::to_owned), "{allowed:?} {proposed}");
    }
}

#[test]
fn the_default_of_mutators_keeps_names_powers_and_ways_in() {
    let may = MayChange::user_without_powers();
    let object = json!({"user":{"login":"a","assignedGroups":[],"provisionedApps":{},"city":"x"}});
    for (proposed, expected) in [
        (json!({"user":{"city":"y","new":{"deep":1}}}), Ok(())),
        (json!({"user":{"login":"b"}}), Err("/user/login")),
        (json!({"user":{"login":null}}), Err("/user/login")),
        (json!({"user":{"assignedGroups":["admins"]}}), Err("/user/assignedGroups")),
        (json!({"user":{"provisionedApps":{"erp":1}}}), Err("/user/provisionedApps/erp")),
        // Taking the user away takes its login away.
        (json!({"user":null}), Err("/user/login")),
        (json!({"user":"nobody"}), Err("/user/login")),
        (json!({"other":1}), Err("/other")),
        // Nothing differs, so nothing is forbidden.
        (json!({"user":{"login":"a","assignedGroups":[]}}), Ok(())),
    ] {
        let result = applied(object.clone(), proposed.clone(), ReplaceMode::Merge, &may);
        assert_eq!(result.map(drop), expected.map_err(str::to_owned), "{proposed}");
    }
}

#[test]
fn p7_secret_members_change_only_by_those_who_saw_them_and_may() {
    let secret_at = at("/user/securityQuestion");
    let mut object = json!({"user":{"city":"x","securityQuestion":{"pet":"Rex the dog"}}});
    let lifted = Lifted::lift(&mut object, std::slice::from_ref(&secret_at));
    let run = |proposed: Value, mode, may: &MayChange, shown| {
        let proposal = Proposal { at: at("/user"), value: proposed };
        apply(&object, &lifted, proposal, mode, may, std::slice::from_ref(&secret_at), shown)
    };
    let (default, all) = (MayChange::user_without_powers(), places(&["/user"]));
    let kept = |a: &Applied| a.secrets == lifted && a.changes.iter().all(|c| c.pointer != secret_at);
    // Not shown: an empty one, a null or none at all means nothing.
    for blank in
        [json!({"city":"y"}), json!({"city":"y","securityQuestion":{}}), json!({"city":"y","securityQuestion":null})]
    {
        for mode in [ReplaceMode::Merge, ReplaceMode::Replace] {
            assert!(kept(&run(blank.clone(), mode, &default, false).unwrap()), "{blank}");
        }
    }
    let other = json!({"securityQuestion":{"pet":"Tom the cat"}});
    assert_eq!(run(other.clone(), ReplaceMode::Merge, &default, true).unwrap_err(), secret_at);
    assert_eq!(run(other.clone(), ReplaceMode::Merge, &default, false).unwrap_err(), secret_at);
    let changed = run(other, ReplaceMode::Merge, &all, true).unwrap();
    assert_eq!(changed.secrets.get(&secret_at).unwrap().expose(), &json!({"pet":"Tom the cat"}));
    assert_eq!(
        changed.changes,
        [Change { pointer: secret_at.clone(), before: Some(Value::Null), after: Some(Value::Null) }]
    );
    assert!(!format!("{changed:?}").contains("Tom"));
    // Shown and given back is no change; shown and left out of a replacement is.
    assert!(kept(
        &run(json!({"city":"x","securityQuestion":{"pet":"Rex the dog"}}), ReplaceMode::Replace, &default, true)
            .unwrap()
    ));
    assert_eq!(run(json!({"city":"x"}), ReplaceMode::Replace, &default, true).unwrap_err(), secret_at);
    assert!(run(json!({"securityQuestion":null}), ReplaceMode::Merge, &all, true).unwrap().secrets.is_empty());
}

#[test]
fn the_patch_says_the_same() {
    assert_eq!(
        json!(patch(&json!({"user":{"a":1,"b":2}}), &json!({"user":{"a":3,"c":{"d":1}}}))),
        json!([
            {"op":"replace","path":"/user/a","value":3},
            {"op":"remove","path":"/user/b"},
            {"op":"add","path":"/user/c","value":{"d":1}},
        ])
    );
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3i64..3).prop_map(Value::from),
        "[ab]{0,2}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-d]", inner, 0..4)
                .prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Value> {
    proptest::collection::btree_map("[a-d]", value(), 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
}

/// RFC 6902, as far as [`patch`] uses it.
fn patched(mut document: Value, ops: &[PatchOp]) -> Value {
    for op in ops {
        match op {
            PatchOp::Add { path, value } | PatchOp::Replace { path, value } if *path == Pointer::root() => {
                document = value.clone();
            }
            PatchOp::Add { path, value } | PatchOp::Replace { path, value } => {
                path.insert(&mut document, value.clone()).unwrap();
            }
            PatchOp::Remove { path } => drop(path.remove(&mut document).unwrap()),
        }
    }
    document
}

proptest! {
    #[test]
    fn merging_a_document_into_itself_changes_nothing(a in object()) {
        prop_assert_eq!(diff(&a, &merge(&a, &a)), []);
    }

    #[test]
    fn merging_twice_is_merging_once(a in object(), p in object()) {
        let once = merge(&a, &p);
        // A null that met no member the first time meets none the second.
        prop_assert!(same(&merge(&once, &p), &once) || diff(&once, &merge(&once, &p)).iter().all(|c| c.after.is_none()));
    }

    #[test]
    fn members_a_merge_does_not_name_are_kept(a in object(), p in object()) {
        let after = merge(&a, &p);
        for (name, value) in a.as_object().unwrap() {
            if !p.as_object().unwrap().contains_key(name) {
                prop_assert_eq!(after.get(name), Some(value));
            }
        }
    }

    #[test]
    fn the_difference_is_empty_exactly_for_what_is_the_same(a in value(), b in value()) {
        prop_assert_eq!(diff(&a, &b).is_empty(), same(&a, &b));
        prop_assert_eq!(diff(&a, &b).len(), diff(&b, &a).len());
    }

    #[test]
    fn the_patch_leads_from_one_to_the_other(a in object(), b in object()) {
        prop_assert!(same(&patched(a.clone(), &patch(&a, &b)), &b));
    }

    #[test]
    fn what_is_let_through_lies_inside_what_is_allowed(a in object(), p in object(), allowed in "/[a-d](/[a-d])?") {
        let may = places(&[&allowed]);
        if let Ok((after, _)) = applied(a.clone(), p, ReplaceMode::Merge, &may) {
            // With the allowed place taken out of both, and containers made only to hold it, nothing differs.
            let without = |mut v: Value| { at(&allowed).remove(&mut v); v };
            let (a, after) = (without(a), without(after));
            let outside = diff(&a, &after);
            prop_assert!(outside.iter().all(|c| c.pointer.covers(&at(&allowed)) && c.before.is_none()
                && c.after.as_ref().is_some_and(is_empty)), "{outside:?}");
        }
    }
}

#[test]
fn p6_what_no_value_holds_passes_and_is_compared_exactly() {
    let read = |text: &str| crate::hooks::json::parse_strict(text.as_bytes()).unwrap();
    let object = r#"{"user":{"big":12345678901234567890123,"country":"x","odd":"\ud83d","out":1e400,"\ud83d":1}}"#;
    let apply = |proposed: &str, mode, may: &[&str]| {
        applied(read(object), read(proposed), mode, &places(may)).map(|(object, changed)| (object.to_string(), changed))
    };
    let changed = object.replace("\"x\"", "\"y\"");
    for mode in [ReplaceMode::Merge, ReplaceMode::Replace] {
        assert_eq!(apply(object, mode, &[]), Ok((object.to_owned(), vec![])));
        assert_eq!(apply(&changed, mode, &["/user/country"]), Ok((changed.clone(), vec!["/user/country".to_owned()])));
        let off_by_one = object.replace("0123", "0124");
        assert_eq!(apply(&off_by_one, mode, &["/user/country"]), Err("/user/big".to_owned()));
        assert_eq!(apply(&object.replace("1e400", "1e401"), mode, &[]), Err("/user/out".to_owned()));
        // What has no name can be neither taken away nor put there.
        assert_eq!(apply(&object.replace(r#","\ud83d":1"#, ""), mode, &[""]), Ok((object.to_owned(), vec![])));
        assert_eq!(
            apply(&object.replace(r#","\ud83d":1"#, r#","\ud83e":1"#), mode, &[""]),
            Ok((object.to_owned(), vec![]))
        );
    }
    let hidden = r#"{"new":{"allowed":1,"\ud83d":2}}"#;
    assert_eq!(apply(hidden, ReplaceMode::Merge, &["/new/allowed"]), Err("/new".to_owned()));
    let found = patch(&read(object), &read(&object.replace("1e400", "1e401")));
    let written = serde_json::to_string(&found).unwrap();
    assert_eq!(written, r#"[{"op":"replace","path":"/user/out","value":1e401}]"#);
    assert_eq!(serde_json::from_str::<Vec<PatchOp>>(&written).unwrap(), found);
}
