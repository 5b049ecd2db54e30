//! What can be wrong with a request. No error repeats a secret, a signature or a body.

/// Why a request is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A header that is needed is not there.
    #[error("the header {0} is missing")]
    MissingHeader(String),
    /// A header that may be there once is there more than once: which one was signed cannot be told.
    #[error("the header {0} is there more than once")]
    DuplicateHeader(String),
    /// A header has another form than the scheme's.
    #[error("the header {name} is not {wanted}")]
    MalformedHeader {
        /// Its name.
        name: String,
        /// What it is to be.
        wanted: &'static str,
    },
    /// Signed too long ago: perhaps a replay, perhaps a clock.
    #[error("it was signed {by_s} s ago, which is too long; compare the clocks")]
    TooOld {
        /// Seconds in the past.
        by_s: u64,
    },
    /// Signed in the future.
    #[error("it was signed {by_s} s in the future; compare the clocks")]
    TooNew {
        /// Seconds in the future.
        by_s: u64,
    },
    /// No signature is of a kind that the keys given can judge.
    #[error("there is no signature of the kind {0}, which is what the keys given can judge")]
    NoKnownSignature(&'static str),
    /// `gatepost-key-id` names a public key that was not given: fetch the key set again.
    #[error("it was signed with a public key that was not given (gatepost-key-id {0:?}); fetch the key set again")]
    UnknownKey(String),
    /// There are signatures, but none fits.
    #[error("no signature fits: another secret, or the body was changed on the way")]
    NoMatch,
    /// A token that is right, but made for another body.
    #[error("the token was made for another body")]
    OtherBody,
    /// A token that is right, but made for another address.
    #[error("the token was made for another address (claim aud)")]
    OtherAudience,
    /// A token without a claim that is needed.
    #[error("the token's claim {0} is missing or not what it is to be")]
    Claim(&'static str),
    /// More bytes than were allowed.
    #[error("the body has more than {limit} bytes")]
    TooLarge {
        /// Bytes allowed.
        limit: usize,
    },
    /// Rightly signed, but not of the form expected: another profile, or another `format`.
    #[error("the body is not of the form {form}, at {at:?}: {problem}")]
    Body {
        /// The form.
        form: &'static str,
        /// Where: a JSON pointer.
        at: String,
        /// What is wrong.
        problem: String,
    },
    /// An OPTIONS request from an origin that was not allowed.
    #[error("the origin that asks (webhook-request-origin) is none of those allowed")]
    OriginNotAllowed,
    /// A request that is neither a delivery nor a challenge.
    #[error("this is neither a delivery nor a challenge")]
    NoChallenge,
}

impl Error {
    /// The HTTP status that says so.
    pub fn status(&self) -> http::StatusCode {
        use http::StatusCode as S;
        match self {
            Error::TooLarge { .. } => S::PAYLOAD_TOO_LARGE,
            Error::DuplicateHeader(_) | Error::MalformedHeader { .. } | Error::Body { .. } | Error::NoChallenge => {
                S::BAD_REQUEST
            }
            Error::OriginNotAllowed => S::FORBIDDEN,
            _ => S::UNAUTHORIZED,
        }
    }

    pub(crate) fn malformed(name: &str, wanted: &'static str) -> Error {
        Error::MalformedHeader { name: name.to_owned(), wanted }
    }

    pub(crate) fn body(form: &'static str, at: impl Into<String>, problem: &serde_json::Error) -> Error {
        // The parser's own words may repeat what is in the body; its category and place do not.
        let problem = match problem.classify() {
            serde_json::error::Category::Data => "a member is missing, twice or of another kind",
            _ => "this is not JSON",
        };
        Error::Body { form, at: at.into(), problem: problem.to_owned() }
    }
}

/// Why a text is no secret. Never repeats it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadSecret {
    /// None of the known prefixes.
    #[error("must begin with whsec_ (a shared secret) or whpk_ (an Ed25519 public key)")]
    Prefix,
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Not standard base64 with padding.
    #[error("is not standard base64 (A-Z a-z 0-9 + / with = padding) after its prefix")]
    Base64,
    /// A key that is too short or too long.
    #[error("must hold {wanted} bytes, but holds {length}")]
    Length {
        /// What it is to hold.
        wanted: &'static str,
        /// What it holds.
        length: usize,
    },
    /// A text copied together with the end of its line.
    #[error("ends in white space: leave it out")]
    TrailingBlank,
    /// A private key: receivers need only its public half.
    #[error("is a private key; a receiver needs only the public one (whpk_…)")]
    Private,
}

/// Why a receiver cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// One of the secrets is none.
    #[error("secret number {number} {problem}")]
    Secret {
        /// Which one, from 1.
        number: usize,
        /// What is wrong.
        problem: BadSecret,
    },
    /// No secret and no public key.
    #[error("there is no secret: without one nothing can be verified")]
    NoSecret,
    /// A key set that cannot be used.
    #[error("the key set cannot be used: {0}")]
    KeySet(String),
    /// A name that is no header's.
    #[error("{0:?} is no name of a header")]
    HeaderName(String),
    /// An option the scheme does not have.
    #[error("{option} has no meaning with this signing scheme")]
    NotForScheme {
        /// Which one.
        option: &'static str,
    },
}
