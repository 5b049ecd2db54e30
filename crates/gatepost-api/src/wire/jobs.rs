//! Replays to ask for.

use gatepost_engine::ops::ReplayInput;
use gatepost_engine::store::ReplayScope;

use super::{At, Read, Reader};

/// Members of a replay.
pub(crate) const REPLAY: [&str; 4] = ["since", "until", "scope", "dry_run"];

const SCOPES: [(&str, ReplayScope); 3] =
    [("failed", ReplayScope::Failed), ("missed", ReplayScope::Missed), ("all", ReplayScope::All)];

impl Reader<'_, '_> {
    /// A replay, and whether it is only to be counted. What is wrong is noted, and answers `None`.
    pub(crate) fn replay(&mut self) -> Read<Option<(ReplayInput, bool)>> {
        let at = At::Root;
        let Some(fields) = self.open(self.document(), at, &REPLAY)? else { return Ok(None) };
        let since = fields.required("since", at, self).and_then(|raw| self.time_limit(raw, at.member("since")));
        let until = fields.optional("until").map(|raw| self.time_limit(raw, at.member("until")));
        let scope = fields.required("scope", at, self).and_then(|raw| self.word(raw, at.member("scope"), &SCOPES));
        let dry_run = fields.optional("dry_run").map(|raw| self.boolean(raw, at.member("dry_run")));
        let (Some(since), Some(scope)) = (since, scope) else { return Ok(None) };
        // One that cannot be read is noted.
        let Some(until) = until.map_or(Some(None), |until| until.map(Some)) else { return Ok(None) };
        let Some(dry_run) = dry_run.unwrap_or(Some(false)) else { return Ok(None) };
        Ok(Some((ReplayInput { since, until, scope }, dry_run)))
    }
}
