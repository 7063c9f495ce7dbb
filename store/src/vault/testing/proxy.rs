//! A proxy between an HTTP client and an emulator on this machine that spoils requests and answers by script.
//!
//! It takes one request for each connection, reads messages whole, and makes each fault that was met in the wild
//! or found in a client: short answers with honest and lying heads, lost answers, flipped bits, silence, slow lines.

use std::collections::{HashMap, VecDeque};
use std::io::{self, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Verb;
use super::http::Head;
use super::listener::Listener;
use crate::clock::{Clock, SystemClock};

/// How a request goes wrong on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpFault {
    /// Answered here with this status, error code and, if not 0, `Retry-After` in seconds.
    Refuse(u16, &'static str, u32),
    /// Half of the body, with `Content-Length` and `Content-Range` of that half.
    ShortHonest,
    /// Half of the body, with `Content-Length` of that half and `Content-Range` of all.
    ShortLying,
    /// The whole body, with a `Content-Range` one byte further on.
    OtherRange,
    /// Half of the body with status 200 and no `Content-Range`, as if that were the whole object.
    NoRange,
    /// The head and half of the body, then the connection ends.
    CutAnswer,
    /// Half of the request's body is taken, then the connection ends; the emulator hears nothing.
    CutRequest,
    /// The request takes effect, then the connection ends without an answer.
    LoseAnswer,
    /// A bit of the request's body is another.
    FlipRequest,
    /// A bit of the answer's body is another.
    FlipAnswer,
    /// The request is taken and never answered.
    Hang,
    /// The request takes effect and is never answered.
    HangAfter,
    /// The connection is reset before anything of the request is taken.
    Reset,
    /// A listing is the one that was first given for the same question.
    Stale,
    /// The request's body is taken at this many bytes a second.
    SlowRequest(u32),
}

/// A proxy on 127.0.0.1. Dropping it ends it; connections that hang end with it.
#[derive(Debug)]
pub struct HttpProxy {
    shared: Arc<Shared>,
    listener: Listener,
}

#[derive(Debug, Default)]
struct Shared {
    upstream: u16,
    script: Mutex<Script>,
}

#[derive(Debug, Default)]
struct Script {
    faults: VecDeque<(Verb, HttpFault)>,
    /// What the requests of these numbers meet.
    numbered: Option<(Range<usize>, HttpFault)>,
    seen: Vec<Verb>,
    hanging: Vec<TcpStream>,
    /// First answers to listings, by what was asked.
    lists: HashMap<String, (Head, Vec<u8>)>,
}

impl HttpProxy {
    /// Starts a proxy to `upstream`, a port of this machine.
    pub fn start(upstream: u16) -> io::Result<Self> {
        let shared = Arc::new(Shared { upstream, ..Shared::default() });
        let serving = Arc::clone(&shared);
        let listener = Listener::start(move |client| serving.serve(client))?;
        Ok(Self { shared, listener })
    }

    /// Where it listens on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.listener.port()
    }

    /// The next `times` requests of a kind go wrong, after those that were to before.
    pub fn spoil(&self, verb: Verb, times: usize, fault: HttpFault) {
        self.shared.script().faults.extend(std::iter::repeat_n((verb, fault), times));
    }

    /// Of all requests that come from now on, those of these numbers go wrong; the next one is 0.
    pub fn spoil_numbered(&self, numbers: Range<usize>, fault: HttpFault) {
        let mut script = self.shared.script();
        let before = script.seen.len();
        let later = |number: usize| number.saturating_add(before);
        script.numbered = Some((later(numbers.start)..later(numbers.end), fault));
    }

    /// Nothing goes wrong any more.
    pub fn forgive(&self) {
        let mut script = self.shared.script();
        script.faults.clear();
        script.numbered = None;
    }

    /// How many requests came.
    pub fn requests(&self) -> usize {
        self.shared.script().seen.len()
    }

    /// How many requests of a kind came.
    pub fn count(&self, verb: Verb) -> usize {
        self.shared.script().seen.iter().filter(|seen| **seen == verb).count()
    }

    /// Faults that no request has met yet.
    pub fn left(&self) -> usize {
        self.shared.script().faults.len()
    }
}

impl Drop for HttpProxy {
    fn drop(&mut self) {
        self.listener.end();
        for hanging in self.shared.script().hanging.drain(..) {
            let _ = hanging.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn script(&self) -> MutexGuard<'_, Script> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fault_of(&self, verb: Verb) -> Option<HttpFault> {
        let mut script = self.script();
        let number = script.seen.len();
        script.seen.push(verb);
        if let Some((numbers, fault)) = &script.numbered
            && numbers.contains(&number)
        {
            return Some(*fault);
        }
        let at = script.faults.iter().position(|(wanted, _)| *wanted == verb)?;
        script.faults.remove(at).map(|(_, fault)| fault)
    }

    fn serve(&self, mut client: &TcpStream) -> io::Result<()> {
        let Some(first) = peek_line(client)? else { return Ok(()) };
        let fault = self.fault_of(verb_of(&first));
        if fault == Some(HttpFault::Reset) {
            // A connection that ends before all that came was read is reset.
            return Ok(());
        }
        let mut reader = BufReader::new(client);
        let Some(mut head) = Head::read(&mut reader)? else { return Ok(()) };
        let mut body = match fault {
            Some(HttpFault::CutRequest) => {
                let half = head.body_len()?.unwrap_or_default() / 2;
                io::copy(&mut reader.take(half), &mut io::sink())?;
                return client.shutdown(Shutdown::Both);
            }
            Some(HttpFault::SlowRequest(rate)) => read_slowly(&mut head, &mut reader, rate)?,
            _ => head.read_body(&mut reader)?,
        };
        match fault {
            Some(HttpFault::Refuse(status, code, retry_after)) => {
                let is_head = head.first.starts_with("HEAD ");
                return client.write_all(&refusal(status, code, retry_after, is_head));
            }
            Some(HttpFault::Hang) => {
                self.script().hanging.push(client.try_clone()?);
                return Ok(());
            }
            Some(HttpFault::FlipRequest) => flip(&mut body),
            _ => {}
        }
        let (answer, mut body) = self.answer(fault, head, &body)?;
        let answer = spoil(fault, answer, &mut body);
        match fault {
            Some(HttpFault::HangAfter) => {
                self.script().hanging.push(client.try_clone()?);
                return Ok(());
            }
            Some(HttpFault::LoseAnswer) => return client.shutdown(Shutdown::Both),
            Some(HttpFault::CutAnswer) => body.truncate(body.len() / 2),
            _ => {}
        }
        client.write_all(&answer.bytes())?;
        client.write_all(&body)
    }

    /// The emulator's answer; of listings the first one is kept, and given again where that is the fault.
    fn answer(&self, fault: Option<HttpFault>, head: Head, body: &[u8]) -> io::Result<(Head, Vec<u8>)> {
        let question = (verb_of(&head.first) == Verb::List).then(|| head.first.clone());
        let Some(question) = question else { return self.ask(head, body) };
        let before = self.script().lists.get(&question).cloned();
        if let (Some(HttpFault::Stale), Some(before)) = (fault, before) {
            return Ok(before);
        }
        let answer = self.ask(head, body)?;
        self.script().lists.entry(question).or_insert_with(|| answer.clone());
        Ok(answer)
    }

    /// Passes a request on and takes the whole answer.
    fn ask(&self, mut head: Head, body: &[u8]) -> io::Result<(Head, Vec<u8>)> {
        let is_head = head.first.starts_with("HEAD ");
        head.set("Connection", "close");
        let mut upstream = TcpStream::connect(("127.0.0.1", self.upstream))?;
        upstream.write_all(&head.bytes())?;
        upstream.write_all(body)?;
        let mut reader = BufReader::new(upstream);
        let mut answer = Head::read(&mut reader)?.ok_or(io::ErrorKind::UnexpectedEof)?;
        // The length in an answer to HEAD is that of a body that is not sent.
        let body = if is_head { Vec::new() } else { answer.read_body(&mut reader)? };
        if !is_head {
            answer.set("Content-Length", body.len().to_string());
        }
        answer.set("Connection", "close");
        Ok((answer, body))
    }
}

/// The first line of what comes, which stays to be read; nothing if the other side closed the connection before.
fn peek_line(client: &TcpStream) -> io::Result<Option<String>> {
    let mut bytes = vec![0; 16 << 10];
    loop {
        let len = client.peek(&mut bytes)?;
        let line = bytes[..len].split(|byte| *byte == b'\n').next().unwrap_or_default();
        if len == 0 {
            return Ok(None);
        }
        if line.len() < len || len == bytes.len() {
            return Ok(Some(String::from_utf8_lossy(line).trim_end().to_owned()));
        }
        SystemClock.pause(Duration::from_millis(1));
    }
}

fn verb_of(request_line: &str) -> Verb {
    let (method, target) = request_line.split_once(' ').unwrap_or((request_line, ""));
    match method {
        "PUT" if target.contains("restype=container") => Verb::Prepare,
        "PUT" => Verb::Put,
        "HEAD" => Verb::Stat,
        "DELETE" => Verb::Delete,
        _ if target.contains("comp=list") => Verb::List,
        _ => Verb::Get,
    }
}

/// Changes an answer so that its head fits what happens to its body, or does not.
fn spoil(fault: Option<HttpFault>, mut answer: Head, body: &mut Vec<u8>) -> Head {
    let half = body.len() / 2;
    match fault {
        Some(HttpFault::ShortHonest) => {
            shift_range(&mut answer, |first, _| (first, first + (half as u64).saturating_sub(1)));
            body.truncate(half);
        }
        Some(HttpFault::ShortLying) => body.truncate(half),
        Some(HttpFault::NoRange) => {
            answer.first = "HTTP/1.1 200 OK".into();
            answer.remove("content-range");
            body.truncate(half);
        }
        Some(HttpFault::OtherRange) => shift_range(&mut answer, |first, last| (first + 1, last + 1)),
        Some(HttpFault::FlipAnswer) => flip(body),
        _ => {}
    }
    if matches!(fault, Some(HttpFault::ShortHonest | HttpFault::ShortLying | HttpFault::NoRange)) {
        answer.set("Content-Length", half.to_string());
    }
    answer
}

fn shift_range(answer: &mut Head, by: impl FnOnce(u64, u64) -> (u64, u64)) {
    let Some((range, total)) =
        answer.get("content-range").and_then(|said| said.strip_prefix("bytes ")?.split_once('/'))
    else {
        return;
    };
    let numbers =
        range.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
    if let Some((first, last)) = numbers {
        let (first, last) = by(first, last);
        let said = format!("bytes {first}-{last}/{total}");
        answer.set("Content-Range", said);
    }
}

fn flip(body: &mut [u8]) {
    let middle = body.len() / 2;
    body.iter_mut().skip(middle).take(1).for_each(|byte| *byte ^= 1);
}

/// As the service refuses: with the error code in the head and, where there is a body, in XML as well.
fn refusal(status: u16, code: &str, retry_after: u32, is_head: bool) -> Vec<u8> {
    let xml = format!(
        "\u{feff}<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{code}</Code><Message>The request was refused.\n\
         RequestId:00000000-0000-0000-0000-000000000000\nTime:2026-01-01T00:00:00.0000000Z</Message></Error>"
    );
    let body = if is_head || code.is_empty() { String::new() } else { xml };
    let mut head = Head { first: format!("HTTP/1.1 {status} Refused"), headers: Vec::new() };
    head.set("x-ms-error-code", code);
    head.set("Content-Type", "application/xml");
    head.set("Content-Length", body.len().to_string());
    head.set("Connection", "close");
    if retry_after > 0 {
        head.set("Retry-After", retry_after.to_string());
    }
    [head.bytes(), body.into_bytes()].concat()
}

/// Takes a body in 20 steps a second.
fn read_slowly(
    head: &mut Head,
    reader: &mut BufReader<&TcpStream>,
    bytes_per_second: u32,
) -> io::Result<Vec<u8>> {
    let len = head.body_len()?.unwrap_or_default();
    let step = u64::from(bytes_per_second / 20).max(1);
    let mut body = Vec::new();
    while (body.len() as u64) < len {
        SystemClock.pause(Duration::from_millis(50));
        let wanted = step.min(len - body.len() as u64);
        if reader.take(wanted).read_to_end(&mut body)? as u64 != wanted {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(body)
}
