//! Ways to the emulator of Azure on which requests are counted, bytes are measured, and which can be cut and joined again.
#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

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

/// What happens to bytes on their way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// They pass.
    Open,
    /// Connections end, and new ones end as soon as they are made.
    Shut,
    /// They vanish. A connection on which some did is dead for ever, as behind a router that forgot it.
    Silent,
    /// They pass after so long a wait for each piece that comes back.
    Slow(Duration),
}

/// Passes bytes on to a port of this machine, counts those that come back, and does to them what it is told.
pub struct Gate {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    way: Mutex<Way>,
    bytes: AtomicU64,
    sent: AtomicU64,
}

impl Gate {
    fn start(upstream: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let shared = Arc::new(Shared {
            way: Mutex::new(Way::Open),
            bytes: AtomicU64::new(0),
            sent: AtomicU64::new(0),
        });
        let gate = Self { port: listener.local_addr().unwrap().port(), shared: shared.clone() };
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", upstream)) else { continue };
                let up = (client.try_clone().unwrap(), server.try_clone().unwrap());
                pass(up, shared.clone(), false);
                pass((server, client), shared.clone(), true);
            }
        });
        gate
    }

    /// Has bytes go another way from now on.
    pub fn set(&self, way: Way) {
        *self.shared.way.lock().unwrap() = way;
    }

    /// Ends all connections and refuses new ones, or lets them pass again.
    pub fn shut(&self, shut: bool) {
        self.set(if shut { Way::Shut } else { Way::Open });
    }

    /// Whether a process has a connection to here.
    pub fn has(&self, pid: u32) -> bool {
        let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).unwrap();
        let port = format!(":{:04X}", self.port);
        let of_port =
            |line: &&str| line.split_whitespace().nth(2).is_some_and(|remote| remote.ends_with(&port));
        let sockets: Vec<_> = table
            .lines()
            .filter(of_port)
            .filter_map(|line| Some(format!("socket:[{}]", line.split_whitespace().nth(9)?)))
            .collect();
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        descriptors
            .filter_map(|fd| std::fs::read_link(fd.path()).ok()?.into_os_string().into_string().ok())
            .any(|target| sockets.contains(&target))
    }

    /// Bytes that went there so far.
    pub fn sent(&self) -> u64 {
        self.shared.sent.load(Ordering::SeqCst)
    }

    /// Bytes that came back so far.
    pub fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::SeqCst)
    }
}

fn pass((mut from, mut to): (TcpStream, TcpStream), shared: Arc<Shared>, is_back: bool) {
    std::thread::spawn(move || {
        let (mut buffer, mut dead) = (vec![0; 65_536], false);
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            let way = *shared.way.lock().unwrap();
            match way {
                Way::Shut => break,
                Way::Silent => dead = true,
                Way::Slow(wait) if is_back => std::thread::sleep(wait),
                Way::Slow(_) | Way::Open => {}
            }
            if dead {
                continue;
            }
            if to.write_all(&buffer[..n]).is_err() {
                break;
            }
            let count = if is_back { &shared.bytes } else { &shared.sent };
            count.fetch_add(n as u64, Ordering::SeqCst);
        }
        let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
    });
}
