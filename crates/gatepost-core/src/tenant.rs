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

/// What a tenant may set about itself.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TenantSettings {
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
