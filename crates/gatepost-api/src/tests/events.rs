//! Events and deliveries over the router, with a real engine behind it.

use axum::body::Body;
use http::Request;
use serde_json::{Value, json};

use super::requests::{ADMIN, Server};

#[tokio::test]
async fn events_are_published_and_shown_byte_for_byte() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let webhook = server.webhook("acme").await;
    let path = "/v1/tenants/acme/events";
    let data = r#"{ "z" : 1.50, "a":"\u00e9" }"#;
    let body = format!(r#"{{"type":"user.created","id":"a/b:1","subject":{{"id":"u1"}},"data":{data}}}"#);
    let got = server.admin("POST", path, &body).await;
    assert_eq!(got.status, 202, "{got:?}");
    let answer = got.json();
    assert_eq!((&answer["id"], &answer["type"]), (&json!("a/b:1"), &json!("user.created")));
    assert_eq!((&answer["deliveries"], &answer["duplicate"]), (&json!(1), &json!(false)));
    assert!(answer["timestamp"].as_str().unwrap().ends_with('Z'));
    assert_eq!(server.admin("POST", path, &body).await.json()["duplicate"], true);
    let other = server.admin("POST", path, &body.replace("1.50", "1.5")).await;
    assert_eq!((other.status.as_u16(), other.code().as_str()), (409, "event_id_conflict"));

    let shown = server.admin("GET", &format!("{path}/a%2Fb:1"), "").await;
    assert_eq!(shown.status, 200, "{shown:?}");
    assert!(shown.text.contains(&format!("\"data\":{data}")), "{}", shown.text);
    let event = shown.json();
    assert_eq!(event["matching"], json!([{"webhook_id": webhook, "matched": true, "reason": "matched"}]));
    assert!(event.get("matching_truncated").is_none() && event.get("deliveries_truncated").is_none());
    assert_eq!(event["deliveries"][0]["webhook_id"], json!(webhook));
    let list = server.admin("GET", &format!("{path}?subject=u1&type=user.created"), "").await;
    assert!(list.text.contains(data));
    assert_eq!((&list.json()["data"][0]["deliveries"], &list.json()["next_cursor"]), (&json!(1), &Value::Null));
    assert_eq!(server.admin("GET", &format!("{path}/evt_none"), "").await.code(), "event_not_found");
    let own = server.admin("POST", path, r#"{"type":"gatepost.webhook.created"}"#).await;
    assert_eq!((own.status.as_u16(), own.pointers()), (422, vec!["/type".to_owned()]));
}

#[tokio::test]
async fn batches_and_cloudevents_are_published() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let path = "/v1/tenants/acme/events";
    let batch = format!("{path}/batch");
    let got = server.admin("POST", &batch, r#"{"events":[{"type":"a","id":"1"},{"type":"b"}]}"#).await;
    assert_eq!((got.status.as_u16(), got.json()["events"].as_array().unwrap().len()), (202, 2));
    let got = server
        .typed(ADMIN, "POST", &batch, "application/x-ndjson", "{\"type\":\"a\",\"id\":\"1\"}\n{\"type\":\"c\"}\n")
        .await;
    assert_eq!(got.json()["events"][0]["duplicate"], true, "{got:?}");
    let got = server.admin("POST", &batch, r#"{"events":[{"type":"x","id":"9"},{"type":"y","id":"9"}]}"#).await;
    assert_eq!(got.code(), "event_id_conflict");
    assert_eq!(server.admin("GET", &format!("{path}/9"), "").await.code(), "event_not_found");
    let got = server.admin("POST", &batch, r#"{"events":[{"type":"a"},{"type":"gatepost.x"}]}"#).await;
    assert_eq!(got.pointers(), ["/events/1/type"]);

    let one =
        r#"{"specversion":"1.0","id":"ce-1","source":"/idp","type":"user.created","subject":"u1","data":{"k":1}}"#;
    let got = server.typed(ADMIN, "POST", path, "application/cloudevents+json; charset=utf-8", one).await;
    assert_eq!((got.status.as_u16(), &got.json()["id"]), (202, &json!("ce-1")), "{got:?}");
    let got = server.typed(ADMIN, "POST", path, "application/cloudevents-batch+json", &format!("[{one}]")).await;
    assert_eq!(got.json()["events"][0]["duplicate"], true, "{got:?}");
    let other = one.replace("/idp", "/else");
    let got = server.typed(ADMIN, "POST", path, "application/cloudevents+json", &other).await;
    assert!(got.json()["id"].as_str().unwrap().starts_with("ce_"), "{got:?}");
    let request = |version: &str, kind: &str, body: &str| {
        Request::post(path)
            .header("authorization", format!("Bearer {ADMIN}"))
            .header("content-type", kind)
            .header("ce-specversion", version)
            .header("ce-id", "ce-1")
            .header("ce-source", "/idp")
            .header("ce-type", "user.created")
            .header("ce-subject", "u1")
            .body(Body::from(body.to_owned()))
            .unwrap()
    };
    let got = server.send(request("1.0", "application/json", r#"{"k":1}"#)).await;
    assert_eq!((got.status.as_u16(), &got.json()["duplicate"]), (202, &json!(true)), "{got:?}");
    let got = server.send(request("0.3", "text/xml", "<x/>")).await;
    assert_eq!((got.status.as_u16(), got.pointers().len()), (422, 2), "{got:?}");
    assert_eq!(server.send(request("1.0", "application/json", "{")).await.code(), "malformed_json");
}

#[tokio::test]
async fn the_feed_has_no_end_and_repeats_nothing() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let path = "/v1/tenants/acme/events";
    let mut cursor = server.admin("GET", &format!("{path}?order=asc"), "").await.json()["next_cursor"].clone();
    let mut seen = Vec::new();
    for round in 0..3 {
        for n in 0..3 {
            server.admin("POST", path, &format!(r#"{{"type":"a","id":"e{round}-{n}"}}"#)).await;
        }
        loop {
            let at = cursor.as_str().expect("a feed's cursor is never null").to_owned();
            let page = server.admin("GET", &format!("{path}?order=asc&limit=2&cursor={at}"), "").await.json();
            cursor = page["next_cursor"].clone();
            let rows = page["data"].as_array().unwrap();
            if rows.is_empty() {
                assert_eq!(cursor, json!(at), "at the end the cursor stays");
                break;
            }
            seen.extend(rows.iter().map(|row| row["id"].as_str().unwrap().to_owned()));
        }
    }
    let wanted: Vec<_> = (0..3).flat_map(|r| (0..3).map(move |n| format!("e{r}-{n}"))).collect();
    assert_eq!(seen, wanted);
}

#[tokio::test]
async fn p10_a_page_of_large_events_is_cut_short() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let path = "/v1/tenants/acme/events";
    let data = "x".repeat(1_000_000);
    for n in 0..10 {
        let body = format!(r#"{{"type":"a","id":"e{n}","data":"{data}"}}"#);
        assert_eq!(server.admin("POST", path, &body).await.status, 202);
    }
    let (mut seen, mut query, mut pages) = (0, String::from("limit=250"), 0);
    loop {
        let got = server.admin("GET", &format!("{path}?{query}"), "").await;
        assert!(got.text.len() < 9 << 20);
        let page = got.json();
        seen += page["data"].as_array().unwrap().len();
        pages += 1;
        let Some(cursor) = page["next_cursor"].as_str() else { break };
        query = format!("limit=250&cursor={cursor}");
    }
    assert_eq!((seen, pages), (10, 2));
}

#[tokio::test]
async fn deliveries_are_shown_retried_and_cancelled() {
    let server = Server::start().await;
    server.tenant("acme").await;
    let id = server.webhook("acme").await;
    server.admin("PATCH", &format!("/v1/tenants/acme/webhooks/{id}"), r#"{"enabled":true}"#).await;
    server.admin("POST", "/v1/tenants/acme/events", r#"{"type":"a","id":"e1","subject":{"id":"u"}}"#).await;
    let path = "/v1/tenants/acme/deliveries";
    // Until the delivery has ended; every round trip to the lane makes progress.
    let delivery = loop {
        let page = server.admin("GET", &format!("{path}?event_id=e1&webhook_id={id}&subject=u"), "").await.json();
        if page["data"][0]["state"] == "delivered" {
            break page["data"][0].clone();
        }
        tokio::task::yield_now().await;
    };
    let members: Vec<_> = delivery.as_object().unwrap().keys().map(String::as_str).collect();
    let wanted = [
        "attempts",
        "created_at",
        "event_ids",
        "event_type",
        "id",
        "next_attempt_at",
        "reason",
        "state",
        "subject",
        "updated_at",
        "webhook_id",
    ];
    assert_eq!(members, wanted);
    let one = format!("{path}/{}", delivery["id"].as_str().unwrap());
    let attempt = server.admin("GET", &one, "").await.json()["attempt_list"][0].clone();
    assert_eq!(
        (&attempt["outcome"], &attempt["status"], &attempt["trigger"]),
        (&json!("ok"), &json!(200), &json!("scheduled"))
    );
    assert_eq!(attempt["timings"], json!({"dns": null, "connect": 0, "tls": null, "first_byte": null, "total": 2}));
    assert!(attempt["request"]["body"].as_str().unwrap().contains("\"e1\""), "{attempt}");
    assert_eq!(server.admin("POST", &format!("{one}/cancel"), "").await.code(), "delivery_terminal");
    assert_eq!(server.admin("POST", &format!("{one}/retry"), r#"{"x":1}"#).await.pointers(), ["/x"]);
    assert_eq!(server.admin("POST", &format!("{one}/retry"), "").await.status, 202);
    server.admin("PATCH", &format!("/v1/tenants/acme/webhooks/{id}"), r#"{"enabled":false}"#).await;
    assert_eq!(server.admin("POST", &format!("{one}/retry"), "{}").await.code(), "webhook_disabled");
    assert_eq!(server.admin("GET", &format!("{path}/dlv_none"), "").await.code(), "delivery_not_found");
}
