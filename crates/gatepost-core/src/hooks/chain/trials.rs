//! Chains of hooks on trial.

use std::sync::Arc;

use super::{Budget, Chain, PlannedHook, PointKind, group, items};
use crate::hooks::budget::HARD_CAP;

impl Chain {
    /// A chain of its own for every hook on trial: mutators see what came in, the others what is to
    /// be committed.
    pub(in crate::hooks) fn trials(&self) -> Vec<(Chain, Arc<PlannedHook>)> {
        let trial = |hook: &Arc<PlannedHook>| {
            let mut invocation = self.invocation.clone();
            if hook.point.kind != PointKind::Mutate {
                invocation.object = self.object.clone();
                invocation.secrets.object = self.lifted.clone();
            }
            let stages = vec![(Arc::clone(&hook.point), true)];
            let mut groups = Vec::new();
            group(0, hook.point.kind, vec![Arc::clone(hook)], &mut groups);
            let mut items = items(&stages, &invocation);
            if let (Some(item), Some(attribute)) = (items.first_mut(), invocation.attributes.first()) {
                item.attribute = Some(attribute.name.clone());
                item.context.extend(attribute.context.clone());
                item.default = attribute.default.clone();
            }
            let chain = Chain {
                id: self.id.clone(),
                tenant: self.tenant.clone(),
                time: self.time,
                name: self.name.clone(),
                stages,
                bypass: false,
                issuer: Arc::clone(&self.issuer),
                hop: self.hop,
                // Nobody waits for it: it has its own time and the invocation's has none of it.
                budget: Budget::new(None, HARD_CAP),
                object: invocation.object.clone(),
                lifted: invocation.secrets.object.clone(),
                invocation,
                groups,
                at: 0,
                items,
                votes: Vec::new(),
                receiver_said_no: false,
                entries: Vec::new(),
                observers: Vec::new(),
                waits: Vec::new(),
                queues: Vec::new(),
                questions: 0,
                weight: self.weight,
                refused: false,
                done: false,
            };
            (chain, Arc::clone(hook))
        };
        self.observers.iter().map(trial).collect()
    }
}
