//! A webhook's signing: which schemes, with which keys. Keys are made, judged, kept and rotated by the
//! kinds its schemes take; all of them live in one list.
//!
//! There is one *shared* secret per webhook, told to its owner: `whsec_…` where a scheme of Standard
//! Webhooks is among its schemes, else a text of the first scheme's own shape; the other schemes take
//! that very text as their key. A scheme with a key pair has a key of its own beside it.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::{Map, Value};

use super::facts::SignFacts;
use super::scheme::{KeyForm, Scheme, SchemeHeader, SignedHeaders, Signer};
use super::verification::VerificationMode;
use super::wire::WireError;
use crate::callback::{self, Callback, CallbackKey};
use crate::secret::Secret;
use crate::signing::{self, BadSecret};
use crate::webhook::{SigningEntry, SigningKey, WebhookConfig};
use crate::{Entropy, Timestamp};

/// Older keys of a kind that still sign: each costs a signature per attempt and room in a header.
const OLD_KEYS_MAX: usize = 4;

/// The schemes of one webhook.
pub struct SigningPlan {
    entries: Vec<(&'static dyn Scheme, Option<String>)>,
    /// Whose header every delivery carries besides.
    mode: Option<&'static dyn VerificationMode>,
    /// Minutes the credential lives that every delivery carries besides, if it does.
    callback: Option<u32>,
}

/// Why a webhook gets no new secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRotation {
    /// An import that is no key of the webhook's schemes.
    #[error("{0}")]
    Import(String),
    /// None of its schemes takes a key.
    #[error("none of this webhook's signing schemes takes a secret")]
    NoKey,
}

/// The two kinds of key there are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Shared,
    Pair,
}

fn kind_of(text: &str) -> Kind {
    if text.starts_with(signing::PRIVATE_PREFIX) { Kind::Pair } else { Kind::Shared }
}

fn kind_of_form(form: KeyForm) -> Option<Kind> {
    match form {
        KeyForm::Nothing => None,
        KeyForm::Standard | KeyForm::Text => Some(Kind::Shared),
        KeyForm::Ed25519 => Some(Kind::Pair),
    }
}

impl SigningPlan {
    /// The plan of a webhook as kept.
    ///
    /// # Errors
    /// When it was registered with something this server does not have (any more).
    pub fn of(config: &WebhookConfig) -> Result<SigningPlan, WireError> {
        let mut plan = SigningPlan::new(&config.profile, config.signing.as_deref())?;
        let mode = config.verification.as_ref().and_then(|verification| super::mode(&verification.mode));
        plan.mode = mode.filter(|mode| mode.delivery_header("").is_some());
        plan.callback = super::profile_or_default(&config.profile).callback_minutes(&config.options);
        Ok(plan)
    }

    /// The plan of a profile with a webhook's own choice of schemes.
    ///
    /// # Errors
    /// When this server has no such profile or scheme.
    pub fn new(profile: &str, choice: Option<&[SigningEntry]>) -> Result<SigningPlan, WireError> {
        let entries = match choice {
            Some(entries) => entries
                .iter()
                .map(|entry| {
                    let scheme = super::scheme(&entry.scheme).ok_or_else(|| WireError::Scheme(entry.scheme.clone()))?;
                    Ok((scheme, entry.header.as_ref().map(|name| name.to_ascii_lowercase())))
                })
                .collect::<Result<_, WireError>>()?,
            None => {
                let profile = super::profile(profile).ok_or_else(|| WireError::Profile(profile.to_owned()))?;
                profile.schemes().iter().map(|scheme| (*scheme, None)).collect()
            }
        };
        Ok(SigningPlan { entries, mode: None, callback: None })
    }

    /// The headers of each entry, in order.
    pub fn headers(&self) -> Vec<Vec<SchemeHeader>> {
        self.entries.iter().map(|(scheme, header)| scheme.headers(header.as_deref())).collect()
    }

    /// The names of the headers [`Signers::sign`] sends, lower-case, in order.
    pub fn header_names(&self) -> Vec<Cow<'static, str>> {
        let mut names: Vec<Cow<'static, str>> = Vec::with_capacity(3);
        for header in self.headers().into_iter().flatten() {
            if !names.contains(&header.name) {
                names.push(header.name);
            }
        }
        names.extend(self.mode.and_then(|mode| mode.delivery_header("")).map(|(name, _)| Cow::Borrowed(name)));
        names.extend(self.callback.map(|_| Cow::Borrowed(callback::HEADER)));
        names
    }

    /// Whether any scheme takes a key.
    pub fn takes_key(&self) -> bool {
        self.wants(Kind::Shared) || self.wants(Kind::Pair)
    }

    /// Whether the requests carry anything only we can have made.
    pub fn signs(&self) -> bool {
        self.entries.iter().any(|(scheme, _)| scheme.key() != KeyForm::Nothing)
    }

    fn wants(&self, kind: Kind) -> bool {
        self.entries.iter().any(|(scheme, _)| kind_of_form(scheme.key()) == Some(kind))
    }

    fn overlaps(&self, kind: Kind) -> bool {
        self.entries.iter().any(|(scheme, _)| kind_of_form(scheme.key()) == Some(kind) && scheme.overlaps())
    }

    /// The form of the shared secret: the strictest its schemes take.
    fn shared_form(&self) -> Option<KeyForm> {
        let forms = || self.entries.iter().map(|(scheme, _)| scheme.key());
        [KeyForm::Standard, KeyForm::Text].into_iter().find(|form| forms().any(|f| f == *form))
    }

    /// Judges a secret to import. Never repeats it.
    ///
    /// # Errors
    /// Says what it is to be.
    pub fn check_secret(&self, secret: &Secret) -> Result<(), String> {
        let text = secret.expose();
        if text.starts_with(signing::PRIVATE_PREFIX) || text.starts_with(signing::PUBLIC_PREFIX) {
            if !self.wants(Kind::Pair) {
                return Err("is an Ed25519 key, which none of this webhook's signing schemes takes".into());
            }
            return signing::check_secret(text).map_err(|problem| problem.to_string());
        }
        match self.shared_form() {
            Some(KeyForm::Standard) if !text.starts_with(signing::SECRET_PREFIX) => match signing::check_secret(text) {
                Err(version @ signing::BadSecret::Version) => Err(version.to_string()),
                _ => Err("must be whsec_ and the base64 text of 24 to 64 bytes".into()),
            },
            Some(KeyForm::Standard) => signing::check_secret(text).map_err(|problem| problem.to_string()),
            Some(_) => signing::check_text(text).map_err(|problem| problem.to_string()),
            None if self.wants(Kind::Pair) => Err("must be whsk_ and the base64 text of an Ed25519 key pair".into()),
            None => Err("is taken by none of this webhook's signing schemes: leave it out".into()),
        }
    }

    /// A new key of a kind.
    fn generate(&self, kind: Kind, entropy: &dyn Entropy) -> Secret {
        match kind {
            // Its failure is one the cipher library does not have; the shared form is none of a pair,
            // and would be refused by its signer, visibly.
            Kind::Pair => signing::generate_ed25519(entropy).unwrap_or_else(|_| signing::generate_secret(entropy)),
            Kind::Shared => {
                let form = self.shared_form();
                let scheme = self.entries.iter().map(|(scheme, _)| scheme).find(|scheme| Some(scheme.key()) == form);
                scheme.map_or_else(|| signing::generate_secret(entropy), |scheme| scheme.generate(entropy))
            }
        }
    }

    /// Whether the shared secret there is, if any, can be the key of these schemes.
    ///
    /// # Errors
    /// Says what it would have to be.
    pub fn suits(&self, keys: &[SigningKey]) -> Result<(), String> {
        if !self.wants(Kind::Shared) {
            return Ok(());
        }
        let present = keys.iter().find(|key| kind_of(key.text.expose()) == Kind::Shared);
        present.map_or(Ok(()), |present| self.check_secret(&present.text))
    }

    /// Makes the keys that are missing, and removes those no scheme takes. For a new webhook, and after
    /// its schemes were changed to ones its secret [suits](Self::suits).
    pub fn complete(&self, keys: &mut Vec<SigningKey>, now: Timestamp, entropy: &dyn Entropy) {
        // Older keys of another shape than the schemes take now sign no more.
        keys.retain(|key| self.wants(kind_of(key.text.expose())) && self.check_secret(&key.text).is_ok());
        for kind in [Kind::Pair, Kind::Shared] {
            if self.wants(kind) && !keys.iter().any(|key| kind_of(key.text.expose()) == kind) {
                keys.insert(0, fresh(self.generate(kind, entropy), now));
            }
        }
    }

    /// Puts a new key in the place of the present one, which signs beside it for `overlap` where a
    /// scheme can carry both. An import renews the kind it is of; without one, every kind is renewed.
    /// Answers the text to tell the owner.
    ///
    /// # Errors
    /// When no scheme takes a key, or not this one.
    pub fn rotate(
        &self,
        keys: &mut Vec<SigningKey>,
        import: Option<Secret>,
        (now, overlap): (Timestamp, Duration),
        entropy: &dyn Entropy,
    ) -> Result<Secret, BadRotation> {
        let new = match import {
            Some(secret) => {
                self.check_secret(&secret).map_err(BadRotation::Import)?;
                vec![secret]
            }
            None => [Kind::Shared, Kind::Pair]
                .into_iter()
                .filter(|kind| self.wants(*kind))
                .map(|kind| self.generate(kind, entropy))
                .collect(),
        };
        let told = new.first().cloned().ok_or(BadRotation::NoKey)?;
        for secret in new.into_iter().rev() {
            let kind = kind_of(secret.expose());
            let until = if self.overlaps(kind) { now.saturating_add(overlap) } else { now };
            let mut older = 0;
            keys.retain_mut(|key| {
                if kind_of(key.text.expose()) != kind {
                    return true;
                }
                key.expires_at = Some(key.expires_at.map_or(until, |at| at.min(until)));
                let stays = key.expires_at.is_some_and(|at| at > now) && key.text != secret;
                older += usize::from(stays);
                stays && older <= OLD_KEYS_MAX
            });
            keys.insert(0, fresh(secret, now));
        }
        Ok(told)
    }

    /// The secret to tell the owner of a new webhook: the shared one, else the key pair's.
    pub fn told<'k>(&self, keys: &'k [SigningKey]) -> Option<&'k Secret> {
        let present = |kind| keys.iter().find(|key| kind_of(key.text.expose()) == kind).map(|key| &key.text);
        present(Kind::Shared).or_else(|| present(Kind::Pair))
    }

    /// Whether there is a public half to show.
    pub fn has_public_key(&self) -> bool {
        self.wants(Kind::Pair)
    }

    /// The public half (`whpk_…`) of the present key pair.
    pub fn public_key(&self, keys: &[SigningKey]) -> Option<String> {
        let pair = keys.iter().find(|key| kind_of(key.text.expose()) == Kind::Pair)?;
        signing::public_key(pair.text.expose()).ok().flatten()
    }

    /// What signs this webhook's attempts, ready for use.
    ///
    /// # Errors
    /// When a key is none of its scheme's.
    pub fn signers(&self, keys: &[SigningKey], options: &Map<String, Value>) -> Result<Signers, BadSecret> {
        let mut signers = Vec::with_capacity(self.entries.len());
        for (scheme, header) in &self.entries {
            let kind = kind_of_form(scheme.key());
            let of_kind = |key: &&SigningKey| kind == Some(kind_of(key.text.expose()));
            let keys: Vec<_> = keys.iter().filter(of_kind).collect();
            if kind.is_some() {
                signers.push(scheme.signer(&keys, header.as_deref(), options)?);
            }
        }
        Ok(Signers { signers, mode: self.mode, minutes: self.callback, callback: None })
    }
}

fn fresh(text: Secret, now: Timestamp) -> SigningKey {
    SigningKey { text, created_at: now, expires_at: None }
}

/// Signs one webhook's attempts.
pub struct Signers {
    signers: Vec<Box<dyn Signer>>,
    mode: Option<&'static dyn VerificationMode>,
    minutes: Option<u32>,
    callback: Option<CallbackKey>,
}

impl Signers {
    /// Makes callback tokens with `key`, where the webhook asks for them.
    #[must_use]
    pub fn calling_back(self, key: impl FnOnce() -> CallbackKey) -> Self {
        Signers { callback: self.minutes.map(|_| key()), ..self }
    }

    /// The headers that carry id, time and signature of one attempt.
    pub fn sign(&self, facts: &SignFacts<'_>) -> SignedHeaders {
        let mut headers = SignedHeaders::new();
        for signer in &self.signers {
            signer.sign(facts, &mut headers);
        }
        if let Some((name, value)) = self.mode.and_then(|mode| mode.delivery_header(facts.frame.public_url)) {
            headers.put(name, value);
        }
        if let (Some(key), Some(minutes)) = (&self.callback, self.minutes) {
            let expires_at = facts.now.saturating_add(Duration::from_secs(60 * u64::from(minutes)));
            let callback = Callback { tenant: facts.frame.tenant_id.clone(), issued_at: facts.now, expires_at };
            headers.put_secret(callback::HEADER, key.token(&callback));
        }
        headers
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
