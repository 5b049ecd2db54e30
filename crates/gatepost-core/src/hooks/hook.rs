//! A hook: a tenant's registration on a point.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::FieldError;
use super::change::{MayChange, ReplaceMode};
use super::codec;
use super::condition::Condition;
use super::failure::{FailureClass, OnFailure, Policy};
use super::json::Pointer;
use super::points::{PointDef, PointKind};
use crate::auth::EndpointAuth;
use crate::http_versions::HttpVersions;
use crate::secret::{MASK, Secret};
use crate::webhook::{SigningKey, bounds};

/// Whether a hook is asked, and whether its answer counts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Not asked.
    Off,
    /// Asked beside the decision; its answer is compared and changes nothing.
    #[default]
    Observe,
    /// Its answer counts.
    Enforce,
}

/// What secrets look like to a hook that was granted them.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretMode {
    /// As they are, over https only.
    #[default]
    Plain,
    /// Left out: it hears that, not what.
    Omit,
}

/// Whether a secret notification that failed is tried again after the answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SecretRetry {
    /// No: it happens in the caller's time or not at all.
    #[default]
    None,
    /// Yes, kept encrypted under the data key for at most 15 minutes.
    Encrypted,
}

/// What calling the receiver does there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SideEffects {
    /// Perhaps something: dry runs leave it out.
    #[default]
    Some,
    /// Nothing.
    None,
    /// Nothing when it is told that it is a dry run.
    NoneOnDryRun,
}

/// Bounds of a hook's members (SETTLED).
pub mod limits {
    /// `timeout_ms`.
    pub const TIMEOUT_MS: std::ops::RangeInclusive<i64> = 100..=30_000;
    /// `timeout_ms` when not given.
    pub const TIMEOUT_MS_DEFAULT: u32 = 1_000;
    /// `min_timeout_ms`.
    pub const MIN_TIMEOUT_MS: std::ops::RangeInclusive<i64> = 1..=30_000;
    /// `min_timeout_ms` when not given.
    pub const MIN_TIMEOUT_MS_DEFAULT: u32 = 100;
    /// `order`.
    pub const ORDER: std::ops::RangeInclusive<i64> = -1_000_000..=1_000_000;
    /// `order` when not given.
    pub const ORDER_DEFAULT: i32 = 100;
    /// `max_in_flight`: calls under way to one hook at once. Others wait for a place within their budget.
    pub const IN_FLIGHT: std::ops::RangeInclusive<i64> = 1..=1_024;
    /// `max_in_flight` when not given.
    pub const IN_FLIGHT_DEFAULT: u32 = 64;
    /// Pointers in `may_change`.
    pub const MAY_CHANGE_MAX: usize = 100;
    /// Bytes of an answer.
    pub const ANSWER_MAX: usize = 256 * 1024;
}

/// What a tenant registered, secrets apart.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct HookConfig {
    /// A name for people.
    pub name: String,
    /// The point's name.
    pub point: String,
    /// The receiver: the whole address (profile gatepost) or the base the path is put to (cymmetri).
    pub url: String,
    /// The dialect.
    pub profile: String,
    /// Overrides the profile's path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Lower goes first; then age; then id.
    pub order: i32,
    /// Whether it counts.
    pub mode: Mode,
    /// What a failure means; `None` leaves it to the point.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnFailure>,
    /// What answers may change; `None` is the point's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub may_change: Option<Vec<Pointer>>,
    /// Milliseconds a call may take.
    pub timeout_ms: u32,
    /// Milliseconds kept for it when hooks before it are slow.
    pub min_timeout_ms: u32,
    /// Calls to it that may be under way at once.
    #[serde(default = "max_in_flight_default")]
    pub max_in_flight: u32,
    /// Which versions of HTTP its receiver is spoken to in.
    #[serde(default)]
    pub http: HttpVersions,
    /// How a proposed object is applied.
    pub replace_mode: ReplaceMode,
    /// Whether secrets are sent to it.
    pub receives_secrets: bool,
    /// How.
    pub secret_mode: SecretMode,
    /// Whether a failed secret notification is kept.
    pub secret_retry: SecretRetry,
    /// What calling it does.
    pub side_effects: SideEffects,
    /// Whether asking twice is as asking once.
    pub idempotent: bool,
    /// Whether 403, 409 and 422 are refusals.
    pub status_deny: bool,
    /// Whether its refusal cuts the other validators short.
    pub stop_on_deny: bool,
    /// When it is asked, as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Value>,
    /// Whether an answer must be signed.
    pub require_signed_answer: bool,
    /// Names of the tenant's own headers, as given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub header_names: Vec<String>,
    /// How we prove ourselves besides the signature.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<EndpointAuth>,
    /// The hook's kill switch.
    pub enabled: bool,
}

/// Everything secret about a hook. Stored sealed, never serialised in clear.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct HookSecrets {
    /// The present key first, then older ones that still sign.
    pub signing: Vec<SigningKey>,
    /// Values of the tenant's own headers, by name as given.
    pub headers: BTreeMap<String, Secret>,
    /// The secret part of `auth`.
    pub auth: Option<Secret>,
}

/// What a body of create or change holds: the settings, and the secrets it sets.
#[derive(Clone, PartialEq, Debug)]
pub struct HookWrite {
    /// The settings.
    pub config: HookConfig,
    /// An imported signing secret.
    pub secret: Option<Secret>,
    /// Header values that were given; a name of [`HookConfig::header_names`] that is not here was
    /// echoed as `"***"` and keeps its value.
    pub headers: BTreeMap<String, Secret>,
    /// The secret part of `auth`, unless echoed as `"***"`.
    pub auth_secret: Option<Secret>,
}

fn max_in_flight_default() -> u32 {
    limits::IN_FLIGHT_DEFAULT
}

/// The profile of a hook that names none.
pub const PROFILE_DEFAULT: &str = "gatepost";

impl HookConfig {
    /// A hook with every default.
    pub fn new(name: impl Into<String>, point: impl Into<String>, url: impl Into<String>) -> Self {
        HookConfig {
            name: name.into(),
            point: point.into(),
            url: url.into(),
            profile: PROFILE_DEFAULT.into(),
            path: None,
            order: limits::ORDER_DEFAULT,
            mode: Mode::Observe,
            on_failure: None,
            may_change: None,
            timeout_ms: limits::TIMEOUT_MS_DEFAULT,
            min_timeout_ms: limits::MIN_TIMEOUT_MS_DEFAULT,
            max_in_flight: limits::IN_FLIGHT_DEFAULT,
            http: HttpVersions::Auto,
            replace_mode: ReplaceMode::Merge,
            receives_secrets: false,
            secret_mode: SecretMode::Plain,
            secret_retry: SecretRetry::None,
            side_effects: SideEffects::Some,
            idempotent: false,
            status_deny: false,
            stop_on_deny: false,
            conditions: None,
            require_signed_answer: false,
            header_names: Vec::new(),
            auth: None,
            enabled: true,
        }
    }

    /// The members as they are answered: defaults filled in, secrets masked.
    pub fn shown(&self, point: &PointDef) -> Map<String, Value> {
        let mut members = match serde_json::to_value(self) {
            Ok(Value::Object(members)) => members,
            // A struct with named members is an object.
            _ => Map::new(),
        };
        members.remove("header_names");
        let masked = |name: &String| (name.clone(), Value::from(MASK));
        members.insert("headers".into(), Value::Object(self.header_names.iter().map(masked).collect()));
        if let (Some(auth), Some(Value::Object(shown))) = (&self.auth, members.get_mut("auth")) {
            shown.insert(auth.secret_member().into(), MASK.into());
        }
        let on_failure = self.on_failure.clone().unwrap_or_default();
        let on_failure =
            OnFailure { default: Some(on_failure.default.unwrap_or_else(|| point.policy())), ..on_failure };
        members.insert("on_failure".into(), serde_json::to_value(on_failure).unwrap_or_default());
        for name in ["path", "may_change", "conditions", "auth"] {
            members.entry(name).or_insert(Value::Null);
        }
        members
    }

    /// What is applied when it fails with `class`.
    pub fn policy(&self, class: FailureClass, point: &PointDef) -> Policy {
        let own = self.on_failure.as_ref().and_then(|on_failure| on_failure.policy(class));
        own.cloned().unwrap_or_else(|| point.policy())
    }

    /// Whether its silence refuses the invocation, so that time is kept for it.
    pub fn required(&self, point: &PointDef) -> bool {
        self.policy(FailureClass::Timeout, point) == Policy::Deny
    }

    /// What its answers may change.
    pub fn effective_may_change(&self, point: &PointDef) -> MayChange {
        self.may_change.clone().map_or_else(|| point.default_may_change(), MayChange::places)
    }

    /// Whether secrets are put into what is sent to it.
    pub fn shows_secrets(&self) -> bool {
        self.receives_secrets && self.secret_mode == SecretMode::Plain
    }

    /// The longest one call may take.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.timeout_ms))
    }

    /// Whether a breaker may keep calls from it. A gate whose failure means "no" is asked every time:
    /// not asking would be the same "no" for longer.
    pub fn has_breaker(&self, point: &PointDef) -> bool {
        let no = Policy::Value(Value::Bool(false));
        point.kind != PointKind::Gate || self.policy(FailureClass::CircuitOpen, point) != no
    }

    /// Whether a dry run may call it.
    pub fn in_dry_runs(&self) -> bool {
        self.side_effects != SideEffects::Some
    }

    /// Everything wrong with it. `point` is `None` when the tenant has none of that name. Whether
    /// the address is one we may connect to is the egress policy's business.
    pub fn validate(&self, point: Option<&PointDef>) -> Vec<FieldError> {
        let mut out = Errors(Vec::new());
        if !bounds::NAME.contains(&self.name.chars().count()) {
            out.bad("/name", "must be 1 to 200 characters");
        }
        self.validate_place(point, &mut out);
        if !limits::TIMEOUT_MS.contains(&i64::from(self.timeout_ms)) {
            out.bad("/timeout_ms", "must be 100 to 30000");
        }
        if self.min_timeout_ms == 0 || self.min_timeout_ms > self.timeout_ms {
            out.bad("/min_timeout_ms", "must be 1 to timeout_ms: it is the least of that time kept for this hook");
        }
        if !limits::IN_FLIGHT.contains(&i64::from(self.max_in_flight)) {
            out.bad("/max_in_flight", "must be 1 to 1024");
        }
        if let (Some(on_failure), Some(point)) = (&self.on_failure, point) {
            for (at, message) in on_failure.misfits(point.kind) {
                out.bad(&format!("/on_failure{at}"), message);
            }
        }
        if self.may_change.as_ref().is_some_and(|places| places.len() > limits::MAY_CHANGE_MAX) {
            out.bad("/may_change", format!("at most {} places", limits::MAY_CHANGE_MAX));
        }
        if self.secret_retry == SecretRetry::Encrypted {
            if !self.shows_secrets() {
                out.bad(
                    "/secret_retry",
                    "encrypted needs receives_secrets and secret_mode plain: there is nothing to keep",
                );
            } else if point.is_some_and(|point| point.kind != PointKind::NotifySecret) {
                out.bad("/secret_retry", "can only be encrypted on points that notify: other answers come too late");
            }
        }
        if let Some(Err(errors)) = self.conditions.as_ref().map(Condition::compile) {
            out.0.extend(errors.into_iter().map(|e| FieldError { pointer: format!("/conditions{}", e.pointer), ..e }));
        }
        self.validate_headers(&mut out);
        out.0
    }

    fn validate_place(&self, point: Option<&PointDef>, out: &mut Errors) {
        match point.map(PointDef::takes_hooks) {
            None => out.bad("/point", format!("there is no point {:?}; GET …/points lists them", self.point)),
            Some(Err(message)) => out.bad("/point", message),
            Some(Ok(())) => {}
        }
        let rest = ["https://", "http://"].iter().find_map(|scheme| {
            let head = self.url.get(..scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then(|| &self.url[scheme.len()..])
        });
        let authority = rest.map(|rest| rest.split(['/', '?', '#']).next().unwrap_or_default());
        match authority {
            _ if self.url.len() > bounds::URL_MAX => out.bad("/url", "must be at most 2048 bytes long"),
            Some(authority) if !authority.is_empty() && !authority.contains('@') => {
                if self.url.contains(['#', ' ']) || self.url.chars().any(char::is_control) {
                    out.bad("/url", "must have no fragment, spaces or control characters");
                }
            }
            Some(authority) if authority.contains('@') => out.bad("/url", "must not hold a user or password; use auth"),
            _ => out.bad("/url", "must be an https:// (or http://) address"),
        }
        if self.receives_secrets && !self.is_https() {
            out.bad("/url", "must be https:// for a hook that receives secrets");
        }
        match codec::codec(&self.profile) {
            None => {
                let names: Vec<_> = codec::all().iter().map(|codec| codec.name()).collect();
                out.bad("/profile", format!("must be one of {}", names.join(", ")));
            }
            Some(codec)
                if codec.sets_authorization() && self.auth.as_ref().is_some_and(EndpointAuth::sets_authorization) =>
            {
                out.bad("/auth", format!("profile {} needs the header authorization for its own token", self.profile));
            }
            Some(_) => {}
        }
        let plain = |path: &str| {
            let odd = |c: char| ['?', '#', ' '].contains(&c) || c.is_control();
            path.len() <= 512 && !path.contains(odd) && !path.split('/').any(|part| part == "." || part == "..")
        };
        if self.path.as_ref().is_some_and(|path| !plain(path)) {
            let message = "must be the text of a path, at most 512 bytes, without query, fragment, spaces and the parts . \
                           and .. (or be empty: the url as it is)";
            out.bad("/path", message);
        }
    }

    /// Whether the receiver is reached over TLS.
    pub fn is_https(&self) -> bool {
        self.url.get(..8).is_some_and(|head| head.eq_ignore_ascii_case("https://"))
    }

    fn validate_headers(&self, out: &mut Errors) {
        if self.header_names.len() > bounds::HEADERS_MAX {
            out.bad("/headers", "at most 32 headers");
        }
        let mut seen = Vec::new();
        for name in &self.header_names {
            let lower = name.to_ascii_lowercase();
            let at = format!("/headers/{}", name.replace('~', "~0").replace('/', "~1"));
            if !is_token(name) {
                out.bad(&at, "is not a header name");
            } else if is_reserved(&lower) {
                out.bad(&at, "this header is reserved: Gatepost or HTTP itself sets it");
            } else if lower == "authorization" && codec::codec(&self.profile).is_some_and(|c| c.sets_authorization()) {
                out.bad(&at, format!("profile {} needs the header authorization for its own token", self.profile));
            } else if seen.contains(&lower) {
                out.bad(&at, "is given twice (names differ only in case)");
            }
            seen.push(lower);
        }
        if let Some(EndpointAuth::Header { name }) = &self.auth
            && (!is_token(name) || is_reserved(&name.to_ascii_lowercase()))
        {
            out.bad("/auth/name", "is not a header name that can be set");
        }
    }
}

struct Errors(Vec<FieldError>);

impl Errors {
    fn bad(&mut self, pointer: &str, message: impl Into<String>) {
        self.0.push(FieldError { pointer: pointer.into(), message: message.into() });
    }
}

fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name.len() <= 128
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

fn is_reserved(lower: &str) -> bool {
    const FIXED: [&str; 14] = [
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "expect",
        "host",
        "keep-alive",
        "te",
        "traceparent",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "user-agent",
    ];
    FIXED.contains(&lower) || ["webhook-", "gatepost-", "proxy-"].iter().any(|prefix| lower.starts_with(prefix))
}

mod read;

#[cfg(test)]
#[path = "hook_tests.rs"]
mod tests;
