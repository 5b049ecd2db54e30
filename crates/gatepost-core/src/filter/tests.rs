use proptest::prelude::*;

use super::*;
use crate::event::{EventType, Subject};

fn run_on(filter: &Filter, data: &[u8], attributes: Option<&[u8]>, subject: Option<&Subject>) -> FilterResult {
    let event_type: EventType = "user.created".parse().unwrap();
    filter.evaluate(&MatchFacts { event_type: &event_type, subject, data, attributes })
}

fn eval(source: &str, data: &str) -> FilterResult {
    run_on(&Filter::compile(source).unwrap(), data.as_bytes(), None, None)
}

fn refused(source: &str) -> FilterError {
    Filter::compile(source).map(|_| panic!("compiled: {source}")).unwrap_err()
}

use FilterResult::{Error, False, True};

#[test]
fn the_table_of_evaluations() {
    let data = r#"{"plan":"pro","n":3,"big":9223372036854775808,"huge":92233720368547758080,"half":0.5,"one":1.0,
        "neg":-4,"roles":[{"name":"admin"},{"name":"dev"}],"tags":["a","b"],"none":null,"yes":true,"text":"h\u00e9"}"#;
    let cases = [
        ("type == 'user.created'", True),
        ("type.startsWith('user.')", True),
        ("data.plan == 'pro' && data.n > 2", True),
        ("data.plan == \"free\"", False),
        ("data.n == 3", True),
        ("data.n == 3.0", True),
        ("type(data.n) == int", True),
        ("type(data.big) == uint", True),
        ("type(data.huge) == double", True),
        ("type(data.half) == double && type(data.one) == double", True),
        ("data.neg < 0", True),
        ("data.none == null", True),
        ("data.yes", True),
        ("!data.yes", False),
        ("data.missing == 1", Error),
        ("has(data.missing) && data.missing == 1", False),
        ("!has(data.missing) || data.missing == 1", True),
        ("data.missing == 1 || data.n == 3", True),
        ("data.n", Error),
        ("data.plan ? true : false", Error),
        ("data.plan > 3", Error),
        ("data.roles.exists(r, r.name == 'admin')", True),
        ("data.roles.all(r, r.name.size() > 3)", False),
        ("data.roles.filter(r, r.name == 'dev').size() == 1", True),
        ("data.roles.map(r, r.name) == ['admin', 'dev']", True),
        ("data.tags.exists_one(t, t == 'a')", True),
        ("'a' in data.tags", True),
        ("'plan' in data", True),
        ("data['plan'] in ['pro', 'team']", True),
        ("data.tags[5] == 'x'", Error),
        ("data.text == 'h\u{e9}'", True),
        ("data.plan.matches('^p[a-z]+$')", True),
        ("matches(data.plan, r'^\\w{3}$')", True),
        ("data.plan.contains('ro') && data.plan.endsWith('o')", True),
        ("size(data.tags) == 2 && string(data.n) == '3' && int('3') == data.n", True),
        ("subject == null", True),
        ("subject.id == 'x'", Error),
        ("attributes == {}", True),
        ("size(attributes) == 0", True),
        ("1 / 0 == 1", Error),
        ("// a comment (((\ntrue", True),
        ("data.roles.exists(data, data.name == 'dev')", True),
    ];
    for (source, expected) in cases {
        assert_eq!(eval(source, data), expected, "{source}");
    }
}

#[test]
fn subject_and_attributes_are_seen() {
    let subject = Subject { kind: Some("user".into()), id: "u1".into() };
    let filter =
        Filter::compile("subject.type == 'user' && subject.id == 'u1' && attributes.domain == 'acme'").unwrap();
    assert_eq!(run_on(&filter, b"1", Some(br#"{"domain":"acme"}"#), Some(&subject)), True);
    let bare = Subject { kind: None, id: "u1".into() };
    assert_eq!(run_on(&Filter::compile("has(subject.type)").unwrap(), b"1", None, Some(&bare)), False);
}

#[test]
fn what_a_filter_does_not_mention_is_not_converted() {
    let bad = "{\"n\": 1e999";
    assert_eq!(eval("type == 'user.created'", bad), True);
    assert_eq!(eval("data.n == 1", bad), Error);
    assert_eq!(eval("data == data", "{\"n\":1e999}"), True);
    let deep = |levels| format!("{}1{}", "[".repeat(levels), "]".repeat(levels));
    assert_eq!(eval("size(data) == 1", &deep(120)), True);
    assert_eq!(eval("size(data) == 1", &deep(129)), Error);
    assert_eq!(eval("size(data) == 1", &deep(400_000)), Error);
}

#[test]
fn what_cannot_work_is_refused_at_write_with_its_place() {
    let cases = [
        ("", "empty", None),
        ("  \n", "empty", None),
        ("data.plan ==", "not valid CEL", Some(1)),
        ("data.plan = 'pro'", "not valid CEL", Some(1)),
        ("true &&\n  plan == 'pro'", "names \"plan\"", Some(2)),
        ("data.roles.exists(r, x == 1)", "names \"x\"", Some(1)),
        ("r == 1 && data.a.all(r, r > 1)", "names \"r\"", Some(1)),
        ("lower(data.plan) == 'pro'", "calls \"lower\"", Some(1)),
        ("data.plan.lowerAscii() == 'pro'", "calls \"lowerAscii\"", Some(1)),
        ("contains(data.plan, 'a')", "the wrong way round; write x.contains", Some(1)),
        ("data.size(1) == 1", "argument", Some(1)),
        ("data.all(r)", "uses all in a form", Some(1)),
        ("'pro'", "must be a condition", Some(1)),
        ("42", "must be a condition", Some(1)),
        ("null", "must be a condition", Some(1)),
        ("[true]", "must be a condition", Some(1)),
        ("{'a': true}", "must be a condition", Some(1)),
        ("type", "must be a condition", Some(1)),
        ("size(data)", "must be a condition", None),
        ("data.n + 1", "must be a condition", None),
        ("data.l.map(x, x == 1)", "must be a condition", None),
        ("data.l.filter(x, x == 1)", "must be a condition", None),
        ("true ? 'a' : 'b'", "must be a condition", None),
        ("'a' && data.b", "not true or false", Some(1)),
        ("data.a.exists(x, x.b.exists(y, y == 1))", "only one level", Some(1)),
        ("data.a.map(x, [1].map(y, y)) == []", "only one level", Some(1)),
        ("data.s.matches(data.p)", "not a literal", Some(1)),
        ("data.s.matches('(')", "bad pattern", Some(1)),
        ("data.s.matches('(\\\\w{100}){100}')", "too costly", Some(1)),
        ("data.?a == 1", "not valid CEL", Some(1)),
        ("Foo{a: 1} == 1", "there are none here", None),
        ("data.a == 'x", "never closed", Some(1)),
        ("data.a == '\\q'", "unknown escape", Some(1)),
        ("(data.a == 1", "never closed", None),
        ("data.a == 1)", "stray", Some(1)),
        ("data.a == [1)", "stray", Some(1)),
    ];
    for (source, part, line) in cases {
        let error = refused(source);
        assert!(error.message.contains(part), "{source}: {error}");
        if line.is_some() {
            assert_eq!(error.line, line, "{source}: {error}");
        }
    }
    assert_eq!(refused("data.a == 1 && what").column, Some(16));
    assert_eq!(refused("data.a == '\u{e9}' && what").column, Some(18));
}

#[test]
fn p10_hostile_sources_are_refused_without_deep_recursion() {
    let repeat = |text: &str| text.repeat(4_000 / text.len());
    let sources = [
        repeat("("),
        repeat("["),
        repeat("{"),
        repeat("{1:"),
        repeat("!"),
        repeat("-"),
        format!("{}1{}", repeat("(").split_at(2_000).0, ")".repeat(2_000)),
        format!("{}true", "!".repeat(4_000)),
        format!("data{}", repeat(".a")),
        format!("data{}", repeat("[0]")),
        format!("data{}", repeat(".a()")),
        format!("1{} == 1", repeat("+1")),
        format!("1{}", repeat(" in data")),
        format!("true{}", repeat("?true:true")),
        format!("{}true", repeat("true?true:")),
        format!("data.a{}", repeat("+','+1")),
        format!("'{}", repeat("(")),
        format!("'\\q{}", repeat("(")),
        repeat("f(a,"),
        repeat("data.all(x,"),
        repeat("a{b:"),
        repeat("has("),
        "x".repeat(bounds::FILTER_MAX + 1),
    ];
    // A small stack shows that refusing does not recurse with the source.
    let check = move || {
        for source in &sources {
            assert!(Filter::compile(source).is_err(), "{}", &source[..40]);
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(check).unwrap().join().unwrap();
}

#[test]
fn p10_the_deepest_accepted_filter_fits_a_small_stack() {
    let deepest = [
        format!("{}true{}", "(".repeat(24), ")".repeat(24)),
        format!("{}1{} == data", "[".repeat(24), "]".repeat(24)),
        format!("data{} == 1", ".a".repeat(62)),
        format!("1{} == 1", "+1".repeat(62)),
        format!("{}false{}", "(true ? true : ".repeat(15), ")".repeat(15)),
        format!("{}data.x{}", "!(".repeat(20), ")".repeat(20)),
    ];
    let check = move || {
        for source in &deepest {
            let filter = Filter::compile(source).unwrap_or_else(|e| panic!("{source}: {e}"));
            run_on(&filter, b"{}", None, None);
        }
    };
    std::thread::Builder::new().stack_size(1 << 20).spawn(check).unwrap().join().unwrap();
}

#[test]
fn long_flat_filters_are_fine() {
    let ids: Vec<_> = (0..300).map(|i| format!("'u{i}'")).collect();
    assert_eq!(eval(&format!("data.id in [{}]", ids.join(",")), r#"{"id":"u299"}"#), True);
    let clauses: Vec<_> = (0..130).map(|i| format!("data.id == 'user-{i}'")).collect();
    assert_eq!(eval(&clauses.join(" || "), r#"{"id":"user-129"}"#), True);
}

#[test]
fn p10_what_would_cost_too_much_on_an_event_is_an_error_not_a_wait() {
    let list = |n: usize, item: &str| format!("[{}]", vec![item; n].join(","));
    let numbers = format!("{{\"l\":{},\"s\":\"{}\"}}", list(300_000, "0"), "x".repeat(400_000));
    // Length times text: quadratic, so refused at once.
    assert_eq!(eval("data.l.all(x, !data.s.contains('zz'))", &numbers), Error);
    assert_eq!(eval("data.l.map(x, data.s + data.s).size() == 1", &numbers), Error);
    assert_eq!(eval("data.l.all(x, !string(x).matches('^a+$'))", &numbers), Error);
    assert_eq!(eval("data.l.exists(x, data.s in data.l)", &numbers), Error);
    // What is linear goes through on large events.
    assert_eq!(eval("data.s.contains('zz')", &numbers), False);
    let medium = format!("{{\"l\":{}}}", list(2_000, r#"{"name":"aaaaaaaaaaaaaaaaaaaa"}"#));
    assert_eq!(eval("data.l.exists(x, x.name == 'b')", &medium), False);
    assert_eq!(eval("data.l.filter(x, x.name == 'b').size() == 0", &medium), True);
    assert_eq!(eval("data.l.map(x, x.name).size() == 2000", &medium), True);
    // Ordinary filters on ordinary events are never estimated.
    for source in ["data.plan == 'pro'", "data.roles.exists(r, r == 'admin')", "data.mail.matches('@acme\\\\.com$')"] {
        assert!(Filter::compile(source).unwrap().costs.cheap_up_to() >= 4_096, "{source}");
    }
}

#[test]
fn p5_a_budget_bounds_what_filters_cost_together() {
    let filter = Filter::compile("data.l.exists(x, x == 'b')").unwrap();
    let event_type: EventType = "user.created".parse().unwrap();
    let data = format!("{{\"l\":[{}]}}", vec!["\"aaaaaaaa\""; 200].join(","));
    let given = MatchFacts { event_type: &event_type, subject: None, data: data.as_bytes(), attributes: None };
    let facts = Facts::new(&given);
    let mut budget = FilterBudget::of(10.0 * cost::on(&filter.expression, &facts));
    let mut evaluated = 0;
    while filter.evaluate_within(&facts, &mut budget) == Ok(False) {
        evaluated += 1;
    }
    // What is bounded from the size alone is never less than what is bounded from the event.
    let close = cost::EVALUATION + cost::on(&filter.expression, &facts);
    assert!(filter.cost_at_most(facts.size()).0 >= close && (8..=10).contains(&evaluated), "{evaluated}");
    assert_eq!(filter.evaluate_within(&facts, &mut budget), Err(TooCostly));
    // What is never evaluated costs next to nothing.
    let dear = Filter::compile("data.l.exists(x, x + 1 in data.l)").unwrap();
    let data = format!("{{\"l\":[{}]}}", vec!["1"; 2_000].join(","));
    let given = MatchFacts { data: data.as_bytes(), ..given };
    let mut budget = FilterBudget::of_publish();
    let facts = Facts::new(&given);
    for _ in 0..1_000 {
        assert_eq!(dear.evaluate_within(&facts, &mut budget), Ok(Error));
    }
}

#[test]
fn costs_by_size_grow_with_the_size() {
    let filter = Filter::compile("data.l.exists(x, x == 'b')").unwrap();
    let sizes = [1, 256, 257, 512, 10_000, 100_000, 1 << 20, 1 << 30];
    let costs = sizes.map(|size| filter.cost_at_most(size));
    assert!(costs.is_sorted(), "{costs:?}");
    assert_eq!(costs[0], costs[1]);
    assert!(costs[1] < costs[2] && costs[2] == costs[3]);
    assert_eq!(costs[7].0, cost::EVALUATION + cost::BUDGET);
    assert!(costs[0].is_quick() && !costs[7].is_quick());
}

/// Random expressions from CEL's own vocabulary: most are nonsense, many parse.
fn expression() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("data".to_owned()),
        Just("data.a".to_owned()),
        Just("data.l".to_owned()),
        Just("subject".to_owned()),
        Just("type".to_owned()),
        Just("x".to_owned()),
        Just("null".to_owned()),
        Just("true".to_owned()),
        Just("[]".to_owned()),
        Just("{}".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        any::<u64>().prop_map(|n| format!("{n}u")),
        any::<f64>().prop_map(|n| format!("{n:?}")),
        "[a-z(]{0,4}".prop_map(|s| format!("'{s}'")),
        "[a-z(]{0,4}".prop_map(|s| format!("b'{s}'")),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            (inner.clone(), inner.clone(), "(\\+|-|\\*|/|%|==|!=|<|<=|>|>=|&&|\\|\\|| in )")
                .prop_map(|(a, b, op)| format!("({a}{op}{b})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{a}[{b}]")),
            (inner.clone(), inner.clone(), "(contains|startsWith|endsWith|matches|size|foo)")
                .prop_map(|(a, b, f)| format!("{a}.{f}({b})")),
            (inner.clone(), "(size|string|int|uint|double|bool|bytes|dyn|type|has|foo|-|!)")
                .prop_map(|(a, f)| format!("{f}({a})")),
            (inner.clone(), inner.clone(), "(all|exists|exists_one|map|filter)")
                .prop_map(|(a, b, m)| format!("{a}.{m}(x, {b})")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{{a}: {b}}}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            inner.prop_map(|a| format!("has({a}.b)")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_expressions_never_panic(source in expression()) {
        if let Ok(filter) = Filter::compile(&source) {
            let event_type: EventType = "user.created".parse().unwrap();
            let facts = MatchFacts {
                event_type: &event_type,
                subject: None,
                data: br#"{"a":-9223372036854775808,"l":[1,"x",null,{"b":1.5}]}"#,
                attributes: None,
            };
            // Past `catch_unwind`, so that a panic inside is seen.
            let facts = Facts::new(&facts);
            let mut context = Context::with_env(Arc::clone(&ENV));
            context.set_variable_resolver(&facts);
            let _ = Value::resolve(&filter.expression, &context);
        }
    }

    #[test]
    fn random_texts_never_panic(source in "[ -~\n'\"\\\\(){}\\[\\].,&|?:!éx]{0,60}") {
        if scan::measure(&source).is_ok() {
            let parser = ENV.parser().max_recursion_depth(64).error_recovery_limit(1);
            let _ = parser.parse_with_source_info(&source);
        }
        let _ = Filter::compile(&source);
    }
}

#[test]
fn a_member_no_value_holds_is_absent_and_null_in_a_list() {
    let data =
        r#"{"odd":"Ana \ud83d","far":1e400,"big":123456789012345678901234567890,"kept":1,"list":[1,"\udc00",3]}"#;
    for (source, result) in [
        ("data.kept == 1", FilterResult::True),
        ("has(data.odd) || has(data.far)", FilterResult::False),
        ("data.odd == 'x'", FilterResult::Error),
        ("data.list[1] == null && data.list[2] == 3", FilterResult::True),
        ("data.big > 1e29 && type(data.big) == double", FilterResult::True),
    ] {
        let event_type = "a".parse().unwrap();
        let facts = MatchFacts { event_type: &event_type, subject: None, data: data.as_bytes(), attributes: None };
        assert_eq!(Filter::compile(source).unwrap().evaluate(&facts), result, "{source}");
    }
}

#[test]
fn one_equals_sign_is_told_to_be_two() {
    for source in ["data.plan = 'pro'", "data.n=1", "data.a == 1 && data.b = 2"] {
        let told = Filter::compile(source).expect_err(source).to_string();
        assert!(told.contains("equality is =="), "{source}: {told}");
    }
    for source in ["data.plan == ", "data.plan == 'a = b' &&", "data.n >= ", "data.n != "] {
        let told = Filter::compile(source).expect_err(source).to_string();
        assert!(!told.contains("equality"), "{source}: {told}");
    }
}
