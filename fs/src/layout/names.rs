//! Names of the layout: what people called their groups and sources, made safe, and times without ':'.

use holdfast_store::clock::Timestamp;

/// Longest cleaned name in bytes: room for `@<host>` and a tag below the 255 of the kernel.
const NAME_BYTES_MAX: usize = 100;

/// A name that is a path component: '/' and control characters become '-', so does a leading '.'; long names are cut.
pub fn clean_name(name: &str) -> String {
    let mut clean = String::new();
    for (at, c) in name.char_indices() {
        let bad = c == '/' || c.is_control() || (at == 0 && (c == '.' || c == '@'));
        let c = if bad { '-' } else { c };
        if clean.len() + c.len_utf8() > NAME_BYTES_MAX {
            break;
        }
        clean.push(c);
    }
    if clean.is_empty() { "-".to_owned() } else { clean }
}

/// The second, third... of equal names has the suffix `.2`, `.3`...
pub(super) fn numbered(name: &str, number: u32) -> String {
    if number == 1 { name.to_owned() } else { format!("{name}.{number}") }
}

/// `2026-11-20T12.00.00Z`
pub fn time_name(at: Timestamp) -> String {
    formatted(at, "%Y-%m-%dT%H.%M.%SZ")
}

/// `2026-11-20T12:00:00Z`
pub fn rfc3339(at: Timestamp) -> String {
    formatted(at, "%Y-%m-%dT%H:%M:%SZ")
}

/// `2026-11-20`
pub fn day_name(at: Timestamp) -> String {
    formatted(at, "%Y-%m-%d")
}

/// `12.00.00Z`
pub(super) fn clock_name(at: Timestamp) -> String {
    formatted(at, "%H.%M.%SZ")
}

/// `@GMT-2026.11.20-12.00.00`
pub fn gmt_name(at: Timestamp) -> String {
    formatted(at, "@GMT-%Y.%m.%d-%H.%M.%S")
}

/// Times outside the years that the calendar knows are told in seconds.
fn formatted(at: Timestamp, format: &str) -> String {
    match jiff::Timestamp::from_second(at.seconds) {
        Ok(time) => time.strftime(format).to_string(),
        Err(_) => format!("second {}", at.seconds),
    }
}
