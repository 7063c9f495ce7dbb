//! Patterns that choose paths, in the syntax that users of other backup tools have in their files already.
//!
//! A pattern is matched name by name: `*` any run of characters, `?` one, `[a-z]` and `[^a-z]` one of a set, `\` takes the next
//! character as it is; a whole name `**` stands for any number of directories. A pattern that begins with `/` starts at
//! the root of paths, any other may start at any directory border. What matches a directory matches everything in it.
//! Of several patterns the last that matches decides; one that begins with `!` takes back what earlier ones chose.
//!
//! Names are raw bytes: a character is one UTF-8 sequence where the bytes are valid and one byte where not.

/// A pattern that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid pattern {pattern:?}: {detail}")]
pub struct PatternError {
    /// As it was given.
    pub pattern: String,
    /// What is wrong.
    pub detail: &'static str,
}

/// A list of patterns, in the order in which they were given.
#[derive(Debug, Clone, Default)]
pub struct Patterns {
    list: Vec<Pattern>,
}

/// Which pattern decides about a path; that of the directory above is needed for the one below.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verdict {
    last: Option<usize>,
    chosen: bool,
}

impl Verdict {
    /// Whether the patterns chose the path.
    pub fn chosen(self) -> bool {
        self.chosen
    }
}

#[derive(Debug, Clone)]
struct Pattern {
    negated: bool,
    fold: bool,
    parts: Vec<Part>,
}

#[derive(Debug, Clone)]
enum Part {
    AnyDepth,
    Exactly(Vec<u8>),
    EndsWith(Vec<u8>),
    Glob(Vec<Token>),
}

/// A character: a Unicode scalar value, or 0x110000 plus a byte that is not part of one.
type Symbol = u32;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Run,
    One,
    Symbol(Symbol),
    Set { negated: bool, ranges: Vec<(Symbol, Symbol)> },
}

impl Patterns {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Appends a pattern. With `fold`, upper and lower case are the same.
    pub fn add(&mut self, pattern: &[u8], fold: bool) -> Result<(), PatternError> {
        let failed = |detail| PatternError { pattern: String::from_utf8_lossy(pattern).into_owned(), detail };
        let (negated, body) = match pattern.strip_prefix(b"!") {
            Some(body) => (true, body),
            None => (false, pattern),
        };
        let mut parts = Vec::new();
        if !body.starts_with(b"/") {
            parts.push(Part::AnyDepth);
        }
        for name in body.split(|&byte| byte == b'/').filter(|name| !matches!(*name, b"" | b".")) {
            let part = Part::parse(name, fold).map_err(failed)?;
            if !matches!((&part, parts.last()), (Part::AnyDepth, Some(Part::AnyDepth))) {
                parts.push(part);
            }
        }
        if body.is_empty() {
            return Err(failed("it is empty"));
        }
        self.list.push(Pattern { negated, fold, parts });
        Ok(())
    }

    /// Appends the patterns of a file: one a line, without spaces around; blank lines and lines that begin with `#` say nothing.
    pub fn add_lines(&mut self, text: &[u8], fold: bool) -> Result<(), PatternError> {
        text.split(|&byte| byte == b'\n')
            .map(<[u8]>::trim_ascii)
            .filter(|line| !line.is_empty() && !line.starts_with(b"#"))
            .try_for_each(|line| self.add(line, fold))
    }

    /// Decides about `name` in the directory with the names `above`, about which `verdict` was given.
    pub fn judge(&self, verdict: Verdict, above: &[Vec<u8>], name: &[u8]) -> Verdict {
        let first = verdict.last.map_or(0, |last| last + 1);
        let path = Path { above, name };
        let later = self.list.iter().enumerate().skip(first).rev();
        let deciding =
            later.into_iter().find(|(_, pattern)| pattern.ends_at(&pattern.parts, path, path.len()));
        match deciding {
            Some((index, pattern)) => Verdict { last: Some(index), chosen: !pattern.negated },
            None => verdict,
        }
    }

    /// Whether the patterns may choose something below the directory `name` in `above`, be it not chosen itself.
    pub fn may_lead(&self, above: &[Vec<u8>], name: &[u8]) -> bool {
        let path = Path { above, name };
        self.list.iter().any(|pattern| !pattern.negated && pattern.begins(path))
    }
}

#[derive(Clone, Copy)]
struct Path<'a> {
    above: &'a [Vec<u8>],
    name: &'a [u8],
}

impl<'a> Path<'a> {
    fn len(self) -> usize {
        self.above.len() + 1
    }

    fn get(self, index: usize) -> &'a [u8] {
        self.above.get(index).map_or(self.name, Vec::as_slice)
    }
}

impl Pattern {
    /// Whether `parts` match the first `end` names of the path, to the last of both. From the back, because the last
    /// name tells most paths apart.
    fn ends_at(&self, parts: &[Part], path: Path<'_>, end: usize) -> bool {
        match parts.split_last() {
            None => end == 0,
            Some((Part::AnyDepth, [])) => true,
            Some((Part::AnyDepth, rest)) => (0..=end).rev().any(|end| self.ends_at(rest, path, end)),
            Some((part, rest)) => {
                end > 0 && part.matches(path.get(end - 1), self.fold) && self.ends_at(rest, path, end - 1)
            }
        }
    }

    /// Whether the path is the beginning of something that the pattern may match.
    fn begins(&self, path: Path<'_>) -> bool {
        for (index, part) in self.parts.iter().enumerate() {
            if matches!(part, Part::AnyDepth) || index >= path.len() {
                return true;
            }
            if !part.matches(path.get(index), self.fold) {
                return false;
            }
        }
        false
    }
}

impl Part {
    fn parse(name: &[u8], fold: bool) -> Result<Self, &'static str> {
        let special = |byte: &u8| matches!(byte, b'*' | b'?' | b'[' | b'\\');
        if name == b"**" {
            return Ok(Self::AnyDepth);
        }
        if !fold && !name.iter().any(special) {
            return Ok(Self::Exactly(name.to_vec()));
        }
        match name.strip_prefix(b"*") {
            Some(rest) if !fold && !rest.iter().any(special) => Ok(Self::EndsWith(rest.to_vec())),
            _ => Ok(Self::Glob(tokens(&symbols(name, fold))?)),
        }
    }

    fn matches(&self, name: &[u8], fold: bool) -> bool {
        match self {
            Self::AnyDepth => true,
            Self::Exactly(exactly) => exactly == name,
            Self::EndsWith(end) => name.ends_with(end),
            Self::Glob(tokens) => glob(tokens, &symbols(name, fold)),
        }
    }
}

/// Cuts raw bytes into characters, in lower case with `fold`.
fn symbols(bytes: &[u8], fold: bool) -> Vec<Symbol> {
    let mut out = Vec::with_capacity(bytes.len());
    for part in bytes.utf8_chunks() {
        for c in part.valid().chars() {
            if fold { out.extend(c.to_lowercase().map(u32::from)) } else { out.push(c.into()) }
        }
        out.extend(part.invalid().iter().map(|&byte| 0x11_0000 + u32::from(byte)));
    }
    out
}

fn tokens(pattern: &[Symbol]) -> Result<Vec<Token>, &'static str> {
    let mut tokens = Vec::new();
    let mut rest = pattern.iter().copied();
    while let Some(symbol) = rest.next() {
        tokens.push(match char::from_u32(symbol) {
            Some('*') if tokens.last() == Some(&Token::Run) => continue,
            Some('*') => Token::Run,
            Some('?') => Token::One,
            Some('[') => set(&mut rest)?,
            Some('\\') => Token::Symbol(rest.next().ok_or("it ends with a backslash")?),
            _ => Token::Symbol(symbol),
        });
    }
    Ok(tokens)
}

/// What follows a `[`, to the `]`.
fn set(rest: &mut impl Iterator<Item = Symbol>) -> Result<Token, &'static str> {
    const OPEN: &str = "a set is not closed with ]";
    let (mut negated, mut ranges) = (false, Vec::new());
    let mut next = rest.next().ok_or(OPEN)?;
    if next == u32::from('^') {
        negated = true;
        next = rest.next().ok_or(OPEN)?;
    }
    loop {
        if next == u32::from(']') && !ranges.is_empty() {
            return Ok(Token::Set { negated, ranges });
        }
        let from = if next == u32::from('\\') { rest.next().ok_or(OPEN)? } else { next };
        next = rest.next().ok_or(OPEN)?;
        let mut to = from;
        if next == u32::from('-') {
            to = rest.next().ok_or(OPEN)?;
            if to == u32::from('\\') {
                to = rest.next().ok_or(OPEN)?;
            }
            next = rest.next().ok_or(OPEN)?;
        }
        if to < from {
            return Err("a range in a set runs backwards");
        }
        ranges.push((from, to));
    }
}

/// Matches a whole name; on a mismatch only the last run is made longer, which is enough (and never exponential).
fn glob(tokens: &[Token], name: &[Symbol]) -> bool {
    let (mut at, mut pos) = (0, 0);
    let mut retry = None;
    loop {
        match (tokens.get(at), name.get(pos)) {
            (None, None) => return true,
            (Some(Token::Run), _) => {
                retry = Some((at + 1, pos));
                at += 1;
                continue;
            }
            (Some(token), Some(&symbol)) if token.takes(symbol) => {
                (at, pos) = (at + 1, pos + 1);
                continue;
            }
            _ => {}
        }
        let Some((after, from)) = retry.filter(|&(_, from)| from < name.len()) else { return false };
        retry = Some((after, from + 1));
        (at, pos) = (after, from + 1);
    }
}

impl Token {
    fn takes(&self, symbol: Symbol) -> bool {
        match self {
            Self::Run => false,
            Self::One => true,
            Self::Symbol(own) => *own == symbol,
            Self::Set { negated, ranges } => {
                ranges.iter().any(|&(from, to)| (from..=to).contains(&symbol)) != *negated
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn patterns(list: &[&[u8]]) -> Patterns {
        let mut patterns = Patterns::default();
        list.iter().for_each(|pattern| patterns.add(pattern, false).unwrap());
        patterns
    }

    /// Judges a path as a walk does, directory by directory.
    fn chosen(patterns: &Patterns, path: &[u8]) -> bool {
        let names: Vec<Vec<u8>> =
            path.split(|&b| b == b'/').filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect();
        let mut verdict = Verdict::default();
        for (index, name) in names.iter().enumerate() {
            verdict = patterns.judge(verdict, &names[..index], name);
        }
        verdict.chosen()
    }

    #[test]
    fn patterns_match_as_in_the_table() {
        let table: &[(&[u8], &[u8], bool)] = &[
            (b"*.go", b"/a/b/test.go", true),
            (b"*.go", b"/a/test.go/inside", true),
            (b"*.go", b"/a/test.goo", false),
            (b"/test.go", b"/a/test.go", false),
            (b"/a/*.go", b"/a/test.go", true),
            (b"/a/*.go", b"/a/b/test.go", false),
            (b"b/c", b"/a/b/c/d", true),
            (b"b/c", b"/a/b/x/c", false),
            (b"b/c/", b"/a/b/c", true),
            (b"/a/**/c", b"/a/c", true),
            (b"/a/**/c", b"/a/1/2/3/c", true),
            (b"/a/**/c", b"/b/1/c", false),
            (b"a/**/b/**/c", b"/x/a/1/b/2/3/c", true),
            (b"foo?bar", b"/foo\xc3\xa9bar", true),
            (b"foo?bar", b"/foo\xffbar", true),
            (b"foo?bar", b"/foobar", false),
            (b"[a-c]x", b"/bx", true),
            (b"[^a-c]x", b"/bx", false),
            (b"[^a-c]x", b"/\xfex", true),
            (b"[\\]x]y", b"/]y", true),
            (b"\\*", b"/anything", false),
            (b"\\*", b"/*", true),
            (b"*a*b*c", b"/xxaxxbxxabc", true),
            (b"*a*b*c", b"/xxaxxbxxabcd", false),
            (b"\xff*", b"/\xff\xfe", true),
            (b"/", b"/a", false),
            (b"*", b"/a/b", true),
            (b"\\!x", b"/!x", true),
        ];
        for (pattern, path, expected) in table {
            let shown = (String::from_utf8_lossy(pattern), String::from_utf8_lossy(path));
            assert_eq!(chosen(&patterns(&[pattern]), path), *expected, "{shown:?}");
        }
    }

    #[test]
    fn the_last_pattern_that_matches_decides() {
        let list = patterns(&[b"*.log", b"!keep.log", b"/var/keep.log"]);
        assert!(chosen(&list, b"/a.log"));
        assert!(!chosen(&list, b"/x/keep.log"));
        assert!(chosen(&list, b"/var/keep.log"));
        let back = patterns(&[b"cache", b"!cache/important"]);
        assert!(chosen(&back, b"/cache/rest"));
        assert!(!chosen(&back, b"/cache/important/file"));
    }

    #[test]
    fn folding_makes_cases_equal_beyond_ascii() {
        let mut list = Patterns::default();
        list.add("ÄRGER*.JPG".as_bytes(), true).unwrap();
        assert!(chosen(&list, "/ärger1.jpg".as_bytes()));
        assert!(!chosen(&patterns(&[b"*.JPG"]), b"/a.jpg"));
    }

    #[test]
    fn a_file_of_patterns_has_comments_and_blank_lines() {
        let mut list = Patterns::default();
        list.add_lines(b"# all logs\n\n  *.log \r\n!keep.log\n", false).unwrap();
        assert!(chosen(&list, b"/a.log") && !chosen(&list, b"/keep.log") && !chosen(&list, b"/# all logs"));
    }

    #[test]
    fn broken_patterns_are_refused() {
        for pattern in [&b"[a-"[..], b"[", b"[]", b"[]-]x", b"a\\", b"[z-a]", b"", b"!"] {
            assert!(Patterns::default().add(pattern, false).is_err(), "{pattern:?}");
        }
    }

    #[test]
    fn a_directory_may_lead_to_a_choice_below_it() {
        let list = patterns(&[b"/home/*/doc"]);
        assert!(list.may_lead(&[], b"home"));
        assert!(list.may_lead(&[b"home".to_vec()], b"me"));
        assert!(!list.may_lead(&[], b"etc"));
        assert!(patterns(&[b"*.rs"]).may_lead(&[], b"etc"));
    }
}
