//! What a service manager is told of what serves: a datagram with lines of `NAME=VALUE` to the socket that it names in `NOTIFY_SOCKET`
//! (sd_notify(3)). Nobody else is told anything, and who cannot be told keeps nobody from anything.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use crate::terminal::text;

/// Where a service manager wants to be told. The variable is no business of what this process starts.
pub const SOCKET: &str = "NOTIFY_SOCKET";

/// How often a service manager wants to be told that all is well, in microseconds, or it ends the process.
pub const WATCHDOG: &str = "WATCHDOG_USEC";

/// A service manager that reads nothing for so long is not told.
const PATIENCE: Duration = Duration::from_secs(1);

/// Whoever started this process, if he wants to know when it serves.
#[derive(Debug)]
pub struct Manager(Option<OsString>);

impl Manager {
    /// The one that the environment names.
    pub fn named(socket: Option<OsString>) -> Self {
        Self(socket)
    }

    /// It serves, and this is what.
    pub fn ready(&self, status: &str) {
        let status = text::printable(status.as_bytes());
        self.tell(&format!("READY=1\nMAINPID={}\nSTATUS={status}", std::process::id()));
    }

    /// It is well, and does this.
    pub fn alive(&self, status: &str) {
        self.tell(&format!("WATCHDOG=1\nSTATUS={}", text::printable(status.as_bytes())));
    }

    /// It ends.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    fn tell(&self, state: &str) {
        let told = self.0.as_deref().map_or(Ok(()), |socket| send(socket, state));
        if let Err(error) = told {
            tracing::debug!("the service manager could not be told: {error}");
        }
    }
}

fn send(socket: &OsStr, state: &str) -> io::Result<()> {
    let address = match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        [b'/', ..] => SocketAddr::from_pathname(socket)?,
        // Such as that of a host by which this whole machine was started.
        _ => return Err(io::ErrorKind::Unsupported.into()),
    };
    let from = UnixDatagram::unbound()?;
    from.set_write_timeout(Some(PATIENCE))?;
    from.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_served_says_nothing_else_to_the_service_manager() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        Manager::named(Some(path.clone().into())).ready("mounted at /mnt/a\nMAINPID=1");
        let mut bytes = [0; 256];
        let len = socket.recv(&mut bytes).unwrap();
        let told = format!("READY=1\nMAINPID={}\nSTATUS=mounted at /mnt/a\\x0aMAINPID=1", std::process::id());
        assert_eq!(std::str::from_utf8(&bytes[..len]), Ok(told.as_str()));
        Manager::named(Some(path.into())).alive("backup web\nREADY=1");
        let len = socket.recv(&mut bytes).unwrap();
        assert_eq!(std::str::from_utf8(&bytes[..len]), Ok("WATCHDOG=1\nSTATUS=backup web\\x0aREADY=1"));
    }

    #[test]
    fn who_cannot_be_told_is_not_waited_for() {
        for nowhere in ["/nonexistent/notify", "@holdfast-test-nobody", "vsock:2:1234", "relative", "@"] {
            assert!(send(OsStr::new(nowhere), "READY=1").is_err(), "{nowhere}");
            Manager::named(Some(nowhere.into())).stopping();
        }
        Manager::named(None).stopping();
        let dir = tempfile::tempdir().unwrap();
        let _full = UnixDatagram::bind(dir.path().join("notify")).unwrap();
        let manager = Manager::named(Some(dir.path().join("notify").into()));
        let told = (0..10_000).map(|_| send(manager.0.as_deref().unwrap(), "READY=1"));
        assert!(told.into_iter().any(|told| told.is_err()), "nobody reads it");
    }
}
