//! `Authorization: Bearer` and a JSON Web Token (RFC 7515, RFC 7519) for one body at one address. One
//! algorithm, HS256: what a token says of its algorithm is compared and never followed.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::{Given, Proven};
use crate::error::Error;
use crate::headers::need;
use crate::json::object;
use crate::key::{Shared, same, sha256, unhex};

const HEADER: &str = "authorization";
const WANTED: &str = "Bearer and a token (HS256)";
/// Bytes of a token.
const TOKEN_MAX: usize = 8 * 1024;
/// How far clocks may differ when a token's end is judged: its own life is its tolerance.
const LEEWAY: Duration = Duration::from_secs(60);

/// What a token says, as far as receivers need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Claims {
    pub(crate) id: String,
    pub(crate) point: Option<String>,
    pub(crate) tenant: Option<String>,
    pub(crate) issued_at: i64,
}

pub(crate) struct Token {
    pub(crate) keys: Vec<Shared>,
    /// The address the token must be for.
    pub(crate) audience: Option<String>,
}

#[derive(Deserialize)]
struct Head {
    alg: String,
    crit: Option<serde_json::Value>,
}

#[derive(Deserialize)]
struct Read {
    jti: Option<String>,
    iat: Option<i64>,
    exp: Option<i64>,
    nbf: Option<i64>,
    aud: Option<Audience>,
    point: Option<String>,
    #[serde(rename = "tenantId")]
    tenant: Option<String>,
    request_body_sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Token {
    pub(crate) fn verify(&self, given: &Given<'_>) -> Result<Proven, Error> {
        let value = need(given.headers, HEADER)?;
        let malformed = || Error::malformed(HEADER, WANTED);
        let (scheme, token) = value.split_once(' ').ok_or_else(malformed)?;
        let token = token.trim_start_matches(' ');
        if !scheme.eq_ignore_ascii_case("bearer") || token.len() > TOKEN_MAX {
            return Err(malformed());
        }
        let (signed, tag) = token.rsplit_once('.').ok_or_else(malformed)?;
        let (head, claims) = signed.split_once('.').ok_or_else(malformed)?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| malformed());
        let (head, tag) = (decode(head)?, decode(tag)?);
        let head: Head = object(&head).map_err(|_| malformed())?;
        if head.alg != "HS256" || head.crit.is_some() {
            return Err(malformed());
        }
        let key = self.keys.iter().position(|key| key.fits(&[signed.as_bytes()], &tag)).ok_or(Error::NoMatch)?;
        // From here on it is our sender who speaks.
        let claims = decode(claims)?;
        let claims: Read = object(&claims).map_err(|_| Error::Claim("(all)"))?;
        let claims = self.judge(claims, given)?;
        Ok(Proven {
            id: Some((claims.id.clone(), true)),
            signed_at: Some(claims.issued_at),
            key,
            claims: Some(claims),
            covers_body: true,
        })
    }

    fn judge(&self, claims: Read, given: &Given<'_>) -> Result<Claims, Error> {
        let leeway = i64::try_from(LEEWAY.min(given.tolerance).as_secs()).unwrap_or(0);
        let end = claims.exp.ok_or(Error::Claim("exp"))?;
        if given.now > end.saturating_add(leeway) {
            return Err(Error::TooOld { by_s: given.now.abs_diff(end) });
        }
        let issued_at = claims.iat.ok_or(Error::Claim("iat"))?;
        let start = claims.nbf.unwrap_or(issued_at).max(issued_at);
        if given.now < start.saturating_sub(leeway) {
            return Err(Error::TooNew { by_s: given.now.abs_diff(start) });
        }
        if let Some(own) = &self.audience {
            let fits = match &claims.aud {
                Some(Audience::One(aud)) => aud == own,
                Some(Audience::Several(all)) => all.contains(own),
                None => false,
            };
            if !fits {
                return Err(Error::OtherAudience);
            }
        }
        const HASH: &str = "request_body_sha256";
        let told = claims.request_body_sha256.ok_or(Error::Claim(HASH))?;
        // Gatepost writes it in hex; others in base64.
        let told = unhex(&told).map(Vec::from).or_else(|| STANDARD.decode(&told).ok()).ok_or(Error::Claim(HASH))?;
        if !same(&told, &sha256(given.body)) {
            return Err(Error::OtherBody);
        }
        let id = claims.jti.ok_or(Error::Claim("jti"))?;
        Ok(Claims { id, point: claims.point, tenant: claims.tenant, issued_at })
    }
}
