//! Tenants: whose webhooks these are.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{TenantId, TenantKey, Timestamp};

/// Which of a tenant's two worlds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Environment {
    /// The real one.
    #[default]
    Production,
    /// For trying things out.
    Sandbox,
}

impl Environment {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Environment::Production => "production",
            Environment::Sandbox => "sandbox",
        }
    }
}

impl FromStr for Environment {
    type Err = ();

    fn from_str(s: &str) -> Result<Self, ()> {
        match s {
            "production" => Ok(Environment::Production),
            "sandbox" => Ok(Environment::Sandbox),
            _ => Err(()),
        }
    }
}

/// How long what is done with is kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(default)]
pub struct Retention {
    /// Days events (and with them their deliveries) are kept after acceptance.
    pub events_days: u32,
    /// Days the attempts and bodies of finished deliveries are kept.
    pub attempts_days: u32,
}

impl Default for Retention {
    /// SETTLED, settings.
    fn default() -> Self {
        Retention { events_days: 30, attempts_days: 30 }
    }
}

/// The tenant's switch for blocking hooks.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookSwitch {
    /// Hooks are asked.
    #[default]
    Enabled,
    /// Every invocation allows.
    Bypass,
}

impl HookSwitch {
    /// The word used in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            HookSwitch::Enabled => "enabled",
            HookSwitch::Bypass => "bypass",
        }
    }
}

/// How much a tenant may have (set by `admin` only); `None`: no bound but the machine's.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Quotas {
    /// Webhooks.
    pub webhooks: Option<u32>,
    /// Events accepted per second.
    pub events_per_s: Option<u32>,
    /// Deliveries waiting.
    pub pending: Option<u64>,
}

/// What a tenant may set about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantSettings {
    /// No webhook is matched before its endpoint is verified.
    pub require_verification: bool,
    /// Only declared types may be published.
    pub strict_types: bool,
    /// Events of built-in types must fit the schemas that come with Gatepost.
    pub enforce_builtin_schemas: bool,
    /// How long what is done with is kept.
    pub retention: Retention,
    /// The switch for blocking hooks.
    pub hooks: HookSwitch,
    /// How much the tenant may have (set by `admin` only).
    pub quotas: Quotas,
    /// CIDRs opened to this tenant alone, beyond public addresses (set by `admin` only).
    pub allow_nets: Vec<String>,
}

/// A tenant as kept.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tenant {
    /// The store's number.
    pub key: TenantKey,
    /// The caller's id.
    pub id: TenantId,
    /// A name for people.
    pub name: Option<String>,
    /// Production or sandbox.
    pub environment: Environment,
    /// Settings.
    pub settings: TenantSettings,
    /// Grows with every change to the tenant's webhooks (P4).
    pub registry_version: u64,
    /// When it was first put.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}
