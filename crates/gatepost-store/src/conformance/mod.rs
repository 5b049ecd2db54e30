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
pub mod batches;
pub mod deliveries;
pub mod erasure;
pub mod health;
pub mod hooks;
pub mod idempotency;
pub mod installation;
pub mod jobs;
pub mod lists;
pub mod making;
pub mod ordering;
pub mod own_events;
pub mod publishing;
pub mod quotas;
pub mod rest;
pub mod retention;
pub mod stream;
pub mod tenant_types;
pub mod webhooks;

use std::sync::Arc;

use bytes::Bytes;
use gatepost_core::delivery::{AttemptRecord, Outcome, Response, Sent, SentValue, Timings, Trigger};
use gatepost_core::event::{Subject, Urgency};
use gatepost_core::grouping::Match;
use gatepost_core::own_events::OwnEvent;
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
            making: deliveries_left_for_later_are_made_as_if_with_their_event,
            making: a_call_of_many_events_leaves_what_is_too_much_together,
            making: queues_keep_the_order_of_acceptance_past_what_is_not_made,
            making: batches_take_events_in_the_order_of_acceptance,
            making: the_most_urgent_are_made_first_and_tenants_take_turns,
            making: quotas_count_what_is_not_made,
            making: what_became_of_webhooks_meanwhile_holds_for_what_is_made,
            making: a_deleted_tenants_unmade_deliveries_go_with_it,
            making: p2_retention_waits_for_what_is_not_made,
            making: an_erasure_cancels_what_was_not_made,
            making: an_erasure_goes_through_very_many_deliveries_in_steps,
            making: a_replay_of_what_was_missed_does_not_repeat_what_is_not_made,
            making: a_farewell_among_very_many_is_known_by_its_number,
            lists: events_are_listed_newest_first_and_filtered,
            lists: events_are_found_by_time,
            lists: the_feed_has_no_gap_and_no_repeat_and_no_end,
            lists: a_rare_match_is_found_over_short_pages,
            lists: a_page_of_large_events_is_short,
            lists: deliveries_are_listed_newest_first_and_filtered,
            lists: deliveries_are_found_by_time,
            lists: a_rare_delivery_is_found_over_short_pages,
            lists: a_list_of_nothing_is_empty,
            ordering: only_the_first_of_a_subjects_queue_is_due,
            ordering: under_webhook_all_deliveries_are_one_queue,
            ordering: the_first_is_as_urgent_as_the_most_urgent_behind_it,
            ordering: a_cancel_of_the_first_lets_the_next_go,
            ordering: a_retry_by_hand_goes_to_the_end_of_its_queue,
            ordering: a_queue_stays_while_its_webhook_takes_nothing,
            ordering: deliveries_keep_the_order_they_were_accepted_under,
            ordering: p2_an_outcome_recorded_again_wakes_the_queue_again,
            ordering: a_deleted_webhooks_queue_goes_with_it,
            batches: events_join_the_open_batch_until_its_age_has_come,
            batches: a_batch_is_closed_by_number,
            batches: a_batch_is_closed_by_its_bytes,
            batches: an_urgent_event_closes_its_batch_at_once,
            batches: a_batch_without_a_wait_goes_at_once,
            batches: a_batch_is_of_one_revision,
            batches: batches_of_an_ordered_webhook_go_one_after_the_other,
            batches: a_batch_is_found_by_each_of_its_events,
            batches: p3_a_retry_of_a_batch_keeps_its_events,
            batches: an_open_batch_can_be_sent_or_cancelled_by_hand,
            batches: a_duplicate_joins_no_batch,
            batches: a_page_of_batches_is_bounded_in_bytes,
            batches: deleted_webhooks_and_tenants_leave_no_batch,
            own_events: every_change_of_webhooks_is_noted_with_its_revision,
            own_events: a_note_is_published_once,
            own_events: what_is_given_is_kept_as_it_is_and_told_once_under_its_id,
            own_events: giving_a_delivery_up_is_noted_once,
            own_events: an_answer_that_disables_does_so_with_its_outcome,
            own_events: a_webhook_that_moved_is_not_disabled_for_its_old_place,
            own_events: a_deleted_webhook_is_owed_its_farewell_and_nothing_else,
            own_events: a_deleted_tenants_notes_go_with_it,
            health: attempts_are_folded_in_and_a_recovery_is_noted_once,
            health: sustained_failure_disables_and_says_so_once,
            health: sustained_failure_disables_only_where_it_may_and_not_for_an_old_place,
            health: a_deleted_webhook_has_no_health,
            health: what_is_owed_to_an_unverified_webhook_is_held,
            health: what_is_owed_to_a_paused_webhook_is_held,
            health: why_a_verification_failed_is_kept_and_is_no_change,
            rest: named_values_are_set_once_or_replaced,
            hooks: hooks_are_made_changed_listed_and_removed,
            hooks: the_hook_registry_is_whole_and_its_version_grows,
            hooks: a_probe_verifies_the_revision_it_was_made_for,
            hooks: points_are_defined_set_and_removed,
            hooks: invocations_are_kept_once_with_trials_and_counts,
            hooks: invocations_are_listed_newest_first_and_filtered,
            hooks: an_outcome_is_kept_once_and_its_events_are_owed,
            hooks: upkeep_marks_the_unknown_and_removes_the_old,
            hooks: kept_secrets_are_due_once_and_go_with_their_hook,
            hooks: a_deleted_tenants_hooks_go_with_it,
            installation: named_values_are_swapped_together_or_not_at_all,
            quotas: webhooks_and_waiting_deliveries_are_counted,
            rest: event_types_are_declared_replaced_and_listed_by_name,
            rest: a_type_that_was_seen_outlives_its_declaration,
            rest: keys_are_kept_and_paged_newest_first,
            rest: a_deleted_tenants_keys_go_with_it,
            rest: a_healthy_store_says_so,
            idempotency: the_first_request_under_a_key_is_known_from_its_beginning,
            idempotency: a_request_that_changed_nothing_is_forgotten_but_an_answer_is_not,
            idempotency: records_expire_and_are_swept_in_small_steps,
            idempotency: p1_a_publish_and_its_answer_are_one,
            idempotency: a_publish_that_is_refused_leaves_its_key_unused,
            stream: deliveries_are_read_by_event_and_by_number,
            tenant_types: a_tenants_types_are_its_own,
            tenant_types: the_latest_publish_of_a_type_is_noted,
            tenant_types: types_not_noted_yet_are_found_in_the_events,
            tenant_types: a_deleted_tenants_types_go_with_it,
            erasure: what_is_kept_about_a_person_goes_and_the_bare_record_stays,
            erasure: p5_a_person_is_erased_in_one_tenant_alone,
            erasure: a_type_of_subject_is_erased_alone,
            erasure: what_is_published_afterwards_is_not_erased,
            erasure: what_was_not_sent_never_is,
            erasure: an_erased_event_is_known_by_its_id,
            erasure: other_peoples_events_of_a_batch_are_owed_by_a_new_one,
            erasure: an_ordered_queue_goes_on_behind_what_is_erased,
            erasure: a_person_erased_is_found_by_what_stands_for_them,
            erasure: who_was_told_is_proved_page_by_page,
            erasure: proof_names_batches_once_per_event,
            jobs: a_job_is_made_once_found_and_listed,
            jobs: p5_another_tenants_job_does_not_exist,
            jobs: open_jobs_are_answered_tenant_by_tenant,
            jobs: a_cancelled_job_has_failed_and_does_nothing_more,
            jobs: a_replay_of_what_failed_takes_it_once_unless_it_was_delivered_since,
            jobs: a_replay_of_what_was_missed_takes_events_without_a_delivery,
            jobs: a_replay_of_all_takes_every_event_of_its_window,
            jobs: a_replay_is_shaped_by_the_webhook_as_it_is_now,
            jobs: what_came_first_meanwhile_counts_as_done,
            jobs: a_replay_fails_when_its_webhook_is_deleted,
            jobs: a_backlog_is_counted_up_to_a_limit,
            jobs: a_replay_under_ordering_stands_at_the_tail,
            retention: an_event_with_very_many_deliveries_goes_in_small_steps,
            retention: old_events_go_with_their_deliveries,
            retention: the_highest_numbers_removed_are_not_given_out_again,
            retention: work_still_owed_is_never_removed,
            retention: what_is_held_longer_than_is_kept_expires_and_can_be_seen,
            retention: attempts_and_bodies_go_earlier_than_events,
            retention: a_batch_is_kept_as_long_as_one_of_its_events,
            retention: what_only_explained_old_events_goes_with_them,
            retention: retention_looks_at_many_tenants_in_one_pass,
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
        paused: false,
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
    let new = NewWebhook {
        tenant,
        id: webhook_id(number),
        config,
        sealed_secrets: vec![1, 2, 3],
        must_verify: false,
        now: at(0),
    };
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
        must_verify: false,
        told_as: Some(OwnEvent::WebhookUpdated),
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
        trace: None,
        matches: Arc::new(webhooks.iter().map(|webhook| Match::of(webhook)).collect()),
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
        resent: number > 1,
    }
}

/// What follows an attempt for `due` that began at `started_at`.
pub fn settlement(due: &Due, started_at: Timestamp, status: u16, next: Next) -> Settlement {
    Settlement {
        tenant: due.tenant,
        webhook: due.webhook,
        seq: due.seq,
        generation: due.generation,
        ordered: due.ordered,
        attempt: attempt(due.attempts + 1, started_at, status).into(),
        next,
        freeze: None,
        pause_until: None,
        disable: None,
        tell: true,
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
            ("hooks", include_str!("hooks.rs")),
            ("batches", include_str!("batches.rs")),
            ("lists", include_str!("lists.rs")),
            ("making", include_str!("making.rs")),
            ("ordering", include_str!("ordering.rs")),
            ("publishing", include_str!("publishing.rs")),
            ("idempotency", include_str!("idempotency.rs")),
            ("own_events", include_str!("own_events.rs")),
            ("installation", include_str!("installation.rs")),
            ("health", include_str!("health.rs")),
            ("quotas", include_str!("quotas.rs")),
            ("rest", include_str!("rest.rs")),
            ("retention", include_str!("retention.rs")),
            ("jobs", include_str!("jobs.rs")),
            ("erasure", include_str!("erasure.rs")),
            ("stream", include_str!("stream.rs")),
            ("tenant_types", include_str!("tenant_types.rs")),
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
