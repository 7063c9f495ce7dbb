//! Telling by a request: one JSON object, by POST.
//!
//! The address may be a secret, as those of chat services are: no error shows it.

use std::time::Duration;

use reqwest::header::CONTENT_TYPE;
use url::{Host, Url};

use super::{Message, in_a_line};

/// How long all of it may take.
const LIMIT: Duration = Duration::from_secs(30);

/// Tells it.
pub async fn post(url: &Url, message: &Message) -> Result<(), String> {
    let body = serde_json::to_vec(message).map_err(|error| error.to_string())?;
    let mut client = reqwest::Client::builder().timeout(LIMIT).redirect(reqwest::redirect::Policy::none());
    if is_this_machine(url) {
        client = client.no_proxy();
    }
    let said = |error: reqwest::Error| in_a_line(&error.without_url());
    let client = client.build().map_err(|error| named(said(error)))?;
    let request = client.post(url.clone()).header(CONTENT_TYPE, "application/json");
    let answer = request.body(body).send().await.map_err(said)?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("it was answered with {status}")),
    }
}

/// What is missing where no certificates can be loaded, which are loaded for `http://` as well.
fn named(error: String) -> String {
    match error.contains("No CA certificates") {
        true => format!("{error}. The package ca-certificates is missing: `apt install ca-certificates`"),
        false => error,
    }
}

fn is_this_machine(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_certificates_are_missing_their_package_is_named() {
        let error = "builder error: unexpected error: No CA certificates were loaded from the system";
        assert!(named(error.to_owned()).contains("`apt install ca-certificates`"));
        assert_eq!(named("no route".to_owned()), "no route");
    }
}
