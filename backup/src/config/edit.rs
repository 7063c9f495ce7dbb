//! Changing a configuration that people wrote: a text and a wish become a text, in which no line is another that need not be.
//!
//! Comments, order and forms stay, because `toml_edit` keeps them; a text that it does not give back byte for byte is not touched.
//! Whether the new text makes sense is for [`Config::parse`](super::Config::parse) to say, before it is put in the place of the old one.

mod list;
mod removal;
#[cfg(test)]
mod tests;
mod wish;

use std::path::Path;

use toml_edit::{Document, DocumentMut, InlineTable, Item, Key, Table, TableLike, Value};

use super::Stopped;
pub use wish::{Keep, Protection, SourceWish, TierWish};
use wish::{has_rules, path_of};

/// The key of a group that takes no more points.
const STOPPED: &str = "stopped";

/// Why a text was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// It is no TOML.
    #[error("it cannot be read: {detail}")]
    NotToml {
        /// What the parser says.
        detail: String,
    },
    /// Writing it again would change lines that are not meant.
    #[error("other lines than those that are meant would change with it")]
    OtherLines,
    /// There is no such group.
    #[error("there is no group {group}")]
    NoGroup {
        /// Its name.
        group: String,
    },
    /// The group has no such source.
    #[error("{path} is no source of the group {group}")]
    NoSource {
        /// The group.
        group: String,
        /// The source.
        path: String,
    },
    /// Something is to be kept of a tier that takes nothing.
    #[error("the group {group} has no {tier} schedule")]
    NoSchedule {
        /// The group.
        group: String,
        /// `local` or `online`.
        tier: &'static str,
    },
}

/// Whether a text has this group.
pub fn has_group(text: &str, group: &str) -> bool {
    Document::parse(text).is_ok_and(|document| group_in(document.as_table(), group).is_some())
}

fn group_in<'a>(whole: &'a Table, group: &str) -> Option<&'a Item> {
    whole.get("group")?.as_table_like()?.get(group)
}

/// The text of a new configuration, which so far says where the store is.
pub fn begin(store: &str) -> String {
    format!("store = {}\n", Value::from(store))
}

/// The text that says what is wished. A group that is not there is added at the end; what is said already stays as it is.
pub fn protect(text: &str, wish: &Protection) -> Result<String, EditError> {
    edit(text, |document| {
        let groups = document.get_mut("group").and_then(Item::as_table_like_mut);
        let Some(group) = groups.and_then(|groups| groups.get_mut(&wish.group)) else {
            let before = document.to_string();
            let apart = if before.is_empty() { "" } else { "\n" };
            return Ok(before + apart + &new_group(wish)?);
        };
        if let Some(sources) = below(group, "sources").and_then(Item::as_array_mut) {
            wish.sources.iter().for_each(|source| set_source(sources, source));
        }
        set_tier(group, wish, "local", &wish.local)?;
        set_tier(group, wish, "online", &wish.online)?;
        Ok(document.to_string())
    })
}

/// The text without these sources of the group; whether the group went with the last of them.
pub fn unprotect(text: &str, group: &str, paths: &[&str]) -> Result<(String, bool), EditError> {
    let mut gone = false;
    let edited = edit(text, |document| {
        let missing = || EditError::NoGroup { group: group.to_owned() };
        let groups = document.get_mut("group").and_then(Item::as_table_like_mut).ok_or_else(missing)?;
        let sources = groups.get_mut(group).and_then(|group| below(group, "sources")?.as_array_mut());
        let sources = sources.ok_or_else(missing)?;
        for path in paths {
            let at = sources.iter().position(|source| is_of(source, path));
            let unknown = || EditError::NoSource { group: group.to_owned(), path: (*path).to_owned() };
            list::remove(sources, at.ok_or_else(unknown)?);
        }
        gone = sources.is_empty();
        if gone {
            removal::remove_group(document, group);
        }
        Ok(document.to_string())
    })?;
    Ok((edited, gone))
}

/// The text in which the group says that it takes no more points, or, with `None`, nothing of it.
pub fn stop(text: &str, group: &str, stopped: Option<Stopped>) -> Result<String, EditError> {
    edit(text, |document| {
        let groups = document.get_mut("group").and_then(Item::as_table_like_mut);
        let known = groups.and_then(|groups| groups.get_mut(group));
        let known = known.ok_or_else(|| EditError::NoGroup { group: group.to_owned() })?;
        match stopped {
            Some(stopped) => set(known, STOPPED, stopped.as_str().into()),
            None => unset(known, STOPPED),
        }
        Ok(document.to_string())
    })
}

/// Has a text changed as a document. Line ends of two bytes and a last line without an end are none of the document's business.
fn edit(
    text: &str,
    change: impl FnOnce(&mut DocumentMut) -> Result<String, EditError>,
) -> Result<String, EditError> {
    let carried = text.contains("\r\n") && text.matches("\r\n").count() == text.matches('\n').count();
    let mut plain = if carried { text.replace("\r\n", "\n") } else { text.to_owned() };
    if !plain.is_empty() && !plain.ends_with('\n') {
        plain.push('\n');
    }
    let wrong = |error: toml_edit::TomlError| EditError::NotToml { detail: error.message().to_owned() };
    let mut document = plain.parse::<DocumentMut>().map_err(wrong)?;
    if document.to_string() != plain {
        return Err(EditError::OtherLines);
    }
    let edited = change(&mut document)?;
    Ok(match edited == plain {
        true => text.to_owned(),
        false if carried => edited.replace('\n', "\r\n"),
        false => edited,
    })
}

/// The lines of a group that is new.
fn new_group(wish: &Protection) -> Result<String, EditError> {
    if wish.sources.is_empty() {
        return Err(EditError::NoGroup { group: wish.group.clone() });
    }
    let name = Key::new(&wish.group).to_string();
    let sources: toml_edit::Array = wish.sources.iter().map(SourceWish::value).collect();
    let mut lines = vec![format!("[group.{name}]"), format!("sources = {sources}")];
    for (tier, tier_wish) in [("local", &wish.local), ("online", &wish.online)] {
        if tier_wish.is_nothing() {
            continue;
        }
        let schedule = schedule_of(wish, tier, tier_wish)?;
        lines.push(format!("\n[group.{name}.{tier}]\nschedule = {}", Value::from(schedule)));
        if let Some(keep) = tier_wish.keep.as_ref().filter(|keep| !keep.is_everything()) {
            lines.push(format!("keep = {}", keep.value()));
        }
    }
    Ok(lines.join("\n") + "\n")
}

fn schedule_of<'a>(wish: &Protection, tier: &'static str, said: &'a TierWish) -> Result<&'a str, EditError> {
    let missing = || EditError::NoSchedule { group: wish.group.clone(), tier };
    said.schedule.as_deref().ok_or_else(missing)
}

/// What a table of either form has under a key. `Item::get_mut` would put something there.
fn below<'a>(table: &'a mut Item, key: &str) -> Option<&'a mut Item> {
    table.as_table_like_mut()?.get_mut(key)
}

fn is_of(source: &Value, path: &str) -> bool {
    path_of(source).is_some_and(|known| Path::new(known) == Path::new(path))
}

fn set_source(sources: &mut toml_edit::Array, wish: &SourceWish) {
    let known = sources.iter().position(|source| is_of(source, &wish.path));
    let Some(source) = known.and_then(|at| sources.get_mut(at)) else {
        return list::push(sources, wish.value());
    };
    if !has_rules(wish) {
        return;
    }
    match source.as_inline_table_mut() {
        Some(table) => wish.rules().for_each(|(key, value)| set_inline(table, key, value)),
        None => replace(source, wish.value()),
    }
}

fn set_tier(
    group: &mut Item,
    wish: &Protection,
    name: &'static str,
    tier: &TierWish,
) -> Result<(), EditError> {
    if tier.is_nothing() {
        return Ok(());
    }
    if let Some(known) = below(group, name) {
        set_tier_in(known, tier);
        return Ok(());
    }
    let schedule = schedule_of(wish, name, tier)?;
    let mut made = InlineTable::from_iter([("schedule", Value::from(schedule))]);
    made.extend(tier.keep.iter().filter(|keep| !keep.is_everything()).map(|keep| ("keep", keep.value())));
    match group.as_inline_table_mut() {
        Some(group) => set_inline(group, name, made.into()),
        None => drop(group.as_table_like_mut().map(|group| group.insert(name, made.into_table().into()))),
    }
    Ok(())
}

fn set_tier_in(item: &mut Item, wish: &TierWish) {
    if let Some(schedule) = &wish.schedule {
        set(item, "schedule", schedule.into());
    }
    match &wish.keep {
        Some(keep) if keep.is_everything() => {
            item.as_table_like_mut().and_then(|tier| tier.remove("keep"));
        }
        // A table of its own stays one, with its comments.
        Some(keep) => match below(item, "keep").and_then(Item::as_table_mut) {
            Some(table) => set_all(table, keep),
            None => set(item, "keep", keep.value()),
        },
        None => {}
    }
}

fn set_all(table: &mut Table, keep: &Keep) {
    let unwanted: Vec<String> =
        table.iter().map(|(key, _)| key.to_owned()).filter(|key| !keep.names(key)).collect();
    unwanted.iter().for_each(|key| drop(table.remove(key)));
    for (key, value) in keep.rules() {
        set_plain(table, key, value);
    }
}

/// Sets a value of a table of either form.
fn set(item: &mut Item, key: &str, value: Value) {
    match item {
        Item::Value(Value::InlineTable(table)) => set_inline(table, key, value),
        _ => {
            if let Some(table) = item.as_table_like_mut() {
                set_plain(table, key, value);
            }
        }
    }
}

/// Takes a value away from a table of either form. What stood before the brace stands there again.
fn unset(item: &mut Item, key: &str) {
    let Item::Value(Value::InlineTable(table)) = item else {
        item.as_table_like_mut().and_then(|table| table.remove(key));
        return;
    };
    let is_last = table.iter().last().is_some_and(|(last, _)| last == key);
    let suffix = table.remove(key).and_then(|value| value.decor().suffix().cloned());
    if let (true, Some(suffix), Some((_, last))) = (is_last, suffix, table.iter_mut().last()) {
        last.decor_mut().set_suffix(suffix);
    }
}

fn set_plain(table: &mut dyn TableLike, key: &str, value: Value) {
    match table.get_mut(key).and_then(Item::as_value_mut) {
        Some(known) => replace(known, value),
        None => drop(table.insert(key, value.into())),
    }
}

fn set_inline(table: &mut InlineTable, key: &str, value: Value) {
    if let Some(known) = table.get_mut(key) {
        return replace(known, value);
    }
    // What stood before the brace would stand before the comma.
    let mut end = String::new();
    if let Some((_, last)) = table.iter_mut().last() {
        let suffix = last.decor().suffix().and_then(toml_edit::RawString::as_str).unwrap_or_default();
        if suffix.chars().all(|c| c == ' ') {
            end = suffix.to_owned();
            last.decor_mut().set_suffix("");
        }
    }
    table.insert(key, value.decorated(" ", end));
}

/// Puts a value in the place of another one, if it says something else, with what stands around it.
fn replace(known: &mut Value, value: Value) {
    if !wish::says_the_same(known, &value) {
        let around = known.decor().clone();
        *known = value;
        *known.decor_mut() = around;
    }
}
