//! Adding to a list and taking from it so that it keeps its form: on one line, or on many with comments.
//!
//! What stands between two entries belongs to the second one in `toml_edit`, though the end of the first one's line, a comment perhaps, is
//! about the first. Both ways of moving it are here.

use toml_edit::{Array, RawString, Value};

/// Adds an entry at the end.
pub fn push(list: &mut Array, value: Value) {
    let Some(last) = list.len().checked_sub(1).and_then(|at| list.get_mut(at)) else {
        return list.push_formatted(value.decorated("", ""));
    };
    let indent = before(last).rsplit_once('\n').map(|(_, indent)| indent.to_owned());
    let mut end = after(last).to_owned();
    if list.trailing_comma() {
        end = text(Some(list.trailing())).to_owned();
    } else if let Some(last) = list.iter_mut().last() {
        last.decor_mut().set_suffix("");
    }
    // The end of the last line stays with it; what closes the list comes after the new entry.
    let (kept, close) = match end.rfind('\n') {
        Some(at) => (end.get(..at).unwrap_or_default(), end.get(at..).unwrap_or_default()),
        None => ("", end.as_str()),
    };
    let lines = indent.is_some() || close.starts_with('\n');
    let begin = match lines {
        true => format!("{kept}\n{}", indent.as_deref().unwrap_or("    ")),
        false => " ".to_owned(),
    };
    if list.trailing_comma() {
        list.set_trailing(close);
        list.push_formatted(value.decorated(begin, ""));
    } else {
        list.push_formatted(value.decorated(begin, close));
    }
}

/// Takes an entry away with the rest of its line; comments on lines of their own stay.
pub fn remove(list: &mut Array, at: usize) {
    let comma = list.trailing_comma();
    let Some(removed) = list.get(at) else { return };
    let (begin, own_end) = (before(removed).to_owned(), after(removed).to_owned());
    list.remove(at);
    if let Some(next) = list.get_mut(at) {
        let joined = joined(&begin, before(next), false);
        next.decor_mut().set_prefix(joined);
    } else if comma {
        let joined = joined(&begin, text(Some(list.trailing())), true);
        list.set_trailing(joined);
    } else if let Some(last) = list.iter_mut().last() {
        let joined = joined(&begin, &own_end, true);
        last.decor_mut().set_suffix(joined);
    }
}

/// What stands between its neighbours when an entry is gone that had `begin` before and `end` behind it.
fn joined(begin: &str, end: &str, closes: bool) -> String {
    match (begin.rsplit_once('\n'), end.find('\n')) {
        (Some((kept, _)), Some(at)) => kept.to_owned() + end.get(at..).unwrap_or_default(),
        // A comment must end before what follows it.
        (Some((kept, _)), None) if closes && kept.contains('#') => format!("{kept}\n{end}"),
        (Some(_), None) if !closes => begin.to_owned(),
        (None, Some(_)) if end.contains('#') || closes => end.to_owned(),
        (None, _) if !closes => begin.to_owned(),
        _ => end.to_owned(),
    }
}

fn before(value: &Value) -> &str {
    text(value.decor().prefix())
}

fn after(value: &Value) -> &str {
    text(value.decor().suffix())
}

fn text(raw: Option<&RawString>) -> &str {
    raw.and_then(RawString::as_str).unwrap_or_default()
}
