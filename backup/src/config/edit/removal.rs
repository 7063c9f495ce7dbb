//! Taking a group away. Comments that touch its head go with it; others stay where they were.

use toml_edit::{DocumentMut, Item, RawString, Table};

/// Takes the group away with all of its tables.
pub fn remove_group(document: &mut DocumentMut, group: &str) {
    let begins_file = document.as_table().get_values().is_empty();
    let Some(groups) = document.get_mut("group").and_then(Item::as_table_like_mut) else { return };
    let removed = groups.remove(group);
    if groups.is_empty() {
        document.remove("group");
    }
    let Some(Item::Table(removed)) = removed else { return };
    let Some(position) = removed.position() else { return };
    let is_first = begins_file && next_position(document.as_table(), -1).is_none_or(|next| position < next);
    let kept = kept(text(removed.decor().prefix()), is_first);
    match next_position(document.as_table(), position) {
        Some(next) => with_table_at(document.as_table_mut(), next, &mut |table| {
            let own = text(table.decor().prefix());
            let own = if is_first && kept.is_empty() { own.trim_start_matches('\n') } else { own };
            let whole = format!("{kept}{own}");
            table.decor_mut().set_prefix(whole);
        }),
        None => {
            let whole = format!("{kept}{}", text(Some(document.trailing())));
            document.set_trailing(whole);
        }
    }
}

/// What stays of the lines above the group. Those at the begin of the file speak of the file.
fn kept(above: &str, is_first: bool) -> &str {
    let kept = match above.rfind("\n\n") {
        Some(at) => above.get(..=at).unwrap_or_default(),
        None if is_first => above,
        None => "",
    };
    if kept.contains('#') { kept } else { "" }
}

/// The place of the first table behind a place.
fn next_position(table: &Table, after: isize) -> Option<isize> {
    let below = table.iter().filter_map(|(_, item)| item.as_table());
    let own = |table: &Table| table.position().filter(|at| *at > after && !table.is_implicit());
    below.flat_map(|table| own(table).into_iter().chain(next_position(table, after))).min()
}

fn with_table_at(table: &mut Table, position: isize, change: &mut dyn FnMut(&mut Table)) {
    for (_, item) in table.iter_mut() {
        let Some(table) = item.as_table_mut() else { continue };
        if table.position() == Some(position) && !table.is_implicit() {
            change(table);
        }
        with_table_at(table, position, change);
    }
}

fn text(raw: Option<&RawString>) -> &str {
    raw.and_then(RawString::as_str).unwrap_or_default()
}
