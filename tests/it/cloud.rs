//! Ways to the emulator of Azure on which requests are counted, bytes are measured, and which can be cut and joined again.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use holdfast_store::vault::testing::{Azurite, HttpProxy};

use crate::testkit::skip;

/// Ways to the emulator: one that counts, and before it one that measures and can be shut.
pub struct Cloud {
    _emulator: Arc<Azurite>,
    pub proxy: HttpProxy,
    pub gate: Gate,
    name: String,
}

impl Cloud {
    /// A vault of its own in the emulator; nothing, visibly, where there is none.
    pub fn start(test: &str) -> Option<Self> {
        let Some(main_js) = std::env::var_os("HOLDFAST_AZURITE") else {
            skip(test, "HOLDFAST_AZURITE names no emulator");
            return None;
        };
        let emulator = Azurite::shared(Path::new(&main_js)).unwrap();
        let proxy = HttpProxy::start(emulator.port()).unwrap();
        let gate = Gate::start(proxy.port());
        let name = test.replace('_', "-").chars().take(40).collect();
        Some(Self { _emulator: emulator, proxy, gate, name })
    }

    /// The address of the vault, by way of gate and proxy.
    pub fn url(&self) -> String {
        Azurite::address(self.name.trim_end_matches('-'), self.gate.port).unwrap().to_string()
    }
}

/// Passes bytes on to a port of this machine, counts those that come back, and can be shut and opened.
pub struct Gate {
    port: u16,
    shut: Arc<AtomicBool>,
    bytes: Arc<AtomicU64>,
}

impl Gate {
    fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let gate =
            Self { port: listener.local_addr().unwrap().port(), shut: Arc::default(), bytes: Arc::default() };
        let (shut, bytes) = (gate.shut.clone(), gate.bytes.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)) else { continue };
                pass(client.try_clone().unwrap(), server.try_clone().unwrap(), shut.clone(), Arc::default());
                pass(server, client, shut.clone(), bytes.clone());
            }
        });
        gate
    }

    /// Ends all connections and refuses new ones, or lets them pass again.
    pub fn shut(&self, shut: bool) {
        self.shut.store(shut, Ordering::SeqCst);
    }

    /// Bytes that came back so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }
}

fn pass(mut from: TcpStream, mut to: TcpStream, shut: Arc<AtomicBool>, bytes: Arc<AtomicU64>) {
    std::thread::spawn(move || {
        let mut buffer = vec![0; 65_536];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if shut.load(Ordering::SeqCst) || to.write_all(&buffer[..n]).is_err() {
                break;
            }
            bytes.fetch_add(n as u64, Ordering::SeqCst);
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
