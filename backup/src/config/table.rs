//! Reading a table of TOML key by key: what is missing is `None`, what is wrong is noted with its line and read on, so that all mistakes
//! are told at once.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml_edit::{Item, TableLike, Value};

use super::Problem;

/// A file that is being read, and what is wrong with it.
#[derive(Debug)]
pub struct Notes<'a> {
    path: &'a Path,
    text: &'a str,
    heard: &'a Heard,
}

/// What all files have said by now.
#[derive(Debug, Default)]
pub struct Heard {
    /// What is wrong with it.
    pub problems: RefCell<Vec<Problem>>,
    /// Keys that may be said once only.
    keys: RefCell<BTreeSet<String>>,
}

impl<'a> Notes<'a> {
    /// Notes about `text`, the content of the file at `path`.
    pub fn about(path: &'a Path, text: &'a str, heard: &'a Heard) -> Self {
        Self { path, text, heard }
    }

    fn line(&self, span: Option<Range<usize>>) -> usize {
        let start = span.map_or(0, |span| span.start).min(self.text.len());
        1 + self.text.as_bytes().iter().take(start).filter(|byte| **byte == b'\n').count()
    }

    /// Notes what is wrong at a place in the text.
    pub fn add(&self, span: Option<Range<usize>>, what: impl Into<String>) {
        let line = self.line(span);
        self.heard.problems.borrow_mut().push(Problem {
            file: self.path.to_path_buf(),
            line,
            what: what.into(),
        });
    }
}

/// A table, or an inline one.
pub struct Table<'a> {
    table: &'a dyn TableLike,
    /// As it is called in the file, `group.web.local`; empty for the whole file.
    name: String,
    at: Option<Range<usize>>,
    notes: &'a Notes<'a>,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Table<'a> {
    /// The whole of a file.
    pub fn whole(table: &'a toml_edit::Table, notes: &'a Notes<'a>) -> Self {
        Self { table, name: String::new(), at: None, notes, known: RefCell::default() }
    }

    fn named(&self, key: &str, item: &'a Item) -> Option<Self> {
        let name = if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) };
        let Some(table) = item.as_table_like() else {
            self.wrong(key, item, "a table");
            return None;
        };
        Some(Self { table, name, at: item.span(), notes: self.notes, known: RefCell::default() })
    }

    /// The file in which the table stands, and its line.
    pub fn place_in_file(&self) -> (PathBuf, usize) {
        (self.notes.path.to_path_buf(), self.notes.line(self.at.clone()))
    }

    /// Notes what is wrong with the table as a whole.
    pub fn note(&self, what: impl Into<String>) {
        self.notes.add(self.at.clone(), what);
    }

    /// Notes what is wrong with the value of a key.
    pub fn note_at(&self, key: &str, what: impl std::fmt::Display) {
        let span = self.table.get(key).and_then(|item| self.place(key, item));
        self.notes.add(span, format!("{}: {what}", self.full(key)));
    }

    /// Notes what is wrong with one of the values of a key.
    pub fn note_in(&self, key: &str, place: Option<Range<usize>>, what: impl std::fmt::Display) {
        self.notes.add(place, format!("{}: {what}", self.full(key)));
    }

    /// Whether there is such a key.
    pub fn has(&self, key: &str) -> bool {
        self.table.contains_key(key)
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    /// Tables have the place of their head alone, and those that are implied have none.
    fn place(&self, key: &str, item: &Item) -> Option<Range<usize>> {
        item.span().or_else(|| self.table.key(key).and_then(toml_edit::Key::span))
    }

    fn wrong(&self, key: &str, item: &Item, wanted: &str) {
        self.note_at(key, format_args!("{wanted} is wanted, and this is {}", kind(item)));
    }

    fn get(&self, key: &'static str) -> Option<&'a Item> {
        self.known.borrow_mut().push(key);
        self.table.get(key)
    }

    fn value<T>(
        &self,
        key: &'static str,
        wanted: &str,
        take: impl FnOnce(&'a Item) -> Option<T>,
    ) -> Option<T> {
        let item = self.get(key)?;
        let taken = take(item);
        if taken.is_none() {
            self.wrong(key, item, wanted);
        }
        taken
    }

    /// A text.
    pub fn text(&self, key: &'static str) -> Option<&'a str> {
        self.value(key, "a text in quotes", Item::as_str)
    }

    /// A text that says something.
    pub fn parsed<T, E: std::fmt::Display>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(self.text(key)?).map_err(|error| self.note_at(key, error)).ok()
    }

    /// `true` or `false`; `false` if it is missing.
    pub fn flag(&self, key: &'static str) -> bool {
        self.value(key, "true or false", Item::as_bool).unwrap_or(false)
    }

    /// A number, or `"all"`; 0 if it is missing.
    pub fn count(&self, key: &'static str) -> u32 {
        let take = |item: &Item| match item.as_str() {
            Some("all") => Some(u32::MAX),
            _ => u32::try_from(item.as_integer()?).ok(),
        };
        self.value(key, "a number of points from 0 to 4294967294, or \"all\",", take).unwrap_or(0)
    }

    /// A number from 0 to `most`; `None` if it is missing or something else.
    pub fn number<N>(&self, key: &'static str, most: N) -> Option<N>
    where
        N: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
    {
        let take = |item: &Item| N::try_from(item.as_integer()?).ok().filter(|number| *number <= most);
        self.value(key, &format!("a whole number from 0 to {most}"), take)
    }

    /// A list of texts; empty if it is missing.
    pub fn texts(&self, key: &'static str) -> Vec<&'a str> {
        let wanted = "a list of texts";
        let take = |item: &'a Item| item.as_array()?.iter().map(Value::as_str).collect();
        self.value(key, wanted, take).unwrap_or_default()
    }

    /// A text, or a list of them; `None` if it is missing or something else.
    pub fn text_or_texts(&self, key: &'static str) -> Option<TextOrTexts<'a>> {
        self.value(key, "a text or a list of texts", |item| match item.as_str() {
            Some(text) => Some(TextOrTexts::Text(text)),
            None => item.as_array()?.iter().map(Value::as_str).collect::<Option<_>>().map(TextOrTexts::Texts),
        })
    }

    /// A list of texts and tables, those of the second kind as tables; `None` if it is missing or something else.
    pub fn texts_and_tables(&self, key: &'static str) -> Option<Vec<TextOrTable<'a>>> {
        let array = self.value(key, "a list", Item::as_array)?;
        let mut found = Vec::new();
        for value in array {
            match (value.as_str(), value.as_inline_table()) {
                (Some(text), _) => found.push(TextOrTable::Text(text, value.span())),
                (_, Some(table)) => found.push(TextOrTable::Table(Table {
                    table,
                    name: self.full(key),
                    at: value.span(),
                    notes: self.notes,
                    known: RefCell::default(),
                })),
                _ => self.notes.add(value.span(), format!("{}: a text or a table is wanted", self.full(key))),
            }
        }
        Some(found)
    }

    /// A list of tables, empty if it is missing: `[[name]]` each, or in line.
    pub fn tables_of(&self, key: &'static str) -> Vec<Table<'a>> {
        let take = |item: &'a Item| match item.as_array_of_tables() {
            Some(tables) => {
                Some(tables.iter().map(|table| (table as &dyn TableLike, table.span())).collect())
            }
            None => {
                let inline =
                    |value: &'a Value| Some((value.as_inline_table()? as &dyn TableLike, value.span()));
                item.as_array()?.iter().map(inline).collect::<Option<Vec<_>>>()
            }
        };
        let found = self.value(key, "a list of tables", take).unwrap_or_default();
        let named = |(table, at)| Table {
            table,
            name: self.full(key),
            at,
            notes: self.notes,
            known: RefCell::default(),
        };
        found.into_iter().map(named).collect()
    }

    /// A table below this one.
    pub fn table(&self, key: &'static str) -> Option<Table<'a>> {
        let item = self.get(key)?;
        self.named(key, item)
    }

    /// A table below this one that other files may have as well, with other keys.
    pub fn shared_table(&self, key: &'static str) -> Option<Table<'a>> {
        let table = self.table(key)?;
        table.table.iter().for_each(|(key, _)| table.say_once(key));
        Some(table)
    }

    /// What is said twice is a mistake: which of the two is meant nobody can know.
    pub fn say_once(&self, key: &str) {
        if self.has(key) && !self.notes.heard.keys.borrow_mut().insert(self.full(key)) {
            self.note_at(key, "it is said in another file already");
        }
    }

    /// All tables below this one, with their names; for tables whose keys are names that people gave.
    pub fn tables(&self) -> Vec<(&'a str, Table<'a>)> {
        self.table.iter().filter_map(|(key, item)| Some((key, self.named(key, item)?))).collect()
    }

    /// Notes all keys that nobody asked for; where the table is.
    pub fn end(self) -> Option<Range<usize>> {
        let known = self.known.borrow();
        for (key, item) in self.table.iter().filter(|(key, _)| !known.contains(key)) {
            let place = self.table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
            self.notes
                .add(place, format!("{} is not known; known here: {}", self.full(key), known.join(", ")));
        }
        self.at.clone()
    }
}

/// A value that may be either.
pub enum TextOrTexts<'a> {
    /// A text.
    Text(&'a str),
    /// A list of them.
    Texts(Vec<&'a str>),
}

/// An entry of a list that holds both.
pub enum TextOrTable<'a> {
    /// A text, with its place.
    Text(&'a str, Option<Range<usize>>),
    /// A table.
    Table(Table<'a>),
}

fn kind(item: &Item) -> &'static str {
    match item.type_name() {
        "string" => "a text",
        "integer" | "float" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        "table" | "inline table" | "array of tables" => "a table",
        _ => "something else",
    }
}

/// The whole of a file, with the name of the file.
pub type Text = (PathBuf, String);
