//! A source file as the rules see it: without comments, without tests, with and without the content of its strings.

/// A file with the parts blanked out that no rule is about. Lines keep their numbers.
pub struct Source {
    /// Path from the repository's root.
    pub name: String,
    /// Code with strings.
    pub with_strings: String,
    /// Code with empty strings.
    pub code: String,
    top: String,
}

impl Source {
    /// Reads a file. One that is a test as a whole has no code.
    pub fn new(name: &str, text: &str) -> Self {
        let (mut with_strings, mut code) = strip(text);
        if is_test_file(name) {
            with_strings.clear();
            code.clear();
        }
        for (begin, end) in test_items(&code) {
            blank(&mut with_strings, begin, end);
            blank(&mut code, begin, end);
        }
        Self { name: name.to_owned(), with_strings, code, top: text.chars().take(200).collect() }
    }

    /// A complaint if the file does not begin with `//!` and a sentence.
    pub fn missing_top(&self) -> Option<String> {
        let said = self
            .top
            .lines()
            .next()
            .and_then(|line| line.strip_prefix("//!"))
            .map(str::trim)
            .unwrap_or_default();
        let says_why = said.len() > 10;
        // A file that holds nothing has nothing to explain yet.
        let empty = self.with_strings.trim().is_empty() && said == "stub";
        (!says_why && !empty).then(|| format!("{}:1: a file begins with `//!` and why it exists", self.name))
    }

    /// Line number of a place in the code.
    pub fn line(&self, at: usize) -> usize {
        self.code.as_bytes()[..at].iter().filter(|&&byte| byte == b'\n').count() + 1
    }
}

/// Files that are tests as a whole, or kits for them.
fn is_test_file(name: &str) -> bool {
    name.split('/').any(|part| matches!(part.trim_end_matches(".rs"), "tests" | "testing" | "conformance"))
}

fn blank(text: &mut String, begin: usize, end: usize) {
    let blanked: String = text[begin..end].chars().map(|c| if c == '\n' { c } else { ' ' }).collect();
    // Blanks are shorter than letters of more than one byte, and `strip` has left none.
    text.replace_range(begin..end, &blanked);
}

/// Both views of a text, byte for byte as long as each other: comments become blanks in both, strings in the second.
fn strip(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let (mut with_strings, mut code) = (String::new(), String::new());
    let mut at = 0;
    while at < bytes.len() {
        let (kind, len) = token(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        for &byte in &bytes[at..at + len] {
            let shown = match byte {
                b'\n' => '\n',
                byte if byte.is_ascii() => char::from(byte),
                _ => '?',
            };
            let hide = |hidden: bool| if hidden && shown != '\n' { ' ' } else { shown };
            with_strings.push(hide(kind == Token::Comment));
            code.push(hide(kind != Token::Code));
        }
        at += len;
    }
    (with_strings, code)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Token {
    Code,
    Comment,
    Text,
}

/// Kind and length of what stands at the beginning.
fn token(bytes: &[u8], before: Option<u8>) -> (Token, usize) {
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    match bytes {
        [b'/', b'/', ..] => (Token::Comment, find(bytes, b"\n").unwrap_or(bytes.len())),
        [b'/', b'*', ..] => (Token::Comment, block_comment(bytes)),
        [b'"', ..] => (Token::Text, quoted(bytes)),
        [b'r', b'"' | b'#', ..] if !in_word => {
            raw_string(bytes).map_or((Token::Code, 1), |len| (Token::Text, len))
        }
        [b'\'', ..] => character(bytes).map_or((Token::Code, 1), |len| (Token::Text, len)),
        _ => (Token::Code, 1),
    }
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

fn block_comment(bytes: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at.min(bytes.len())
}

fn quoted(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// `r"…"`, `r#"…"#`; `None` for a raw identifier.
fn raw_string(bytes: &[u8]) -> Option<usize> {
    let hashes = bytes[1..].iter().take_while(|&&byte| byte == b'#').count();
    (bytes.get(1 + hashes) == Some(&b'"')).then_some(())?;
    let end = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
    let begin = 2 + hashes;
    Some(find(&bytes[begin..], &end).map_or(bytes.len(), |at| begin + at + end.len()))
}

/// A character literal; `None` for a lifetime.
fn character(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [_, b'\\', _, ..] => Some(3 + find(&bytes[3..], b"'")? + 1),
        [_, first, ..] => {
            let len = match first {
                0xf0.. => 4,
                0xe0.. => 3,
                0xc0.. => 2,
                _ => 1,
            };
            (bytes.get(1 + len) == Some(&b'\'')).then_some(len + 2)
        }
        _ => None,
    }
}

/// Where items stand that are compiled for tests only: from the attribute to the item's end.
fn test_items(code: &str) -> Vec<(usize, usize)> {
    const MARK: &str = "#[cfg(test)]";
    let mut items = Vec::new();
    let mut from = 0;
    while let Some(at) = code[from..].find(MARK).map(|at| at + from) {
        let end = item_end(code, at + MARK.len());
        items.push((at, end));
        from = end;
    }
    items
}

fn item_end(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (at, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' => depth += 1,
            b'}' if depth <= 1 => return at + 1,
            b'}' => depth -= 1,
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_tests_are_told_from_code() {
        let text = concat!(
            "//! Top that says why.\n",
            "use a; // use comment\n",
            "/* x /* nested */ y */ let b = \"in text \\\" still\"; let c = '\"'; let d: &'static str = r#\"raw \"x\"#;\n",
            "#[cfg(test)]\nuse only_in_tests;\n",
            "fn after() {}\n",
            "#[cfg(test)]\nmod tests { fn x() { hidden(\"}\") } }\n",
            "fn last() {}\n",
        );
        let source = Source::new("a.rs", text);
        for (word, in_code, with_strings) in [
            ("use a", true, true),
            ("comment", false, false),
            ("nested", false, false),
            ("in text", false, true),
            ("raw", false, true),
            ("static", true, true),
            ("only_in_tests", false, false),
            ("after", true, true),
            ("hidden", false, false),
            ("last", true, true),
        ] {
            assert_eq!(source.code.contains(word), in_code, "{word} in code");
            assert_eq!(source.with_strings.contains(word), with_strings, "{word} with strings");
        }
        assert_eq!(source.line(source.code.find("after").unwrap()), 6);
    }

    #[test]
    fn a_file_without_a_top_is_found() {
        for bad in ["fn a() {}", "// why\n", "//!\n", "//! stub\nfn a() {}"] {
            assert!(Source::new("a.rs", bad).missing_top().is_some(), "{bad}");
        }
        assert_eq!(Source::new("a.rs", "//! Holds the door.\n").missing_top(), None);
    }

    #[test]
    fn files_of_tests_hold_no_code() {
        for name in
            ["store/src/pack/tests.rs", "store/src/vault/testing.rs", "store/src/vault/conformance/a.rs"]
        {
            assert_eq!(Source::new(name, "fn a() {}").code, "", "{name}");
        }
        assert_ne!(Source::new("src/commands/contests.rs", "fn a() {}").code, "");
    }
}
