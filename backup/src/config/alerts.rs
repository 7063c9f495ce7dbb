//! How people are told of what they have to see to, as the configuration says it. Telling them is the program's business.
//!
//! A password stands in a file of its own, for the configuration may be read by anybody.

use std::path::PathBuf;
use std::time::Duration;

use url::{Host, Url};

use super::absolute;
use super::table::Table;
use crate::schedule::seconds_of;

/// How often it is looked, if nothing is said.
const USUAL_EVERY: Duration = Duration::from_secs(300);
/// Who looks less often hears of nothing in time.
const EVERY_MAX: i64 = 24 * 3600;

/// Looking, and ways of telling.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alerts {
    /// How often it is looked.
    pub every: Duration,
    /// By mail.
    pub mail: Option<Mail>,
    /// By a request to this address.
    pub webhook: Option<Url>,
}

impl Default for Alerts {
    fn default() -> Self {
        Self { every: USUAL_EVERY, mail: None, webhook: None }
    }
}

/// Telling by mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// To whom; never empty.
    pub to: Vec<String>,
    /// From whom.
    pub from: String,
    /// By which server.
    pub server: Server,
    /// Where the password of the server's user stands.
    pub password_file: Option<PathBuf>,
}

/// A server that takes mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// How what is said to it is kept from others.
    pub security: Security,
    /// Its name or number, as in an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// As whom it is used.
    pub user: Option<String>,
}

/// How what is said to a server is kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// Not at all.
    None,
    /// By TLS that is begun when both have greeted.
    StartTls,
    /// By TLS from the beginning.
    Tls,
}

/// Schemes of addresses of servers, with their ports.
const SCHEMES: [(&str, Security, u16); 3] =
    [("smtp", Security::None, 25), ("smtp+starttls", Security::StartTls, 587), ("smtps", Security::Tls, 465)];

impl Alerts {
    pub(super) fn read(&mut self, table: Table<'_>) {
        self.every = table.parsed("every", every).unwrap_or(self.every);
        self.mail = table.table("mail").and_then(Mail::read).or(self.mail.take());
        self.webhook = table.parsed("webhook", webhook).or(self.webhook.take());
        table.end();
    }
}

impl Mail {
    fn read(table: Table<'_>) -> Option<Self> {
        for key in ["to", "from", "server"] {
            if !table.has(key) {
                table.note(format!(
                    "it needs `{key}`, as in {{ to = [\"ops@example.org\"], from = \"holdfast@example.org\", server = \"smtp://localhost:25\" }}"
                ));
            }
        }
        let to = table.texts("to");
        if to.is_empty() && table.has("to") {
            table.note_at("to", "nobody is named; it is a list of addresses");
        }
        let to: Vec<_> = to
            .into_iter()
            .filter_map(|to| address(to).map_err(|error| table.note_at("to", error)).ok())
            .collect();
        let from = table.parsed("from", address);
        let server = table.parsed("server", server);
        let password_file = table.parsed("password-file", absolute);
        if let Some(server) = &server {
            match (&server.user, table.has("password-file")) {
                (Some(user), false) => table.note(format!("the user {user:?} needs a `password-file`")),
                (None, true) => table.note_at(
                    "password-file",
                    "the address of the server names no user, as in smtps://USER@HOST",
                ),
                _ => {}
            }
        }
        table.end();
        Some(Self { to, from: from?, server: server?, password_file })
    }
}

fn every(text: &str) -> Result<Duration, String> {
    match seconds_of(text)? {
        seconds if seconds > EVERY_MAX => Err("a day is the most".to_owned()),
        seconds => Ok(Duration::from_secs(seconds.unsigned_abs())),
    }
}

/// No name beside it, no comments: what stands in a header must be nothing else.
fn address(text: &str) -> Result<String, String> {
    let plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_graphic() && !b"<>()[]\\,;:\"@".contains(&byte);
        !part.is_empty() && part.bytes().all(allowed)
    };
    match text.split_once('@') {
        Some((user, host)) if plain(user) && plain(host) => Ok(text.to_owned()),
        _ => Err(format!("{text:?} is no address of mail; one is \"ops@example.org\"")),
    }
}

// Addresses may hold secrets, so no mistake in one shows it.

fn server(text: &str) -> Result<Server, String> {
    let form = "it is smtp://HOST:25, smtp+starttls://HOST:587 or smtps://HOST:465, with USER@ before HOST if need be";
    let url = Url::parse(text).map_err(|error| format!("it is no address ({error}): {form}"))?;
    let (security, usual_port) = SCHEMES
        .iter()
        .find(|(scheme, ..)| *scheme == url.scheme())
        .map(|(_, security, port)| (*security, *port))
        .ok_or_else(|| format!("{:?} is no way to a server of mail: {form}", url.scheme()))?;
    if url.password().is_some() {
        return Err("a password stands in a file, which `password-file` names".to_owned());
    }
    if !matches!(url.path(), "" | "/") || url.query().is_some() || url.fragment().is_some() {
        return Err(form.to_owned());
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or(form)?.to_owned();
    let user = match url.username() {
        "" => None,
        user => Some(percent_decoded(user).ok_or(form)?),
    };
    if user.is_some() && security == Security::None && !is_this_machine(&url) {
        return Err(
            "its password would go over the network for all to read: smtp+starttls:// or smtps://".to_owned()
        );
    }
    Ok(Server { security, host, port: url.port().unwrap_or(usual_port), user })
}

fn webhook(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("it is no address ({error}): https://HOST/PATH"))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        other => Err(format!("{other:?} is neither https nor http")),
    }
}

/// Of schemes that it does not know, the parser takes each host for a name.
fn is_this_machine(url: &Url) -> bool {
    match url.host_str().map(|host| Host::parse(host).unwrap_or_else(|_| Host::Domain(host.to_owned()))) {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        None => false,
    }
}

/// `%40` is the at sign of users that are addresses.
fn percent_decoded(text: &str) -> Option<String> {
    let (mut bytes, mut rest) = (Vec::new(), text);
    while let Some((plain, coded)) = rest.split_once('%') {
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(u8::from_str_radix(coded.get(..2)?, 16).ok()?);
        rest = coded.get(2..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok().filter(|user| !user.contains(char::is_control))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::path::Path;

    use super::super::{Config, ConfigError};
    use super::*;

    fn read(text: &str) -> Result<Config, Vec<(usize, String)>> {
        Config::parse(&[("holdfast.toml".into(), text.to_owned())]).map_err(|error| match error {
            ConfigError::Wrong { problems } => problems.into_iter().map(|p| (p.line, p.what)).collect(),
            other => panic!("{other}"),
        })
    }

    const WHOLE: &str = r#"
[alerts]
every = "2 minutes"
webhook = "https://hooks.example.org/T0/secret"
[alerts.mail]
to = ["ops@example.org", "me@localhost"]
from = "holdfast@host"
server = "smtps://ops%40example.org@mail.example.org"
password-file = "/etc/holdfast/mail"
[metrics]
file = "/var/lib/node/holdfast.prom"
"#;

    #[test]
    fn ways_of_telling_are_read_with_what_is_usual() {
        let config = read(WHOLE).unwrap();
        assert_eq!(config.metrics_file.as_deref(), Some(Path::new("/var/lib/node/holdfast.prom")));
        assert_eq!(config.alerts.every, Duration::from_secs(120));
        assert_eq!(config.alerts.webhook.unwrap().as_str(), "https://hooks.example.org/T0/secret");
        let mail = config.alerts.mail.unwrap();
        assert_eq!((mail.to.len(), mail.from.as_str()), (2, "holdfast@host"));
        let user = Some("ops@example.org".to_owned());
        let host = "mail.example.org".to_owned();
        assert_eq!(mail.server, Server { security: Security::Tls, host, port: 465, user });
        let none = read("").unwrap();
        assert_eq!((none.alerts, none.metrics_file), (Alerts::default(), None));
        let of = |address: &str| server(address).map(|server| (server.security, server.host, server.port));
        assert_eq!(of("smtp://localhost"), Ok((Security::None, "localhost".into(), 25)));
        assert_eq!(of("smtp+starttls://[::1]:5870"), Ok((Security::StartTls, "[::1]".into(), 5870)));
    }

    #[test]
    fn each_mistake_has_its_line_and_shows_no_secret() {
        let mail = |server: &str| {
            format!(
                "[alerts.mail]\nto = [\"a@b\"]\nfrom = \"c@d\"\nserver = \"{server}\"\npassword-file = \"/p\"\n"
            )
        };
        let table: [(String, usize, &str); 15] = [
            ("[alerts]\nevery = \"10 seconds\"".into(), 2, "a minute is the least"),
            ("[alerts]\nevery = \"2 days\"".into(), 2, "a day is the most"),
            ("[alerts]\nwebhook = \"ftp://geheim@x/geheim\"".into(), 2, "neither https nor http"),
            ("[alerts]\nwebhook = \"geheim\"".into(), 2, "no address"),
            ("[alerts]\nmails = 1".into(), 2, "not known"),
            ("[alerts]\n[alerts.mail]\nto = [\"a@b\"]\nfrom = \"c@d\"".into(), 2, "needs `server`"),
            (mail("smtps://u:geheim@x"), 4, "`password-file` names"),
            (mail("smtp://u@mail.example.org"), 4, "for all to read"),
            (mail("imap://u@x"), 4, "smtp+starttls://"),
            (mail("smtp://u@localhost/geheim"), 4, "smtp+starttls://"),
            (mail("smtp://localhost"), 5, "names no user"),
            (mail("smtps://u@x").replace("password-file = \"/p\"\n", ""), 1, "needs a `password-file`"),
            (mail("smtps://u@x").replace("a@b", "a@b\\r\\nBcc: x@y"), 2, "no address of mail"),
            (mail("smtps://u@x").replace("c@d", "C <c@d>"), 3, "no address of mail"),
            ("[metrics]\nfile = \"holdfast.prom\"".into(), 2, "no absolute path"),
        ];
        for (text, line, what) in table {
            let told = read(&text).unwrap_err();
            assert!(told.iter().any(|(at, said)| *at == line && said.contains(what)), "{text}\n{told:?}");
            assert!(!told.iter().any(|(_, said)| said.contains("geheim")), "{told:?}");
        }
        assert_eq!(read(&mail("smtp://u@127.0.0.1")).unwrap().alerts.mail.unwrap().server.port, 25);
        assert!(read("[metrics]").unwrap_err()[0].1.contains("needs a file"));
    }

    #[test]
    fn what_two_files_say_is_a_mistake() {
        let files = ["a.toml", "b.toml"].map(|name| (name.into(), WHOLE.to_owned()));
        let Err(ConfigError::Wrong { problems }) = Config::parse(&files) else { panic!() };
        let lines: Vec<usize> = problems.iter().map(|problem| problem.line).collect();
        assert_eq!(lines, [3, 4, 5, 11], "{problems:?}");
        assert!(problems.iter().all(|problem| problem.file == Path::new("b.toml")));
    }
}
