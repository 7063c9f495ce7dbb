//! Names of data sources, made from their paths: `/home/me/Documents` is `home-me-Documents`.
//!
//! A name is a directory in the mount, stands before the `@` of `NAME@TIME`, and is the same in all points of a source. So
//! it is short, holds nothing that a path, a shell option or a Windows share could trip over, and the same path gets the
//! same name again.

use std::fmt::Write as _;

/// Longest name in bytes: `name@12.00.00Z` and a number must fit into a file name of 255.
const NAME_LEN_MAX: usize = 200;
/// Hexadecimal digits of the path's hash that end a name which had to be cut.
const HASH_DIGITS: usize = 8;

/// A source that exists already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSource {
    /// Its name.
    pub name: String,
    /// Raw bytes of its absolute path.
    pub path: Vec<u8>,
}

/// The name for the source at an absolute path (raw bytes): the one it has if it is known, else one made from the path,
/// with a number behind if another source has it.
pub fn choose_name(path: &[u8], known: &[KnownSource]) -> String {
    let wanted = name_from_path(path);
    // The newest point decides if a source had several names in its life.
    if let Some(same) = known.iter().rev().find(|source| source.path == path) {
        return same.name.clone();
    }
    // Names that differ only in case would be one directory to a Windows client.
    let taken = |name: &str| known.iter().any(|source| source.name.to_lowercase() == name.to_lowercase());
    if !taken(&wanted) {
        return wanted;
    }
    let numbered = (2u64..).map(|n| format!("{wanted}-{n}")).find(|name| !taken(name));
    numbered.unwrap_or(wanted)
}

/// The name made from a path alone. `/` is `root`.
pub fn name_from_path(path: &[u8]) -> String {
    let parts: Vec<String> =
        path.split(|&byte| byte == b'/').filter(|part| !part.is_empty()).map(clean).collect();
    let mut name = parts.join("-");
    if name.is_empty() {
        return "root".to_owned();
    }
    if name.starts_with(['.', '-']) {
        name.replace_range(..1, "_");
    }
    if name.len() > NAME_LEN_MAX { cut(&name, path) } else { name }
}

/// A part of a path with `_` for everything that is no letter, digit, dot, dash, plus or underscore of any language.
fn clean(part: &[u8]) -> String {
    let fits = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '+');
    let text = String::from_utf8_lossy(part);
    text.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}

/// The end of a name, which tells more than its beginning, and a hash of the whole path.
fn cut(name: &str, path: &[u8]) -> String {
    let mut begin = name.len() - (NAME_LEN_MAX - HASH_DIGITS - 1);
    while !name.is_char_boundary(begin) {
        begin += 1;
    }
    let mut short = name[begin..].trim_start_matches(['.', '-']).to_owned();
    // Writing to a String cannot fail.
    let _ = write!(short, "-{}", &blake3::hash(path).to_hex()[..HASH_DIGITS]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(pairs: &[(&str, &str)]) -> Vec<KnownSource> {
        pairs.iter().map(|(name, path)| KnownSource { name: (*name).into(), path: (*path).into() }).collect()
    }

    #[test]
    fn a_path_reads_in_its_name() {
        let table: [(&[u8], &str); 11] = [
            (b"/home/me/Documents", "home-me-Documents"),
            (b"/", "root"),
            (b"//srv///www/", "srv-www"),
            (b"/etc", "etc"),
            (b"/data/my files (old)", "data-my_files__old_"),
            (b"/.snapshots", "_snapshots"),
            (b"/-rf", "_rf"),
            (b"/a/.hidden", "a-.hidden"),
            ("/home/Gr\u{fc}\u{df}e".as_bytes(), "home-Gr\u{fc}\u{df}e"),
            (b"/x/\xff\n@:\\", "x-_____"),
            (b"/C++", "C++"),
        ];
        for (path, name) in table {
            assert_eq!(name_from_path(path), name, "{}", path.escape_ascii());
        }
    }

    #[test]
    fn names_that_would_collide_get_a_number() {
        let taken = known(&[("a-b", "/a/b"), ("a-b-2", "/x")]);
        assert_eq!(choose_name(b"/a-b", &taken), "a-b-3");
        assert_eq!(choose_name(b"/A-B", &taken), "A-B-3");
        assert_eq!(choose_name(b"/c", &taken), "c");
    }

    #[test]
    fn a_source_keeps_the_name_it_has() {
        let taken = known(&[("docs", "/home/me/Documents"), ("papers", "/home/me/Documents")]);
        assert_eq!(choose_name(b"/home/me/Documents", &taken), "papers");
        let again = choose_name(b"/a-b", &known(&[("a-b", "/a/b"), ("a-b-2", "/a-b")]));
        assert_eq!(again, "a-b-2");
    }

    #[test]
    fn a_long_path_has_a_short_name_of_its_own() {
        let long = |last: &str| format!("/{}/{last}", "\u{e4}".repeat(300)).into_bytes();
        let (one, two) = (name_from_path(&long("one")), name_from_path(&long("two")));
        assert!(one.len() <= NAME_LEN_MAX && two.len() <= NAME_LEN_MAX);
        assert_ne!(one, two);
        assert!(one.contains("-one-"), "{one}");
        let same_end =
            [name_from_path(&long("x")), name_from_path(&[b"/other".as_slice(), &long("x")].concat())];
        assert_ne!(same_end[0], same_end[1]);
    }
}
