//! The options of webhooks: those that every profile has, and its own.

use serde_json::{Map, Value};

use super::Profile;
use crate::http_versions::HttpVersions;
use crate::webhook::WebhookConfig;

const HTTP: &str = "http";

/// Everything wrong with a webhook's options: pointers below `/options`, and what.
pub fn check_options(profile: &dyn Profile, options: &Map<String, Value>) -> Vec<(String, String)> {
    let Some(http) = options.get(HTTP) else { return profile.check_options(options) };
    let mut own = options.clone();
    own.remove(HTTP);
    let mut errors = profile.check_options(&own);
    if http.as_str().and_then(HttpVersions::parse).is_none() {
        errors.push((format!("/{HTTP}"), "must be \"auto\" or \"1.1\"".to_owned()));
    }
    errors
}

/// Whether a webhook's endpoint is called over HTTP/1.1 only.
pub fn http1_only(config: &WebhookConfig) -> bool {
    let http = config.options.get(HTTP).and_then(Value::as_str).and_then(HttpVersions::parse);
    http == Some(HttpVersions::Http1)
}

/// Every member of `options` that is not in `known`, as [`Profile::check_options`] answers it.
pub fn unknown_options(options: &Map<String, Value>, known: &[&str]) -> Vec<(String, String)> {
    let unknown = options.keys().filter(|name| !known.contains(&name.as_str()));
    let message = if known.is_empty() {
        format!("is no option of this profile; it has only {HTTP}, as every profile has")
    } else {
        format!("is no option of this profile; it has {}", known.join(", "))
    };
    unknown.map(|name| (format!("/{}", name.replace('~', "~0").replace('/', "~1")), message.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::super::all;
    use super::*;

    #[test]
    fn every_profile_can_be_held_to_http_1_1() {
        let of = |text: &str| serde_json::from_str::<Map<String, Value>>(text).expect("an object");
        for profile in all() {
            for (options, pointers) in [
                (r#"{"http":"1.1"}"#, &[][..]),
                (r#"{"http":"auto"}"#, &[]),
                (r#"{"http":"2"}"#, &["/http"]),
                (r#"{"http":null}"#, &["/http"]),
                (r#"{"http":1.1}"#, &["/http"]),
            ] {
                let mine = |errors: Vec<(String, String)>| errors.into_iter().map(|(at, _)| at).collect::<Vec<_>>();
                let without = mine(profile.check_options(&Map::new()));
                let mut found = mine(check_options(profile, &of(options)));
                found.retain(|at| !without.contains(at));
                assert_eq!(found, pointers, "{} {options}", profile.name());
            }
        }
    }
}
