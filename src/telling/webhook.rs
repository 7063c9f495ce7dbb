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
    let request = client.build().map_err(said)?.post(url.clone()).header(CONTENT_TYPE, "application/json");
    let answer = request.body(body).send().await.map_err(said)?;
    match answer.status() {
        status if status.is_success() => Ok(()),
        status => Err(format!("it was answered with {status}")),
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
