//! A server of mail and one of HTTP, as small as they can be, that keep what they are told.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// What was told, in this order.
type Kept<T> = Arc<Mutex<Vec<T>>>;

/// Serves each connection, one after the other, as long as the tests run.
fn serve(listener: TcpListener, each: impl Fn(TcpStream) -> std::io::Result<()> + Send + 'static) {
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            // Whoever hangs up in the middle is told nothing.
            let _ = stream.and_then(&each);
        }
    });
}

/// A server of mail that takes everything.
pub struct Smtp {
    port: u16,
    lines: Kept<String>,
    letters: Kept<String>,
}

impl Smtp {
    /// At a port of its own.
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let smtp = Self {
            port: listener.local_addr().unwrap().port(),
            lines: Kept::default(),
            letters: Kept::default(),
        };
        let (lines, letters) = (Arc::clone(&smtp.lines), Arc::clone(&smtp.letters));
        serve(listener, move |stream| talk(stream, &lines, &letters));
        smtp
    }

    /// Its address, with a user before the host if there is one.
    pub fn address(&self, user: &str) -> String {
        format!("smtp://{user}127.0.0.1:{}", self.port)
    }

    /// The letters, with their heads.
    pub fn letters(&self) -> Vec<String> {
        self.letters.lock().unwrap().clone()
    }

    /// What is in the header of each letter.
    pub fn headers(&self, name: &str) -> Vec<String> {
        let of = |letter: &String| {
            // Long ones go on in lines that begin with a blank.
            let letter = letter.replace("\r\n ", " ");
            let line = letter.lines().find(|line| line.starts_with(&format!("{name}: "))).unwrap();
            line[name.len() + 2..].to_owned()
        };
        self.letters().iter().map(of).collect()
    }

    /// The commands.
    pub fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

fn talk(mut stream: TcpStream, lines: &Kept<String>, letters: &Kept<String>) -> std::io::Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    stream.write_all(b"220 tiny\r\n")?;
    let mut line = String::new();
    while from.read_line(&mut line)? > 0 {
        let command = line.trim_end().to_owned();
        let answer: &[u8] = match command.split([' ', ':']).next().unwrap() {
            "EHLO" => b"250-tiny\r\n250 AUTH PLAIN\r\n",
            "AUTH" => b"235 welcome\r\n",
            "DATA" => {
                stream.write_all(b"354 go on\r\n")?;
                letters.lock().unwrap().push(letter(&mut from)?);
                b"250 kept\r\n"
            }
            "QUIT" => b"221 bye\r\n",
            _ => b"250 well\r\n",
        };
        lines.lock().unwrap().push(command);
        stream.write_all(answer)?;
        line.clear();
    }
    Ok(())
}

fn letter(from: &mut impl BufRead) -> std::io::Result<String> {
    let mut letter = String::new();
    while !letter.ends_with("\r\n.\r\n") && from.read_line(&mut letter)? > 0 {}
    Ok(letter)
}

/// A server of HTTP that takes JSON.
pub struct Http {
    /// Where.
    pub port: u16,
    answer: Arc<AtomicU16>,
    told: Kept<Value>,
}

impl Http {
    /// A port at which nobody listens.
    pub fn nowhere() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    /// At a port, or at one of its own.
    pub fn new(port: Option<u16>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port.unwrap_or(0))).unwrap();
        let port = listener.local_addr().unwrap().port();
        let http = Self { port, answer: Arc::new(AtomicU16::new(204)), told: Kept::default() };
        let (answer, told) = (Arc::clone(&http.answer), Arc::clone(&http.told));
        serve(listener, move |stream| hear(stream, &answer, &told));
        http
    }

    /// Answers with this status from now on.
    pub fn answer_with(&self, status: u16) {
        self.answer.store(status, Ordering::SeqCst);
    }

    /// All that it was told.
    pub fn told(&self) -> Vec<Value> {
        self.told.lock().unwrap().clone()
    }

    /// The subjects of what it was told of an event.
    pub fn subjects(&self, event: &str) -> Vec<String> {
        let of = |told: &Value| {
            format!("{} {}", told["name"].as_str().unwrap(), told["subject"].as_str().unwrap())
        };
        self.told().iter().filter(|told| told["event"] == event).map(of).collect()
    }
}

fn hear(mut stream: TcpStream, answer: &AtomicU16, told: &Kept<Value>) -> std::io::Result<()> {
    let mut from = BufReader::new(stream.try_clone()?);
    let (mut line, mut head, mut length) = (String::new(), String::new(), 0);
    while from.read_line(&mut line)? > 2 {
        let lower = line.to_ascii_lowercase();
        if let Some(number) = lower.strip_prefix("content-length:") {
            length = number.trim().parse().unwrap();
        }
        head.push_str(&lower);
        line.clear();
    }
    assert!(
        head.starts_with("post /hook/geheim http/1.1") && head.contains("content-type: application/json"),
        "{head}"
    );
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    let status = answer.load(Ordering::SeqCst);
    if status < 300 {
        told.lock().unwrap().push(serde_json::from_slice(&body).unwrap());
    }
    stream.write_all(
        format!("HTTP/1.1 {status} so\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").as_bytes(),
    )
}
