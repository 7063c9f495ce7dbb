//! A listener of this machine that serves each connection in a thread of its own, until it is dropped.

use std::io;
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One that listens.
#[derive(Debug)]
pub struct Listener {
    ended: Arc<AtomicBool>,
    port: u16,
}

impl Listener {
    /// Starts to listen. What goes wrong with a connection, its client sees.
    pub fn start(serve: impl Fn(&TcpStream) -> io::Result<()> + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let port = listener.local_addr()?.port();
        let (ended, serve) = (Arc::new(AtomicBool::new(false)), Arc::new(serve));
        let accepting = Arc::clone(&ended);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if accepting.load(Ordering::SeqCst) {
                    return;
                }
                let serve = Arc::clone(&serve);
                std::thread::spawn(move || serve(&client));
            }
        });
        Ok(Self { ended, port })
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Takes no further connection.
    pub fn end(&self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes it, and it sees that it shall end.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.end();
    }
}
