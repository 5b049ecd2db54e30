//! [`Receiver`]: a webhook's form and keys, and what is done with its requests.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::challenge::{self, Origins};
use crate::error::{BadSecret, BuildError, Error};
use crate::format::Format;
use crate::headers::{Headers, hint};
use crate::key::{Fixed, Key, Public, Shared, hex, key_set, sha256};
use crate::message::Message;
use crate::reply::Reply;
use crate::scheme::{self, Given, Proven, Verifier};

/// How far the sender's clock may be from ours, either way, unless said otherwise.
pub const TOLERANCE: Duration = Duration::from_secs(300);
/// Bytes of a body that are taken, unless said otherwise.
pub const BODY_MAX: usize = 1024 * 1024;

/// How requests are signed: a webhook's `signing`, which its profile presets.
#[derive(Clone, PartialEq, Eq, Debug, Hash)]
#[non_exhaustive]
pub enum Scheme {
    /// Standard Webhooks: `v1` with `whsec_…` secrets, `v1a` with public keys. A receiver believes only
    /// what its keys can judge.
    Standard,
    /// `t=…,v1=<hex>` in `gatepost-signature`, or in the header named.
    Timestamped(Option<String>),
    /// `sha256=<hex>` in `x-hub-signature-256`, or in the header named. Tells no time.
    GitHub(Option<String>),
    /// Cryptr's `cryptr-signature`.
    Cryptr,
    /// FerrisKey's three headers.
    FerrisKey,
    /// Cymmetri's token in `authorization`.
    Cymmetri,
    /// The header named, whose whole value is the secret (`Bearer …` included, where that is how it
    /// is sent). Proves the sender, not the body: use it over TLS only.
    Header(String),
}

/// The system's clock.
#[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
pub(crate) fn system_time() -> SystemTime {
    SystemTime::now()
}

pub(crate) type Clock = Arc<dyn Fn() -> SystemTime + Send + Sync>;

/// Verifies a webhook's requests and takes them apart. Cheap to clone; to change keys, make another.
///
/// ```
/// use gatepost_receiver::Receiver;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// // Both secrets, while a rotation overlaps.
/// let receiver = Receiver::standard()
///     .secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")
///     .secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
///     .build()?;
///
/// # let sent_at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_614_265_330);
/// # let body = br#"{"test": 2432232314}"#;
/// let headers = [
///     ("Webhook-Id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
///     ("Webhook-Timestamp", "1614265330"),
///     ("Webhook-Signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
/// ];
/// // `verify` judges by the system's clock; `verify_at` by a time of one's own.
/// let proof = receiver.verify_at(&headers, body, sent_at)?;
/// assert_eq!(proof.key, 1);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Receiver(Arc<Inner>);

struct Inner {
    verifier: Verifier,
    format: Format,
    tolerance: Duration,
    body_max: usize,
    origins: Origins,
    clock: Clock,
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("format", &self.0.format).finish_non_exhaustive()
    }
}

/// What a signature proved.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Proof {
    /// Which of the keys fitted, in the order given: secrets first, then public keys.
    pub key: usize,
    /// When it was signed, where the scheme says so.
    pub signed_at: Option<SystemTime>,
    /// The message's id, where the scheme carries one.
    pub id: Option<String>,
}

impl Receiver {
    /// For a webhook of profile `standard`.
    pub fn standard() -> Builder {
        Builder::new(Scheme::Standard, Format::Standard)
    }

    /// For a webhook of profile `cloudevents`.
    pub fn cloudevents() -> Builder {
        Builder::new(Scheme::Standard, Format::CloudEvents)
    }

    /// For a webhook of profile `cryptr`; the secret is the text of `signature_key`.
    pub fn cryptr() -> Builder {
        Builder::new(Scheme::Cryptr, Format::Cryptr)
    }

    /// For a webhook of profile `ferriskey`.
    pub fn ferriskey() -> Builder {
        Builder::new(Scheme::FerrisKey, Format::FerrisKey)
    }

    /// For a webhook of profile `okta`, known by the value of this header.
    pub fn okta(header: &str) -> Builder {
        Builder::new(Scheme::Header(header.to_owned()), Format::Okta)
    }

    /// For a webhook of profile `cymmetri`.
    pub fn cymmetri() -> Builder {
        Builder::new(Scheme::Cymmetri, Format::Cymmetri)
    }

    /// Verifies a delivery and takes it apart, by the system's clock.
    ///
    /// # Errors
    /// Names the first thing that is wrong: size, headers, time, signature, form.
    pub fn receive(&self, headers: &impl Headers, body: &[u8]) -> Result<Message, Error> {
        self.receive_at(headers, body, (self.0.clock)())
    }

    /// Verifies a delivery and takes it apart.
    ///
    /// # Errors
    /// Names the first thing that is wrong: size, headers, time, signature, form.
    pub fn receive_at(&self, headers: &impl Headers, body: &[u8], now: SystemTime) -> Result<Message, Error> {
        let proven = self.prove(headers, body, now)?;
        self.message(headers, body, proven)
    }

    /// Verifies a request and does not look into its body, by the system's clock.
    ///
    /// # Errors
    /// Names the first thing that is wrong: size, headers, time, signature.
    pub fn verify(&self, headers: &impl Headers, body: &[u8]) -> Result<Proof, Error> {
        self.verify_at(headers, body, (self.0.clock)())
    }

    /// Verifies a request and does not look into its body.
    ///
    /// # Errors
    /// Names the first thing that is wrong: size, headers, time, signature.
    pub fn verify_at(&self, headers: &impl Headers, body: &[u8], now: SystemTime) -> Result<Proof, Error> {
        let proven = self.prove(headers, body, now)?;
        let id = proven.id.map(|(id, _)| id);
        Ok(Proof { key: proven.key, signed_at: proven.signed_at.map(at), id })
    }

    /// Answers a request that is no delivery but asks whether this endpoint wants any: Okta's GET with a
    /// challenge, the OPTIONS handshake of CloudEvents. A GET has to carry the secret too, where the
    /// secret is a header ([`Scheme::Header`]).
    ///
    /// # Errors
    /// It is none of these, the secret is missing, or the origin is none of those allowed.
    pub fn challenge(&self, method: &http::Method, headers: &impl Headers) -> Result<Reply, Error> {
        match *method {
            http::Method::GET => {
                let reply = challenge::okta(headers)?;
                if let Verifier::Fixed(_) = self.0.verifier {
                    self.prove(headers, b"", UNIX_EPOCH)?;
                }
                Ok(reply)
            }
            http::Method::OPTIONS => challenge::options(headers, &self.0.origins),
            _ => Err(Error::NoChallenge),
        }
    }

    /// Bytes of a body that are taken.
    pub fn body_max(&self) -> usize {
        self.0.body_max
    }

    pub(crate) fn now(&self) -> SystemTime {
        (self.0.clock)()
    }

    pub(crate) fn prove(&self, headers: &dyn Headers, body: &[u8], now: SystemTime) -> Result<Proven, Error> {
        if body.len() > self.0.body_max {
            return Err(Error::TooLarge { limit: self.0.body_max });
        }
        let given = Given { headers, body, now: seconds_of(now), tolerance: self.0.tolerance };
        self.0.verifier.verify(&given)
    }

    fn message(&self, headers: &dyn Headers, body: &[u8], proven: Proven) -> Result<Message, Error> {
        let mut read = self.0.format.read(body)?;
        let event_id = hint(headers, "gatepost-event-id");
        let delivery_id = hint(headers, "gatepost-delivery-id");
        // A token's own id counts attempts: what comes before is the delivery's.
        let shorten = |id: String| match (&proven.claims, id.split_once(':')) {
            (Some(_), Some((delivery, _))) => delivery.to_owned(),
            _ => id,
        };
        let (id, id_is_signed) = match (proven.id, read.id) {
            (Some((id, signed)), _) => (shorten(id), signed),
            (None, Some(id)) => (id, proven.covers_body),
            (None, None) => match event_id.or(delivery_id) {
                Some(id) => (id.to_owned(), false),
                None => (format!("sha256:{}", hex(&sha256(body))), proven.covers_body),
            },
        };
        if !read.own_ids {
            read.events.iter_mut().for_each(|event| event.id.clone_from(&id));
        }
        if let (Some(point), [event]) = (proven.claims.and_then(|claims| claims.point), read.events.as_mut_slice()) {
            event.kind = point;
        }
        Ok(Message {
            id,
            id_is_signed,
            events: read.events,
            is_batch: read.is_batch,
            signed_at: proven.signed_at.map(at),
            key: proven.key,
            delivery_id: delivery_id.map(str::to_owned),
            attempt: hint(headers, "gatepost-attempt").and_then(|text| text.parse().ok()),
            position: hint(headers, "gatepost-position").and_then(|text| text.parse().ok()),
            test: hint(headers, "gatepost-test") == Some("true"),
        })
    }
}

/// Unix seconds of a time.
pub(crate) fn seconds_of(time: SystemTime) -> i64 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_secs()).map_or(i64::MIN, |s| -s),
    }
}

/// The time of Unix seconds that were verified, which are not negative.
fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds.unsigned_abs())).unwrap_or(UNIX_EPOCH)
}

/// Makes a [`Receiver`].
#[derive(Clone)]
#[must_use]
pub struct Builder {
    scheme: Scheme,
    format: Format,
    secrets: Vec<String>,
    public_keys: Vec<(Option<String>, String)>,
    key_sets: Vec<Vec<u8>>,
    audience: Option<String>,
    tolerance: Option<Duration>,
    body_max: usize,
    origins: Origins,
    clock: Clock,
}

impl Builder {
    fn new(scheme: Scheme, format: Format) -> Builder {
        Builder {
            scheme,
            format,
            secrets: Vec::new(),
            public_keys: Vec::new(),
            key_sets: Vec::new(),
            audience: None,
            tolerance: None,
            body_max: BODY_MAX,
            origins: Origins::default(),
            clock: Arc::new(system_time),
        }
    }

    /// One more secret; any that fits is enough. `whsec_…` (or `whpk_…`) for `standard` and
    /// `cloudevents`; else the text as it is printed. Of [`Scheme::Header`] the header's whole value.
    pub fn secret(mut self, text: impl Into<String>) -> Self {
        self.secrets.push(text.into());
        self
    }

    /// One more public key (`whpk_…`), with the name that `gatepost-key-id` calls it by.
    pub fn public_key(mut self, id: impl Into<String>, text: impl Into<String>) -> Self {
        self.public_keys.push((Some(id.into()), text.into()));
        self
    }

    /// The Ed25519 keys of a JSON Web Key Set, as answered by `…/jwks.json`; fetching it is the caller's.
    /// On [`Error::UnknownKey`] fetch it again and make another receiver.
    pub fn key_set(mut self, json: impl Into<Vec<u8>>) -> Self {
        self.key_sets.push(json.into());
        self
    }

    /// Another way of signing than the profile's (the webhook's `signing`).
    pub fn signing(mut self, scheme: Scheme) -> Self {
        self.scheme = scheme;
        self
    }

    /// Another form of bodies than the profile's (the webhook's `format`).
    pub fn format(mut self, format: Format) -> Self {
        self.format = format;
        self
    }

    /// The address a token must be for: the URL that is called, exactly ([`Scheme::Cymmetri`]).
    pub fn audience(mut self, url: impl Into<String>) -> Self {
        self.audience = Some(url.into());
        self
    }

    /// How far clocks may differ, either way; default [`TOLERANCE`].
    pub fn tolerance(mut self, tolerance: Duration) -> Self {
        self.tolerance = Some(tolerance);
        self
    }

    /// Bytes of a body that are taken; default [`BODY_MAX`].
    pub fn body_max(mut self, bytes: usize) -> Self {
        self.body_max = bytes;
        self
    }

    /// A host that may send, as it calls itself in `webhook-request-origin` (handshake by OPTIONS).
    pub fn allow_origin(mut self, host: impl Into<String>) -> Self {
        self.origins.hosts.push(host.into());
        self
    }

    /// The most requests a minute this endpoint takes (handshake by OPTIONS); default: as many as asked.
    pub fn allow_rate(mut self, per_minute: u32) -> Self {
        self.origins.per_minute = Some(per_minute);
        self
    }

    /// Another clock than the system's, for tests.
    pub fn clock(mut self, clock: impl Fn() -> SystemTime + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The receiver.
    ///
    /// # Errors
    /// A secret is none, there is none, or an option has no meaning with this way of signing.
    pub fn build(self) -> Result<Receiver, BuildError> {
        self.check()?;
        let verifier = self.verifier()?;
        Ok(Receiver(Arc::new(Inner {
            verifier,
            format: self.format,
            tolerance: self.tolerance.unwrap_or(TOLERANCE),
            body_max: self.body_max,
            origins: self.origins,
            clock: self.clock,
        })))
    }

    fn check(&self) -> Result<(), BuildError> {
        let not = |option| Err(BuildError::NotForScheme { option });
        let public = !self.public_keys.is_empty() || !self.key_sets.is_empty();
        match &self.scheme {
            Scheme::Standard if self.audience.is_some() => not("audience"),
            Scheme::Standard => Ok(()),
            _ if public => not("a public key"),
            Scheme::Cymmetri => Ok(()),
            _ if self.audience.is_some() => not("audience"),
            Scheme::GitHub(_) | Scheme::Header(_) if self.tolerance.is_some() => not("tolerance"),
            _ => Ok(()),
        }
    }

    fn verifier(&self) -> Result<Verifier, BuildError> {
        Ok(match &self.scheme {
            Scheme::Standard => Verifier::Standard(scheme::Standard { keys: self.standard_keys()? }),
            Scheme::Timestamped(header) => Verifier::List(scheme::List {
                header: header_name(header.as_deref().unwrap_or("gatepost-signature"))?,
                style: scheme::Style::Timestamped,
                keys: self.texts(Shared::text)?,
            }),
            Scheme::Cryptr => Verifier::List(scheme::List {
                header: "cryptr-signature".to_owned(),
                style: scheme::Style::Cryptr,
                keys: self.texts(Shared::text)?,
            }),
            Scheme::GitHub(header) => Verifier::GitHub(scheme::GitHub {
                header: header_name(header.as_deref().unwrap_or("x-hub-signature-256"))?,
                keys: self.texts(Shared::text)?,
            }),
            Scheme::FerrisKey => Verifier::FerrisKey(scheme::FerrisKey { keys: self.texts(Shared::text)? }),
            Scheme::Cymmetri => {
                Verifier::Token(scheme::Token { keys: self.texts(Shared::text)?, audience: self.audience.clone() })
            }
            Scheme::Header(header) => {
                Verifier::Fixed(scheme::FixedHeader { header: header_name(header)?, values: self.texts(Fixed::new)? })
            }
        })
    }

    fn texts<T>(&self, make: impl Fn(&str) -> Result<T, BadSecret>) -> Result<Vec<T>, BuildError> {
        if self.secrets.is_empty() {
            return Err(BuildError::NoSecret);
        }
        let number = |(number, text): (usize, &String)| {
            make(text).map_err(|problem| BuildError::Secret { number: number + 1, problem })
        };
        self.secrets.iter().enumerate().map(number).collect()
    }

    fn standard_keys(&self) -> Result<Vec<Key>, BuildError> {
        let mut keys = if self.secrets.is_empty() { Vec::new() } else { self.texts(Key::parse)? };
        for (id, text) in &self.public_keys {
            let number = keys.len() + 1;
            let key = Public::new(id.as_deref(), text).map_err(|problem| BuildError::Secret { number, problem })?;
            keys.push(Key::Public(key));
        }
        for json in &self.key_sets {
            keys.extend(key_set(json)?.into_iter().map(Key::Public));
        }
        if keys.is_empty() { Err(BuildError::NoSecret) } else { Ok(keys) }
    }
}

/// A header's name, in lower case.
fn header_name(name: &str) -> Result<String, BuildError> {
    match http::HeaderName::try_from(name) {
        Ok(name) => Ok(name.as_str().to_owned()),
        Err(_) => Err(BuildError::HeaderName(name.to_owned())),
    }
}
