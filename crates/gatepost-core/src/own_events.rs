//! Gatepost's own events (DESIGN 4.2): what there is to tell about Gatepost itself.

use crate::event::EventType;

/// One of Gatepost's own types.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum OwnEvent {
    /// A webhook was registered.
    WebhookCreated,
    /// A webhook was changed by its owner.
    WebhookUpdated,
    /// A webhook was deleted. The deleted one hears of it too.
    WebhookDeleted,
    /// A webhook's endpoint passed its verification.
    WebhookVerified,
    /// Gatepost disabled a webhook.
    WebhookDisabled,
    /// A failing webhook answers again.
    WebhookRecovered,
    /// A delivery was given up.
    DeliveryExhausted,
    /// A webhook's secret was rotated.
    SecretRotated,
    /// Requests to a source were refused.
    SourceRejected,
    /// A hook is asked no longer for a while.
    HookCircuitOpened,
    /// A hook is asked again.
    HookCircuitClosed,
    /// What an invocation was about was carried out.
    InvocationCommitted,
    /// What an invocation was about was not carried out.
    InvocationAborted,
}

impl OwnEvent {
    /// Every own event.
    pub const ALL: [OwnEvent; 13] = [
        OwnEvent::WebhookCreated,
        OwnEvent::WebhookUpdated,
        OwnEvent::WebhookDeleted,
        OwnEvent::WebhookVerified,
        OwnEvent::WebhookDisabled,
        OwnEvent::WebhookRecovered,
        OwnEvent::DeliveryExhausted,
        OwnEvent::SecretRotated,
        OwnEvent::SourceRejected,
        OwnEvent::HookCircuitOpened,
        OwnEvent::HookCircuitClosed,
        OwnEvent::InvocationCommitted,
        OwnEvent::InvocationAborted,
    ];

    /// The type's name, as published and as stored.
    pub fn as_str(self) -> &'static str {
        match self {
            OwnEvent::WebhookCreated => "gatepost.webhook.created",
            OwnEvent::WebhookUpdated => "gatepost.webhook.updated",
            OwnEvent::WebhookDeleted => "gatepost.webhook.deleted",
            OwnEvent::WebhookVerified => "gatepost.webhook.verified",
            OwnEvent::WebhookDisabled => "gatepost.webhook.disabled",
            OwnEvent::WebhookRecovered => "gatepost.webhook.recovered",
            OwnEvent::DeliveryExhausted => "gatepost.delivery.exhausted",
            OwnEvent::SecretRotated => "gatepost.secret.rotated",
            OwnEvent::SourceRejected => "gatepost.source.rejected",
            OwnEvent::HookCircuitOpened => "gatepost.hook.circuit_opened",
            OwnEvent::HookCircuitClosed => "gatepost.hook.circuit_closed",
            OwnEvent::InvocationCommitted => "gatepost.hook.invocation.committed",
            OwnEvent::InvocationAborted => "gatepost.hook.invocation.aborted",
        }
    }

    /// The own event with this name.
    pub fn named(name: &str) -> Option<OwnEvent> {
        Self::ALL.into_iter().find(|own| own.as_str() == name)
    }

    /// The name as a type.
    pub fn event_type(self) -> EventType {
        self.as_str().parse().expect("the names above are within the grammar: a test reads each")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_own_event_is_a_declared_type_of_the_own_family() {
        for own in OwnEvent::ALL {
            assert!(own.event_type().is_own());
            assert!(crate::catalogue::find(&own.event_type()).is_some(), "{}", own.as_str());
            assert_eq!(OwnEvent::named(own.as_str()), Some(own));
        }
        let declared = crate::catalogue::of_system("own").count();
        assert_eq!(declared, OwnEvent::ALL.len());
        assert_eq!(OwnEvent::named("gatepost.webhook.moved"), None);
    }
}
