//! Who may say what: words, and the files they belong to.

use super::source::Source;

/// Words that only some files may say.
struct Rule {
    /// The words. One that begins or ends with a letter stands alone, not within a longer word.
    words: &'static [&'static str],
    /// Beginnings of the names of files that may say them.
    home: &'static [&'static str],
    /// Whether words in strings count too.
    in_strings: bool,
    /// The rule, as a sentence.
    says: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        words: &["fuser::", "fuser as", "use fuser"],
        home: &["fs/src/fuse.rs", "fs/src/fuse/", "fs/src/mount.rs", "fs/src/mount/"],
        in_strings: false,
        says: "only fs/src/fuse and fs/src/mount know the kernel",
    },
    Rule {
        words: &[
            "println!",
            "print!",
            "eprintln!",
            "eprint!",
            "dbg!",
            "io::stdout",
            "io::stderr",
            "stdout()",
            "stderr()",
        ],
        home: &["src/"],
        in_strings: false,
        says: "only the program prints; the engine tells its Monitor",
    },
    Rule {
        words: &["clap", "indicatif", "rpassword", "axum", "hyper", "tracing_subscriber", "signal_hook"],
        home: &["src/"],
        in_strings: false,
        says: "command line, terminal, signals and HTTP servers are the program's",
    },
    Rule {
        words: &[
            "std::env",
            "env::var",
            "env::var_os",
            "env::args",
            "env::temp_dir",
            "env::current_dir",
            "option_env!",
        ],
        home: &["src/"],
        in_strings: false,
        says: "only the program reads the environment",
    },
    Rule {
        words: &[
            "SystemTime::now",
            "Instant::now",
            "UNIX_EPOCH.elapsed",
            "thread::sleep",
            "tokio::time",
            "jiff::Timestamp::now",
            "Zoned::now",
            "park_timeout",
            "ClockId",
            "clock_gettime",
        ],
        home: &["store/src/clock.rs"],
        in_strings: false,
        says: "the system's clock and sleeping live in store/src/clock.rs; take a Clock",
    },
    Rule {
        words: &[
            "getrandom",
            "rand::",
            "OsRng",
            "thread_rng",
            "RandomState::new",
            "/dev/urandom",
            "/dev/random",
        ],
        home: &["store/src/seal.rs", "store/src/seal/", "store/src/id.rs"],
        in_strings: true,
        says: "random numbers are made in store/src/seal and store/src/id.rs",
    },
    Rule {
        words: &[
            "azure_core",
            "azure_identity",
            "azure_storage_blob",
            "x-ms-",
            ".blob.core.windows.net",
            "devstoreaccount1",
        ],
        home: &["store/src/vault/azure"],
        in_strings: true,
        says: "Azure's words are said in store/src/vault/azure only",
    },
    Rule {
        words: &["block_on", "tokio::runtime", "Runtime::new", "Handle::current", "block_in_place"],
        home: &["store/src/transfer.rs", "store/src/transfer/", "src/"],
        in_strings: false,
        says: "the border between blocking and async is store/src/transfer.rs",
    },
    Rule {
        words: &["rusqlite", "SELECT ", "INSERT INTO", "INSERT OR", "CREATE TABLE", "DELETE FROM", "PRAGMA "],
        home: &["store/src/catalog.rs", "store/src/catalog/", "backup/src/ledger.rs", "backup/src/ledger/"],
        in_strings: true,
        says: "SQL lives in store/src/catalog and backup/src/ledger",
    },
    Rule { words: &["unsafe"], home: &[], in_strings: false, says: "no `unsafe`" },
    Rule {
        words: &["anyhow"],
        home: &["src/"],
        in_strings: false,
        says: "errors below the program are enums, not anyhow",
    },
];

/// What a file says that it must not say, as `file:line: …`.
pub fn broken_rules(source: &Source) -> Vec<String> {
    let mut broken = Vec::new();
    for rule in RULES.iter().filter(|rule| !rule.home.iter().any(|home| source.name.starts_with(home))) {
        let text = if rule.in_strings { &source.with_strings } else { &source.code };
        for word in rule.words {
            let places =
                text.match_indices(word).map(|(at, _)| at).filter(|&at| stands_alone(text, at, word));
            broken.extend(places.map(|at| {
                format!("{}:{}: `{}`, but {}", source.name, source.line(at), word.trim(), rule.says)
            }));
        }
    }
    broken
}

fn stands_alone(text: &str, at: usize, word: &str) -> bool {
    let letter = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let bytes = text.as_bytes();
    let (first, last) = (word.as_bytes().first(), word.as_bytes().last());
    let before = at.checked_sub(1).and_then(|before| bytes.get(before));
    !(letter(first) && letter(before) || letter(last) && letter(bytes.get(at + word.len())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(name: &str, text: &str) -> Vec<String> {
        broken_rules(&Source::new(name, text))
    }

    #[test]
    fn each_word_is_found_outside_its_home_and_allowed_in_it() {
        let table = [
            ("use fuser::Filesystem;", "fs/src/view.rs", "fs/src/fuse.rs"),
            ("fn a() { println!(\"x\") }", "store/src/pack.rs", "src/terminal.rs"),
            ("fn a() { eprint!(\"x\") }", "backup/src/protect.rs", "src/main.rs"),
            ("use std::io::stderr; fn a() { stderr(); }", "store/src/pack.rs", "src/main.rs"),
            ("use clap::Parser;", "backup/src/config.rs", "src/args.rs"),
            ("let x = std::env::var(\"HOME\");", "store/src/staging.rs", "src/settings.rs"),
            ("let t = Instant::now();", "src/terminal.rs", "store/src/clock.rs"),
            ("std::thread::sleep(x);", "fs/src/mount.rs", "store/src/clock.rs"),
            ("getrandom::fill(&mut x);", "store/src/pack.rs", "store/src/seal/keys.rs"),
            ("File::open(\"/dev/urandom\")", "backup/src/job.rs", "store/src/id.rs"),
            ("headers.insert(\"x-ms-version\")", "store/src/vault/retry.rs", "store/src/vault/azure.rs"),
            ("use azure_core::http;", "src/main.rs", "store/src/vault/azure/blob.rs"),
            ("handle.block_on(x)", "store/src/reader.rs", "store/src/transfer.rs"),
            ("db.execute(\"SELECT a FROM b\")", "store/src/index.rs", "store/src/catalog/queries.rs"),
            ("use rusqlite::Connection;", "backup/src/job.rs", "backup/src/ledger.rs"),
            ("use anyhow::Result;", "fs/src/view.rs", "src/main.rs"),
        ];
        for (text, outside, home) in table {
            assert!(!broken(outside, text).is_empty(), "{text} in {outside}");
            assert_eq!(broken(home, text), Vec::<String>::new(), "{text} in {home}");
        }
        assert_eq!(broken("src/main.rs", "\nunsafe { x() }"), ["src/main.rs:2: `unsafe`, but no `unsafe`"]);
    }

    #[test]
    fn a_word_within_a_word_a_comment_or_a_test_is_not_said() {
        for text in [
            "fn blueprint() {}",
            "let unsafely = 1;",
            "// println!(\"x\")",
            "let a = \"println!\";",
            "#[cfg(test)] mod tests { fn a() { println!(\"x\") } }",
            "let brand::new = clapper;",
        ] {
            assert_eq!(broken("store/src/pack.rs", text), Vec::<String>::new(), "{text}");
        }
    }
}
