//! How Gatepost proves itself to an endpoint besides the signature (SETTLED, Endpoint auth).

use serde::{Deserialize, Serialize};

/// How we prove ourselves to the receiver besides the signature; the secret parts are kept apart,
/// sealed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EndpointAuth {
    /// `authorization: Bearer …`; secret member `token`.
    Bearer,
    /// `authorization: Basic …`; secret member `password`.
    Basic {
        /// The user.
        username: String,
    },
    /// One header; secret member `value`.
    Header {
        /// Its name.
        name: String,
    },
    /// Client credentials; secret member `client_secret`.
    Oauth2 {
        /// Where tokens come from.
        token_url: String,
        /// Who we are there.
        client_id: String,
        /// What we ask for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<String>,
        /// Whom the token is for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        audience: Option<String>,
    },
    /// A client certificate (PEM); secret member `private_key`.
    Mtls {
        /// The certificate chain.
        certificate: String,
    },
}

impl EndpointAuth {
    /// The name of the secret member.
    pub fn secret_member(&self) -> &'static str {
        match self {
            EndpointAuth::Bearer => "token",
            EndpointAuth::Basic { .. } => "password",
            EndpointAuth::Header { .. } => "value",
            EndpointAuth::Oauth2 { .. } => "client_secret",
            EndpointAuth::Mtls { .. } => "private_key",
        }
    }

    /// Whether it sets the header `authorization`.
    pub fn sets_authorization(&self) -> bool {
        match self {
            EndpointAuth::Bearer | EndpointAuth::Basic { .. } | EndpointAuth::Oauth2 { .. } => true,
            EndpointAuth::Header { name } => name.eq_ignore_ascii_case("authorization"),
            EndpointAuth::Mtls { .. } => false,
        }
    }
}
