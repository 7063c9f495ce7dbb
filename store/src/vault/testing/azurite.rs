//! The emulator of Azure Blob Storage, as a process that ends with the test.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::vault::VaultError;
use crate::vault::address::{Secret, VaultAddress};
use crate::vault::azure::AzureCredential;

/// The line in which it tells its port.
const LISTENS: &str = "listens on http://127.0.0.1:";

/// A running emulator; dropping it ends it. Its data is in memory, so keep it small.
#[derive(Debug)]
pub struct Azurite {
    child: Child,
    port: u16,
}

impl Azurite {
    /// The account that every emulator has.
    pub const ACCOUNT: &str = "devstoreaccount1";
    /// The published key of that account, a secret of nobody.
    pub const KEY: &str =
        "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

    /// Starts one: `main_js` is `dist/src/blob/main.js` of the npm package `azurite`, run by `node`. `options` come after ours.
    pub fn start(main_js: &Path, options: &[&str]) -> io::Result<Self> {
        let mut child = Command::new("node")
            .arg(main_js)
            .args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--disableTelemetry"])
            .args(["--inMemoryPersistence", "--extentMemoryLimit", "2048"])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let stdout = child.stdout.take();
        let mut emulator = Self { child, port: 0 };
        let mut lines = BufReader::new(stdout.ok_or(io::ErrorKind::BrokenPipe)?);
        emulator.port = read_port(&mut lines)?;
        // It stops when nobody reads what it says.
        std::thread::spawn(move || io::copy(&mut lines, &mut io::sink()));
        Ok(emulator)
    }

    /// One emulator for all tests that run at the moment, started with `--skipApiVersionCheck`; the last one ends it.
    pub fn shared(main_js: &Path) -> io::Result<Arc<Self>> {
        static RUNNING: Mutex<Weak<Azurite>> = Mutex::new(Weak::new());
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(emulator) = running.upgrade() {
            return Ok(emulator);
        }
        let emulator = Arc::new(Self::start(main_js, &["--skipApiVersionCheck"])?);
        *running = Arc::downgrade(&emulator);
        Ok(emulator)
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The vault `name` in it, reached through `port`: its own, or that of a proxy before it.
    ///
    /// # Errors
    /// `Invalid` if `name` can be no vault's.
    pub fn address(name: &str, port: u16) -> Result<VaultAddress, VaultError> {
        format!("azure+http://127.0.0.1:{port}/{}/{name}", Self::ACCOUNT).parse()
    }

    /// What opens it.
    pub fn credential() -> AzureCredential {
        AzureCredential::SharedKey(Secret::new(Self::KEY))
    }
}

impl Drop for Azurite {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_port(lines: &mut impl BufRead) -> io::Result<u16> {
    let mut said = String::new();
    // What it says before it listens is a few lines; more would be another program.
    let mut lines = lines.take(64 * 1024);
    loop {
        let mut line = String::new();
        if lines.read_line(&mut line)? == 0 {
            return Err(io::Error::other(format!("the emulator does not listen: {said}")));
        }
        if let Some((_, port)) = line.split_once(LISTENS) {
            let digits: String = port.chars().take_while(char::is_ascii_digit).collect();
            return digits.parse().map_err(io::Error::other);
        }
        said += &line;
    }
}
