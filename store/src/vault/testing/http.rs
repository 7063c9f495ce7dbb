//! As much of HTTP/1.1 as a proxy between one client and one emulator needs: heads, lengths and chunks, each message whole.

use std::io::{self, BufRead, Read};

/// Longest head.
const HEAD_MAX: u64 = 64 * 1024;
/// Longest body.
const BODY_MAX: u64 = 64 << 20;

/// The head of a request or an answer.
#[derive(Clone, Debug)]
pub(super) struct Head {
    /// Request line or status line.
    pub(super) first: String,
    /// Header lines, split at the colon.
    pub(super) headers: Vec<(String, String)>,
}

impl Head {
    /// Nothing if the other side closed the connection before it began.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut from = from.take(HEAD_MAX);
        let first = line(&mut from)?;
        if first.is_empty() {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let line = line(&mut from)?;
            match line.split_once(':') {
                Some((name, value)) => headers.push((name.to_owned(), value.trim().to_owned())),
                None if line.is_empty() => return Ok(Some(Self { first, headers })),
                None => return Err(io::Error::other("not a header")),
            }
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn set(&mut self, name: &str, value: impl Into<String>) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
        self.headers.push((name.into(), value.into()));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.headers.retain(|(key, _)| !key.eq_ignore_ascii_case(name));
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{}\r\n", self.first);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        (text + "\r\n").into_bytes()
    }

    /// Length of the body as the head tells it; nothing for a chunked one.
    pub(super) fn body_len(&self) -> io::Result<Option<u64>> {
        if self.get("transfer-encoding").is_some() {
            return Ok(None);
        }
        let len = self.get("content-length").map_or(Ok(0), str::parse).map_err(io::Error::other)?;
        if len > BODY_MAX { Err(io::Error::other("body too long")) } else { Ok(Some(len)) }
    }

    /// The whole body; a chunked one is put together and gets a length.
    pub(super) fn read_body(&mut self, from: &mut impl BufRead) -> io::Result<Vec<u8>> {
        let body = match self.body_len()? {
            Some(len) => exactly(from, len)?,
            None => chunks(from)?,
        };
        self.remove("transfer-encoding");
        Ok(body)
    }
}

fn line(from: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    from.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}

fn exactly(from: &mut impl BufRead, len: u64) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    let read = from.take(len).read_to_end(&mut body)?;
    if read as u64 == len { Ok(body) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let len = u64::from_str_radix(&line(from)?, 16).map_err(io::Error::other)?;
        if len + body.len() as u64 > BODY_MAX {
            return Err(io::Error::other("body too long"));
        }
        body.extend(exactly(from, len)?);
        line(from)?;
        if len == 0 {
            return Ok(body);
        }
    }
}
