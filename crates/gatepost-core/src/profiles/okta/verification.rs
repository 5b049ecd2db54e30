//! Mode `okta`: one GET with a challenge in a header, whose value has to come back in JSON. It is the
//! only GET ever sent.

use std::borrow::Cow;

use bytes::Bytes;
use serde_json::Value;

use super::super::verification::{Answer, Ask, AskFacts, Challenge, VerificationMode};

/// The mode's name.
pub(super) const NAME: &str = "okta";
const CHALLENGE: &str = "x-okta-verification-challenge";

pub(super) struct HeaderChallenge;

impl VerificationMode for HeaderChallenge {
    fn name(&self) -> &'static str {
        NAME
    }

    fn ask(&self, facts: &AskFacts<'_>) -> Ask {
        let headers = vec![
            (Cow::Borrowed("accept"), "application/json".to_owned()),
            (Cow::Borrowed(CHALLENGE), facts.nonce.to_owned()),
        ];
        Ask::Challenge(Challenge { method: "GET", headers, body: Bytes::new(), retries: 1 })
    }

    fn judge(&self, facts: &AskFacts<'_>, answer: &Answer<'_>) -> Result<(), String> {
        if answer.status != 200 {
            return Err(format!("the endpoint answered {}; wanted is 200", answer.status));
        }
        let wanted = "wanted is {\"verification\":\"…\"} with the value of X-Okta-Verification-Challenge";
        let body = answer.json().map_err(|why| format!("{why}; {wanted}"))?.unwrap_or_default();
        match body.get("verification").and_then(Value::as_str) {
            Some(value) if value == facts.nonce => Ok(()),
            Some(_) => Err(format!("verification has another value; {wanted}")),
            None => Err(format!("the answer has no verification; {wanted}")),
        }
    }
}
