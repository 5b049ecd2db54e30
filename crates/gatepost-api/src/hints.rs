//! What to do instead, where a request misses the API altogether: the commonest slips have an answer of their
//! own.

use http::header::{ALLOW, AUTHORIZATION};
use http::{HeaderMap, HeaderValue, Method};

use crate::observe;
use crate::problem::{ErrorCode, Problem};

/// Characters of a path that are repeated.
const SHOWN: usize = 200;

/// There is nothing at `path`.
pub(crate) fn no_route(path: &str) -> Problem {
    let shown: String = path.chars().take(SHOWN).collect();
    let is_route = |path: &str| observe::template(path) != "unmatched";
    let bare = path.trim_end_matches('/');
    let remedy = if path.starts_with("/v1/v1/") {
        "; the address of the server is given without /v1"
    } else if bare != path && is_route(bare) {
        "; leave out the slash at its end"
    } else if !path.starts_with("/v1/") && is_route(&format!("/v1{bare}")) {
        "; paths of this API begin with /v1"
    } else {
        ""
    };
    Problem::new(ErrorCode::NotFound, format!("there is no route {shown}{remedy}"))
}

/// The path has other methods: those in `allow`.
pub(crate) fn no_method(method: &Method, allow: Option<&HeaderValue>) -> Problem {
    let shown: String = method.as_str().chars().take(32).collect();
    let has = allow.and_then(|allow| allow.to_str().ok()).unwrap_or_default().replace(',', ", ");
    let problem = Problem::new(ErrorCode::MethodNotAllowed, format!("this path does not have {shown}; it has {has}"));
    match allow {
        Some(allow) => problem.with(ALLOW, allow.clone()),
        None => problem,
    }
}

/// Why no key is found in the headers.
pub(crate) fn no_key(headers: &HeaderMap) -> Problem {
    let mut given = headers.get_all(AUTHORIZATION).into_iter();
    let (Some(value), more) = (given.next(), given.next()) else { return Problem::unauthorized(false) };
    let value = value.to_str().unwrap_or_default();
    let scheme = value.split_once(' ').map(|(scheme, _)| scheme);
    let detail = match scheme {
        _ if more.is_some() => "there are several Authorization headers; send one: Bearer <key>",
        Some(scheme) if scheme.eq_ignore_ascii_case("basic") => {
            "Basic is not read here; send the API key as Authorization: Bearer <key>"
        }
        Some(scheme) if scheme.eq_ignore_ascii_case("bearer") => "there is no key after Bearer",
        None if value.eq_ignore_ascii_case("bearer") => "there is no key after Bearer",
        None => "the key has no scheme before it; send Authorization: Bearer <key>",
        Some(_) => "this scheme is not read here; send the API key as Authorization: Bearer <key>",
    };
    Problem::unauthorized_as(detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_misses_by_little_says_by_what() {
        for (path, remedy) in [
            ("/v1/v1/tenants", "without /v1"),
            ("/v1/tenants/", "slash"),
            ("/tenants/acme/webhooks", "begin with /v1"),
            ("/tenants/acme/webhooks/", "begin with /v1"),
        ] {
            let told = no_route(path).to_value()["detail"].as_str().map(str::to_owned).unwrap_or_default();
            assert!(told.contains(remedy) && told.contains(path), "{path}: {told}");
        }
        let told = no_route("/v2/x").to_value();
        assert_eq!(told["detail"], "there is no route /v2/x");
    }

    #[test]
    fn a_key_that_is_not_sent_as_one_is_told_how() {
        for (given, remedy) in [
            ("gp_0123456789", "no scheme"),
            ("Basic Z3A6", "Basic is not read"),
            ("Bearer", "after Bearer"),
            ("Bearer  ", "after Bearer"),
            ("Token x", "Bearer <key>"),
            ("", "no scheme"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, HeaderValue::from_static(given));
            let told = no_key(&headers).to_value()["detail"].as_str().map(str::to_owned).unwrap_or_default();
            assert!(told.contains(remedy), "{given}: {told}");
            headers.append(AUTHORIZATION, HeaderValue::from_static("Bearer x"));
            assert!(no_key(&headers).to_value()["detail"].as_str().unwrap_or_default().contains("several"));
        }
    }
}
