//! What every [`Store`] must do, as tests any implementation runs.
//!
//! `conformance_tests!(open)` makes one `#[tokio::test]` of every case; `open` is called for each
//! and answers a new, empty store (with a guard for what must live as long):
//!
//! ```ignore
//! fn open() -> (Arc<dyn Store>, TempDir) { … }
//! gatepost_store::conformance_tests!(open);
//! ```

#![expect(clippy::unwrap_used, reason = "a case fails by panicking")]

pub mod attempts;
pub mod deliveries;
pub mod lists;
pub mod publishing;
pub mod rest;
pub mod webhooks;

use bytes::Bytes;
use gatepost_core::delivery::{AttemptRecord, Outcome, Response, Sent, SentValue, Timings, Trigger};
use gatepost_core::event::{Subject, Urgency};
use gatepost_core::tenant::Tenant;
use gatepost_core::webhook::{Webhook, WebhookConfig};
use gatepost_core::{EventId, TenantKey, Timestamp, WebhookId, WebhookKey};

use crate::{
    Accepted, Due, DueQuery, NewEvent, NewWebhook, Next, PageRequest, Publish, PublishOutcome, PutTenant, Settlement,
    Store, UpdateOutcome, WebhookUpdate,
};

/// Calls `$run!` with every case, by module.
#[doc(hidden)]
#[macro_export]
macro_rules! for_each_conformance_case {
    ([$($run:tt)*] $($args:tt)*) => {
        $($run)*! { $($args)*;
            publishing: accepted_events_are_there_with_their_deliveries,
            publishing: p4_a_publish_matched_against_an_older_registry_is_refused,
            publishing: p6_an_event_that_matches_nothing_is_kept,
            publishing: the_same_event_again_is_a_duplicate_and_adds_nothing,
            publishing: a_timestamp_counts_only_where_both_give_one,
            publishing: another_event_under_a_taken_id_refuses_the_whole_call,
            publishing: an_id_repeated_within_one_call_is_judged_the_same,
            publishing: an_id_of_our_own_making_is_taken_too,
            publishing: ids_are_taken_per_tenant,
            publishing: payloads_are_kept_byte_for_byte,
            publishing: numbers_grow_and_an_events_own_deliveries_follow_each_other,
            publishing: undeclared_types_are_listed_as_seen,
            webhooks: tenants_are_made_once_and_changed_by_member,
            webhooks: tenants_are_paged_newest_first,
            webhooks: a_deleted_tenant_does_not_exist_for_any_method,
            webhooks: a_tenant_made_again_starts_empty,
            webhooks: deleted_tenants_are_removed_in_small_steps_and_numbers_are_not_reused,
            webhooks: every_change_of_webhooks_grows_the_registry_version,
            webhooks: an_update_of_an_older_revision_is_stale,
            webhooks: creating_again_with_the_same_id_changes_nothing,
            webhooks: p5_another_tenants_webhook_does_not_exist,
            webhooks: webhooks_are_paged_newest_first,
            webhooks: the_registry_of_the_past_can_be_asked_for,
            webhooks: what_was_registered_is_known_by_revision,
            webhooks: the_last_test_is_kept_and_is_no_change,
            attempts: a_first_success_ends_a_delivery,
            attempts: a_failure_moves_the_due_time_and_keeps_the_body,
            attempts: p3_the_first_body_kept_stays,
            attempts: attempts_large_and_small_are_listed_in_order,
            attempts: a_final_failure_has_its_reason,
            attempts: p2_a_settlement_sent_again_changes_nothing,
            attempts: p2_a_settlement_after_a_cancel_is_superseded,
            attempts: a_late_settlement_does_not_use_up_the_new_budget,
            attempts: settling_several_answers_for_each,
            attempts: a_settlement_of_nothing_is_superseded,
            attempts: a_pause_is_only_ever_prolonged,
            attempts: a_settlement_after_the_webhook_was_deleted_keeps_the_attempt,
            deliveries: due_deliveries_come_earliest_first_page_by_page,
            deliveries: a_page_of_due_deliveries_is_bounded_in_bytes,
            deliveries: due_looks_at_one_urgency_and_says_when_the_next_is_due,
            deliveries: owed_tells_where_to_look,
            deliveries: a_disabled_webhooks_deliveries_are_held_and_resume,
            deliveries: a_deleted_webhooks_deliveries_are_cancelled_at_once,
            deliveries: writing_cancellations_down_changes_nothing_visible,
            deliveries: a_retry_reopens_any_delivery_with_a_new_budget,
            deliveries: a_retry_is_refused_while_the_webhook_takes_nothing,
            deliveries: a_cancel_ends_what_is_not_terminal,
            deliveries: p5_another_tenants_delivery_does_not_exist,
            deliveries: an_events_deliveries_are_listed_oldest_first,
            lists: events_are_listed_newest_first_and_filtered,
            lists: events_are_found_by_time,
            lists: the_feed_has_no_gap_and_no_repeat_and_no_end,
            lists: a_rare_match_is_found_over_short_pages,
            lists: a_page_of_large_events_is_short,
            lists: deliveries_are_listed_newest_first_and_filtered,
            lists: deliveries_are_found_by_time,
            lists: a_rare_delivery_is_found_over_short_pages,
            lists: a_list_of_nothing_is_empty,
            rest: named_values_are_set_once_or_replaced,
            rest: event_types_are_declared_replaced_and_listed_by_name,
            rest: a_type_that_was_seen_outlives_its_declaration,
            rest: keys_are_kept_and_paged_newest_first,
            rest: a_deleted_tenants_keys_go_with_it,
            rest: a_healthy_store_says_so,
            rest: a_closed_store_says_so,
        }
    };
}

/// One `#[tokio::test]` per case: see the module.
#[macro_export]
macro_rules! conformance_tests {
    ($open:path) => {
        $crate::for_each_conformance_case!([$crate::__conformance_test] $open);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test {
    ($open:path; $($module:ident: $case:ident,)*) => {
        $(#[tokio::test]
        async fn $case() {
            let (store, _guard) = $open();
            $crate::conformance::$module::$case(store).await;
        })*
    };
}

/// A moment `seconds` after the tests' beginning of time.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_secs(1_700_000_000 + seconds)
}

/// The page of `limit` rows after `after`.
pub fn page(limit: usize, after: Option<i64>) -> PageRequest {
    PageRequest { limit, after }
}

/// The first webhook id, the second, …
pub fn webhook_id(number: u128) -> WebhookId {
    WebhookId::from_bytes((1_000 + number).to_be_bytes())
}

/// What a webhook called `name` registers.
pub fn config(name: &str) -> WebhookConfig {
    WebhookConfig {
        name: name.to_owned(),
        description: None,
        url: format!("https://{name}.example/in"),
        events: vec!["*".to_owned()],
        filter: None,
        profile: "standard".to_owned(),
        header_names: Vec::new(),
        format: None,
        signing: None,
        payload: None,
        options: Default::default(),
        auth: None,
        batch: None,
        verification: None,
        verified_at: None,
        paths: Default::default(),
        ordering: Default::default(),
        rate_limit_per_s: None,
        foreign: Default::default(),
        retry: None,
        timeout_ms: None,
        max_in_flight: None,
        enabled: true,
    }
}

/// Makes a tenant.
pub async fn tenant(store: &dyn Store, id: &str) -> Tenant {
    let id = id.parse().expect("a tenant id");
    let put = PutTenant { id, name: None, environment: None, settings: None, now: at(0) };
    store.put_tenant(put).await.expect("put_tenant").0
}

/// Makes a webhook; `number` makes its id and name.
pub async fn webhook(store: &dyn Store, tenant: TenantKey, number: u128) -> Webhook {
    let config = config(&format!("hook{number}"));
    let new = NewWebhook { tenant, id: webhook_id(number), config, sealed_secrets: vec![1, 2, 3], now: at(0) };
    store.create_webhook(new).await.expect("create_webhook").expect("the tenant is there").webhook
}

/// Replaces a webhook's registration with `change` applied.
pub async fn change(store: &dyn Store, webhook: &Webhook, now: Timestamp, change: impl FnOnce(&mut WebhookConfig)) {
    let present = store.webhook(webhook.tenant, webhook.id).await.expect("webhook").expect("the webhook is there");
    let mut config = present.config;
    change(&mut config);
    let update = WebhookUpdate {
        tenant: webhook.tenant,
        id: webhook.id,
        expected_revision: present.revision,
        config,
        sealed_secrets: present.sealed_secrets,
        disabled_reason: None,
        now,
    };
    let outcome = store.update_webhook(update).await.expect("update_webhook");
    assert!(matches!(outcome, UpdateOutcome::Updated(_)), "{outcome:?}");
}

/// An event of `event_type` that matches `webhooks`.
pub fn event(event_type: &str, webhooks: &[&Webhook]) -> NewEvent {
    NewEvent {
        caller_id: None,
        fingerprint: [7; 16],
        event_type: event_type.parse().expect("an event type"),
        undeclared: false,
        timestamp: at(-5),
        subject: None,
        urgency: Urgency::Normal,
        attributes: None,
        data: Bytes::from_static(b"{}"),
        matches: webhooks.iter().map(|webhook| (webhook.key, webhook.revision)).collect(),
    }
}

/// `event` with the caller's id `id` and a fingerprint.
pub fn named(id: &str, fingerprint: u8, event: NewEvent) -> NewEvent {
    let id: EventId = id.parse().expect("an event id");
    NewEvent { caller_id: Some(id), fingerprint: [fingerprint; 16], ..event }
}

/// `event` about a user.
pub fn about(id: &str, event: NewEvent) -> NewEvent {
    NewEvent { subject: Some(Subject { kind: Some("user".to_owned()), id: id.to_owned() }), ..event }
}

/// Publishes at the present registry version.
pub async fn try_publish(
    store: &dyn Store,
    tenant: TenantKey,
    now: Timestamp,
    events: Vec<NewEvent>,
) -> PublishOutcome {
    let registry_version = store.registry(tenant).await.expect("registry").map_or(0, |registry| registry.version);
    store.publish(Publish { tenant, registry_version, now, events }).await.expect("publish")
}

/// Publishes what must be accepted.
pub async fn publish(store: &dyn Store, tenant: TenantKey, now: Timestamp, events: Vec<NewEvent>) -> Vec<Accepted> {
    match try_publish(store, tenant, now, events).await {
        PublishOutcome::Accepted(accepted) => accepted,
        other => panic!("not accepted: {other:?}"),
    }
}

/// Publishes one event to one webhook; its delivery.
pub async fn one_delivery(store: &dyn Store, webhook: &Webhook) -> Due {
    let accepted = publish(store, webhook.tenant, at(10), vec![event("user.created", &[webhook])]).await;
    accepted[0].deliveries[0].clone()
}

/// What is due to `webhook` by `now`, at normal urgency.
pub async fn due(store: &dyn Store, webhook: WebhookKey, now: Timestamp) -> Vec<Due> {
    let urgency = Urgency::Normal;
    let query = DueQuery { webhook, urgency, now, after: None, limit: 100, max_bytes: 1 << 20 };
    store.due(query).await.expect("due").rows
}

/// An attempt that lasted a quarter of a second.
pub fn attempt(number: u32, started_at: Timestamp, status: u16) -> AttemptRecord {
    AttemptRecord {
        number,
        started_at,
        trigger: Trigger::Scheduled,
        outcome: Outcome::of_status(status),
        status: Some(status),
        error: (status >= 300).then(|| format!("status {status}")),
        timings: Timings {
            dns_us: None,
            connect_us: Some(40),
            tls_us: None,
            first_byte_us: Some(9),
            total_us: 250_000,
        },
        sent: Sent { revision: 1, signed: vec![SentValue::EventId, SentValue::Text("v1,abc=".to_owned())] },
        response: Some(Response {
            headers: vec![("content-type".into(), "text/plain".into())],
            body: Bytes::from_static(b"\xffno\x00t text"),
            truncated: false,
        }),
    }
}

/// What follows an attempt for `due` that began at `started_at`.
pub fn settlement(due: &Due, started_at: Timestamp, status: u16, next: Next) -> Settlement {
    Settlement {
        tenant: due.tenant,
        webhook: due.webhook,
        seq: due.seq,
        generation: due.generation,
        attempt: attempt(due.attempts + 1, started_at, status),
        next,
        freeze: None,
        pause_until: None,
    }
}

#[cfg(test)]
mod tests {
    macro_rules! names {
        (all; $($module:ident: $case:ident,)*) => { &[$((stringify!($module), stringify!($case))),*] };
    }

    #[test]
    fn every_case_is_in_the_list() {
        let listed: &[(&str, &str)] = crate::for_each_conformance_case!([names] all);
        let sources = [
            ("attempts", include_str!("attempts.rs")),
            ("deliveries", include_str!("deliveries.rs")),
            ("lists", include_str!("lists.rs")),
            ("publishing", include_str!("publishing.rs")),
            ("rest", include_str!("rest.rs")),
            ("webhooks", include_str!("webhooks.rs")),
        ];
        let mut written = 0;
        for (module, source) in sources {
            for line in source.lines().filter_map(|line| line.strip_prefix("pub async fn ")) {
                let name = line.split('(').next().unwrap();
                assert!(listed.contains(&(module, name)), "{module}::{name} is not in the list");
                written += 1;
            }
        }
        assert_eq!(written, listed.len());
    }
}
