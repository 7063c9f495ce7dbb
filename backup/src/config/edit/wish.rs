//! What is wished of a configuration, in the words of its files.

use std::str::FromStr;

use toml_edit::{InlineTable, Value};

use crate::values;

/// What a group is to say.
#[derive(Clone, Debug, Default)]
pub struct Protection {
    /// Its name.
    pub group: String,
    /// Sources that it is to have besides its others.
    pub sources: Vec<SourceWish>,
    /// What is to change of its points on the staging disk.
    pub local: TierWish,
    /// And of those in vaults.
    pub online: TierWish,
}

/// A source, and what is to be said of it; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct SourceWish {
    /// Its absolute path.
    pub path: String,
    /// A name for it.
    pub name: Option<String>,
    /// What is left out of it.
    pub exclude: Option<Vec<String>>,
}

/// What is to change of a tier; what is `None` stays as it is.
#[derive(Clone, Debug, Default)]
pub struct TierWish {
    /// When.
    pub schedule: Option<String>,
    /// What is kept.
    pub keep: Option<Keep>,
}

/// Rules of retention as they stand on a command line: `within=7d,daily=14,yearly=all`, or `all` without a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keep(Vec<(&'static str, Amount)>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Amount {
    Count(u32),
    Text(String),
}

/// The rules that count points.
const COUNTS: [&str; 6] = ["last", "hourly", "daily", "weekly", "monthly", "yearly"];

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::default());
        }
        let mut rules: Vec<(&'static str, Amount)> = Vec::new();
        for rule in text.split(',') {
            let (key, amount) = rule_of(rule.trim())?;
            if rules.iter().any(|(known, _)| *known == key) {
                return Err(format!("{key} is said twice"));
            }
            rules.push((key, amount));
        }
        Ok(Self(rules))
    }
}

fn rule_of(rule: &str) -> Result<(&'static str, Amount), String> {
    let Some((key, amount)) = rule.split_once('=') else {
        return Err(format!("{rule:?} is no rule; rules are written like within=7d,daily=14,yearly=all"));
    };
    if key == "within" {
        return values::span(amount).map(|_| ("within", Amount::Text(amount.to_owned())));
    }
    let known = COUNTS.into_iter().find(|known| *known == key);
    let key = known.ok_or_else(|| format!("{key:?} is none of within, {}", COUNTS.join(", ")))?;
    match (amount, amount.parse()) {
        ("all", _) => Ok((key, Amount::Text("all".to_owned()))),
        (_, Ok(count)) => Ok((key, Amount::Count(count))),
        _ => Err(format!("{amount:?} is neither a number nor `all`")),
    }
}

impl Keep {
    /// Whether there is no rule, so that nothing expires.
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether there is a rule of this name.
    pub fn names(&self, key: &str) -> bool {
        self.0.iter().any(|(known, _)| *known == key)
    }

    /// The rules as values of a table.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, Value)> {
        self.0.iter().map(|(key, amount)| match amount {
            Amount::Count(count) => (*key, i64::from(*count).into()),
            Amount::Text(text) => (*key, text.into()),
        })
    }

    /// All of them as one.
    pub fn value(&self) -> Value {
        InlineTable::from_iter(self.rules()).into()
    }
}

impl TierWish {
    /// Whether nothing is to change.
    pub fn is_nothing(&self) -> bool {
        self.schedule.is_none() && self.keep.is_none()
    }
}

/// Whether more is said of a source than where it is.
pub fn has_rules(wish: &SourceWish) -> bool {
    wish.rules().next().is_some()
}

impl SourceWish {
    /// What is said of it besides its path.
    pub fn rules(&self) -> impl Iterator<Item = (&'static str, Value)> {
        let name = self.name.iter().map(|name| ("name", Value::from(name)));
        name.chain(self.exclude.iter().map(|rules| ("exclude", Value::from_iter(rules))))
    }

    /// The source as an entry of a list.
    pub fn value(&self) -> Value {
        if !has_rules(self) {
            return Value::from(&self.path);
        }
        let path = [("path", Value::from(&self.path))];
        InlineTable::from_iter(path.into_iter().chain(self.rules())).into()
    }
}

/// The path of an entry of a list of sources.
pub fn path_of(source: &Value) -> Option<&str> {
    source.as_str().or_else(|| source.as_inline_table()?.get("path")?.as_str())
}

/// Whether two values mean the same, however they are written.
pub fn says_the_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::String(one), Value::String(other)) => one.value() == other.value(),
        (Value::Integer(one), Value::Integer(other)) => one.value() == other.value(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len() && one.iter().zip(other).all(|(a, b)| says_the_same(a, b))
        }
        (Value::InlineTable(one), Value::InlineTable(other)) => {
            let has = |(key, value): (&str, &Value)| one.get(key).is_some_and(|a| says_the_same(a, value));
            one.len() == other.len() && other.iter().all(has)
        }
        _ => false,
    }
}
