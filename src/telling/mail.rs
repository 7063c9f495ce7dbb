//! Telling by mail.

use std::time::Duration;

use holdfast_backup::config::{Mail, Security};
use jiff::tz::TimeZone;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, MessageBuilder};
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::{SmtpTransport, Transport};
use zeroize::Zeroizing;

use super::{Message, in_a_line};

/// How long each answer of the server may take.
const LIMIT: Duration = Duration::from_secs(30);
/// Longest password in a file, so that a wrong name does not fill the memory.
const PASSWORD_MAX: u64 = 4096;

/// Tells it, and waits for the server.
pub fn send(mail: &Mail, message: &Message, zone: &TimeZone) -> Result<(), String> {
    let letter = letter(mail, message, zone)?;
    transport(mail, &message.host)?.send(&letter).map(drop).map_err(|error| in_a_line(&error))
}

fn letter(mail: &Mail, message: &Message, zone: &TimeZone) -> Result<lettre::Message, String> {
    let mailbox = |address: &str| -> Result<Mailbox, String> {
        address.parse().map_err(|error| format!("{address}: {error}"))
    };
    let mut letter: MessageBuilder = lettre::Message::builder()
        .from(mailbox(&mail.from)?)
        .subject(message.title())
        .message_id(None)
        .header(ContentType::TEXT_PLAIN)
        // No notice of absence is wanted.
        .raw_header(HeaderValue::new(
            HeaderName::new_from_ascii_str("Auto-Submitted"),
            "auto-generated".to_owned(),
        ));
    for to in &mail.to {
        letter = letter.to(mailbox(to)?);
    }
    letter.body(message.body(zone)).map_err(|error| in_a_line(&error))
}

fn transport(mail: &Mail, host: &str) -> Result<SmtpTransport, String> {
    let server = &mail.server;
    // Numbers of IPv6 stand in brackets in addresses alone.
    let name = server.host.trim_start_matches('[').trim_end_matches(']');
    let tls = || TlsParameters::new(name.to_owned()).map_err(|error| in_a_line(&error));
    let tls = match server.security {
        Security::None => Tls::None,
        Security::StartTls => Tls::Required(tls()?),
        Security::Tls => Tls::Wrapper(tls()?),
    };
    let mut transport =
        SmtpTransport::builder_dangerous(name).port(server.port).tls(tls).timeout(Some(LIMIT));
    if is_a_name(host) {
        transport = transport.hello_name(ClientId::Domain(host.to_owned()));
    }
    if let (Some(user), Some(_)) = (&server.user, &mail.password_file) {
        transport = transport.credentials(Credentials::new(user.clone(), password(mail)?.to_string()));
    }
    Ok(transport.build())
}

/// Whether a server would take it for the name of a machine.
fn is_a_name(host: &str) -> bool {
    !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// The first line of the file. It is read each time, for passwords are changed.
fn password(mail: &Mail) -> Result<Zeroizing<String>, String> {
    let Some(path) = &mail.password_file else { return Ok(Zeroizing::default()) };
    let failed = |why: &dyn std::fmt::Display| format!("the password in {}: {why}", path.display());
    let meta = std::fs::metadata(path).map_err(|error| failed(&error))?;
    if !meta.is_file() || meta.len() > PASSWORD_MAX {
        return Err(failed(&format!("it is no file of at most {PASSWORD_MAX} bytes")));
    }
    let text = Zeroizing::new(std::fs::read_to_string(path).map_err(|error| failed(&error))?);
    Ok(Zeroizing::new(text.lines().next().unwrap_or_default().to_owned()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use holdfast_backup::alert::Alert;
    use holdfast_backup::alert::telling::Event;
    use holdfast_backup::config::Server;

    use super::super::From;
    use super::*;

    fn mail() -> Mail {
        Mail {
            to: vec!["ops@example.org".into(), "me@example.org".into()],
            from: "holdfast@box".into(),
            server: Server { security: Security::None, host: "[::1]".into(), port: 25, user: None },
            password_file: None,
        }
    }

    fn message(subject: &str) -> Message {
        let alert = Alert {
            name: "job-fails".into(),
            subject: subject.into(),
            since: None,
            what: ".\nwhat".into(),
            next_step: "n".into(),
        };
        let from = From { host: "box".into(), store: "/s".into(), zone: TimeZone::UTC };
        Message::about(Event::Opened, &alert, &from)
    }

    #[test]
    fn a_letter_has_the_headers_that_were_meant_and_no_others() {
        for subject in ["web", "a\r\nBcc: evil@example.org\r\n\r\nbody", "\u{e4}\u{202e}"] {
            let letter = letter(&mail(), &message(subject), &TimeZone::UTC).unwrap();
            let text = String::from_utf8(letter.formatted()).unwrap();
            let (head, _) = text.split_once("\r\n\r\n").unwrap();
            let mut names: Vec<&str> = head
                .split("\r\n")
                .filter(|line| !line.starts_with([' ', '\t']))
                .map(|line| line.split(':').next().unwrap())
                .collect();
            names.sort_unstable();
            let expected = [
                "Auto-Submitted",
                "Content-Transfer-Encoding",
                "Content-Type",
                "Date",
                "From",
                "MIME-Version",
                "Message-ID",
                "Subject",
                "To",
            ];
            assert_eq!(
                names.iter().filter(|name| **name != "MIME-Version").collect::<Vec<_>>(),
                expected.iter().filter(|name| **name != "MIME-Version").collect::<Vec<_>>(),
                "{text}"
            );
            let to: Vec<String> = letter.envelope().to().iter().map(ToString::to_string).collect();
            assert_eq!(to, ["ops@example.org", "me@example.org"]);
        }
    }

    #[test]
    fn a_password_is_the_first_line_of_its_file_and_stands_in_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let of = |path: &std::path::Path| password(&Mail { password_file: Some(path.into()), ..mail() });
        std::fs::write(&path, "geheim \nnot this\n").unwrap();
        assert_eq!(of(&path).unwrap().as_str(), "geheim ");
        std::fs::write(&path, "geheim".repeat(1000)).unwrap();
        let long = of(&path).unwrap_err();
        assert!(long.contains("at most 4096 bytes") && !long.contains("geheim"), "{long}");
        assert!(of(dir.path()).is_err() && of(&dir.path().join("no")).is_err());
    }

    #[test]
    fn each_kind_of_server_can_be_asked_and_a_host_is_named_only_by_what_is_a_name() {
        for security in [Security::None, Security::StartTls, Security::Tls] {
            let server = Server { security, user: None, ..mail().server };
            assert!(transport(&Mail { server, ..mail() }, "box").is_ok(), "{security:?}");
        }
        assert!(is_a_name("box-1.example") && !is_a_name("box\\x0a") && !is_a_name(""));
    }
}
