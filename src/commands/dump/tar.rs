//! Headers of tar archives in the pax interchange format (POSIX.1-2024, `pax`): a ustar header, and before it, where that is too
//! small, an extended header with what does not fit.
//!
//! Written here rather than taken from a crate because names must stay the bytes they are, times need nanoseconds and
//! extended attributes have bytes for values. Attributes go out as `SCHILY.xattr.*`, which GNU tar, bsdtar and star read;
//! `=` and `%` in their names are escaped as GNU tar does it.

use holdfast_store::clock::Timestamp;
use holdfast_store::tree::{Node, NodeKind};

/// What headers and bodies are padded to.
const BLOCK: u64 = 512;
/// Zeros that end an archive.
pub const END_LEN: u64 = 2 * BLOCK;
/// Longest value of the eight-byte octal fields.
const OCTAL_7: u64 = 0o777_7777;
/// Longest value of the twelve-byte octal fields.
const OCTAL_11: u64 = 0o777_7777_7777;
const NAME: std::ops::Range<usize> = 0..100;
const LINK_NAME: std::ops::Range<usize> = 157..257;
const CHECKSUM: std::ops::Range<usize> = 148..156;

/// Zeros after a body of `len` bytes.
pub fn padding(len: u64) -> u64 {
    len.next_multiple_of(BLOCK) - len
}

/// Everything before the body of an entry; `len` is the body's length and 0 for all but files.
pub fn header(path: &[u8], node: &Node, len: u64) -> Vec<u8> {
    let kind = match node.kind {
        NodeKind::File | NodeKind::Socket => b'0',
        NodeKind::Symlink => b'2',
        NodeKind::CharDevice => b'3',
        NodeKind::BlockDevice => b'4',
        NodeKind::Directory => b'5',
        NodeKind::Fifo => b'6',
    };
    let mut path = path.to_vec();
    if node.kind == NodeKind::Directory {
        path.push(b'/');
    }
    Entry { path: &path, node, kind, len, link: node.target.as_deref().unwrap_or_default() }.encode()
}

/// An entry that is another name of `first`.
pub fn hard_link(path: &[u8], node: &Node, first: &[u8]) -> Vec<u8> {
    Entry { path, node, kind: b'1', len: 0, link: first }.encode()
}

struct Entry<'a> {
    path: &'a [u8],
    node: &'a Node,
    kind: u8,
    len: u64,
    link: &'a [u8],
}

impl Entry<'_> {
    fn encode(&self) -> Vec<u8> {
        let records = self.records();
        let mut out = Vec::with_capacity(records.len() + 3 * BLOCK as usize);
        if !records.is_empty() {
            let mut of_records = Ustar::new(b'x', records.len() as u64);
            of_records.text(NAME, b"pax");
            of_records.octal(100, 8, 0o644);
            out.extend(of_records.finish());
            out.extend(&records);
            out.resize(out.len() + padding(records.len() as u64) as usize, 0);
        }
        out.extend(self.ustar().finish());
        out
    }

    /// What fits; what does not is cut, for readers that know nothing of extended headers.
    fn ustar(&self) -> Ustar {
        let node = self.node;
        let mut header = Ustar::new(self.kind, self.len.min(OCTAL_11));
        header.text(NAME, self.path);
        header.text(LINK_NAME, self.link);
        header.octal(100, 8, u64::from(node.mode));
        header.octal(108, 8, fitting(u64::from(node.uid)));
        header.octal(116, 8, fitting(u64::from(node.gid)));
        header.octal(136, 12, node.mtime.seconds.clamp(0, OCTAL_11.cast_signed()).cast_unsigned());
        header.text(265..296, node.user.as_deref().unwrap_or_default());
        header.text(297..328, node.group.as_deref().unwrap_or_default());
        let (major, minor) = node.device.unwrap_or_default();
        header.octal(329, 8, u64::from(major).min(OCTAL_7));
        header.octal(337, 8, u64::from(minor).min(OCTAL_7));
        header
    }

    /// Records of the extended header.
    fn records(&self) -> Vec<u8> {
        let node = self.node;
        let mut long = Vec::new();
        let names = [
            ("path", self.path, NAME.len()),
            ("linkpath", self.link, LINK_NAME.len()),
            ("uname", node.user.as_deref().unwrap_or_default(), 31),
            ("gname", node.group.as_deref().unwrap_or_default(), 31),
        ];
        for (key, value, room) in names {
            if value.len() > room {
                record(&mut long, key.as_bytes(), value);
            }
        }
        let mut records = Vec::new();
        if !long.is_empty() && std::str::from_utf8(&long).is_err() {
            // Values are UTF-8 unless a header says otherwise first.
            record(&mut records, b"hdrcharset", b"BINARY");
        }
        records.extend(long);
        for (key, value, limit) in [
            ("size", self.len, OCTAL_11),
            ("uid", u64::from(node.uid), OCTAL_7),
            ("gid", u64::from(node.gid), OCTAL_7),
        ] {
            if value > limit {
                record(&mut records, key.as_bytes(), value.to_string().as_bytes());
            }
        }
        if node.mtime.nanos != 0 || !(0..=OCTAL_11.cast_signed()).contains(&node.mtime.seconds) {
            record(&mut records, b"mtime", seconds(node.mtime).as_bytes());
        }
        // A second name of an inode has its attributes from the first.
        for xattr in node.xattrs.iter().filter(|_| self.kind != b'1') {
            record(&mut records, &xattr_key(&xattr.name), &xattr.value);
        }
        records
    }
}

/// Nobody is better than a wrong user for a reader that does not see the whole number.
fn fitting(id: u64) -> u64 {
    const NOBODY: u64 = 65534;
    if id > OCTAL_7 { NOBODY } else { id }
}

fn xattr_key(name: &[u8]) -> Vec<u8> {
    let mut key = b"SCHILY.xattr.".to_vec();
    for byte in name {
        match byte {
            b'=' => key.extend(b"%3D"),
            b'%' => key.extend(b"%25"),
            _ => key.push(*byte),
        }
    }
    key
}

/// Decimal seconds. Before 1970 the fraction counts down from the second above: half a second before is -0.5.
fn seconds(time: Timestamp) -> String {
    let (sign, whole, nanos) = match (time.seconds < 0, time.nanos) {
        (true, 0) => ("-", time.seconds.unsigned_abs(), 0),
        (true, nanos) => ("-", time.seconds.unsigned_abs() - 1, 1_000_000_000 - nanos.min(999_999_999)),
        (false, nanos) => ("", time.seconds.unsigned_abs(), nanos),
    };
    let text = format!("{sign}{whole}.{nanos:09}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `LEN KEY=VALUE\n`, where LEN counts itself.
fn record(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while len != rest + len.to_string().len() {
        len = rest + len.to_string().len();
    }
    out.extend(len.to_string().as_bytes());
    out.push(b' ');
    out.extend(key);
    out.push(b'=');
    out.extend(value);
    out.push(b'\n');
}

/// One header block in the making.
struct Ustar([u8; BLOCK as usize]);

impl Ustar {
    fn new(kind: u8, len: u64) -> Self {
        let mut header = Self([0; BLOCK as usize]);
        header.octal(108, 8, 0);
        header.octal(116, 8, 0);
        header.octal(124, 12, len);
        header.octal(136, 12, 0);
        header.text(156..157, &[kind]);
        header.text(257..265, b"ustar\x0000");
        header.octal(329, 8, 0);
        header.octal(337, 8, 0);
        header
    }

    /// As much of `value` as there is room for.
    fn text(&mut self, at: std::ops::Range<usize>, value: &[u8]) {
        for (to, from) in self.0[at].iter_mut().zip(value) {
            *to = *from;
        }
    }

    /// Octal digits that fill a field of `len` bytes but for its last, which stays zero.
    fn octal(&mut self, at: usize, len: usize, value: u64) {
        let width = len - 1;
        self.text(at..at + width, format!("{value:0width$o}").as_bytes());
    }

    fn finish(mut self) -> [u8; BLOCK as usize] {
        self.0[CHECKSUM].fill(b' ');
        let sum: u64 = self.0.iter().map(|byte| u64::from(*byte)).sum();
        self.text(CHECKSUM, format!("{sum:06o}\0 ").as_bytes());
        self.0
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::commands::testing::node;

    fn field(block: &[u8], at: std::ops::Range<usize>) -> String {
        String::from_utf8_lossy(&block[at]).trim_end_matches('\0').to_owned()
    }

    fn records(bytes: &[u8]) -> String {
        let len = usize::from_str_radix(&field(bytes, 124..136), 8).unwrap();
        assert_eq!((bytes.len() % 512, bytes[156]), (0, b'x'));
        String::from_utf8_lossy(&bytes[512..512 + len]).into_owned()
    }

    #[test]
    fn what_fits_is_one_plain_block() {
        let bytes = header(b"dir/a", &node(b"a", NodeKind::File), 5);
        assert_eq!(bytes.len(), 512);
        assert_eq!([field(&bytes, 0..100), field(&bytes, 100..108)], ["dir/a", "0000644"]);
        assert_eq!([field(&bytes, 124..136), field(&bytes, 136..148)], ["00000000005", "15300033100"]);
        assert_eq!([field(&bytes, 156..157), field(&bytes, 265..297)], ["0", "me"]);
        let mut blank = bytes.clone();
        blank[CHECKSUM].fill(b' ');
        let sum: u64 = blank.iter().map(|byte| u64::from(*byte)).sum();
        assert_eq!(field(&bytes, 148..154), format!("{sum:06o}"));
    }

    #[test]
    fn the_length_of_a_record_counts_its_own_digits() {
        for len in [0, 1, 86, 87, 88, 89, 984, 985, 986, 987, 9983, 9984] {
            let mut out = Vec::new();
            record(&mut out, b"path", &vec![b'x'; len]);
            let digits = out.split(|byte| *byte == b' ').next().unwrap();
            assert_eq!(std::str::from_utf8(digits).unwrap().parse(), Ok(out.len()), "{len}");
        }
    }

    #[test]
    fn what_does_not_fit_goes_before_the_entry() {
        let mut file = Node { uid: u32::MAX, ..node(b"a", NodeKind::File) };
        file.mtime.nanos = 120_000_000;
        file.xattrs
            .push(holdfast_store::tree::Xattr { name: b"user.a=%b".to_vec(), value: b"\0\xff".to_vec() });
        let path = vec![b'p'; 300];
        let text = records(&header(&path, &file, 1 << 40));
        for part in ["path=ppp", " size=1099511627776\n", " uid=4294967295\n", " mtime=1795176000.12\n"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(text.contains("SCHILY.xattr.user.a%3D%25b=\0\u{fffd}\n"), "{text}");
        assert!(!text.contains("hdrcharset"), "{text}");
        let path = vec![0xff; 101];
        assert!(records(&header(&path, &file, 0)).starts_with("21 hdrcharset=BINARY\n"));
    }

    #[test]
    fn times_before_1970_count_backwards() {
        let at = |whole, nanos| seconds(Timestamp { seconds: whole, nanos });
        assert_eq!([at(-1, 500_000_000), at(-2, 0), at(7, 1)], ["-0.5", "-2", "7.000000001"]);
    }

    #[test]
    fn kinds_have_the_letters_of_the_standard() {
        let kinds = [
            (NodeKind::Directory, b'5'),
            (NodeKind::Symlink, b'2'),
            (NodeKind::Fifo, b'6'),
            (NodeKind::CharDevice, b'3'),
            (NodeKind::BlockDevice, b'4'),
        ];
        for (kind, letter) in kinds {
            let node = Node { target: Some(b"to".to_vec()), device: Some((8, 1)), ..node(b"a", kind) };
            assert_eq!(header(b"a", &node, 0)[156], letter);
        }
        let link = hard_link(b"b", &node(b"b", NodeKind::File), b"a");
        assert_eq!((link[156], field(&link, LINK_NAME)), (b'1', "a".to_owned()));
        assert_eq!((padding(0), padding(1), padding(512)), (0, 511, 0));
    }
}
