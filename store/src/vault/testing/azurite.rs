//! The emulator of Azure Blob Storage, as a process that ends with the test.

use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};

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

    /// A signature for the account with these rights on blobs, containers and the service, which holds until 2090: what follows an address.
    pub fn sas(rights: &str) -> String {
        let (version, services, types, end) = ("2022-11-02", "b", "sco", "2090-01-01T00:00:00Z");
        let text =
            format!("{}\n{rights}\n{services}\n{types}\n\n{end}\n\nhttps,http\n{version}\n\n", Self::ACCOUNT);
        let key = BASE64.decode(Self::KEY).unwrap_or_default();
        let mut mac =
            <Hmac<sha2::Sha256> as KeyInit>::new_from_slice(&key).unwrap_or_else(|_| unreachable!());
        mac.update(text.as_bytes());
        let signature = BASE64.encode(mac.finalize().into_bytes());
        let signature: String = url::form_urlencoded::byte_serialize(signature.as_bytes()).collect();
        format!("?sv={version}&ss={services}&srt={types}&sp={rights}&se={end}&spr=https,http&sig={signature}")
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
