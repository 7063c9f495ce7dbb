//! Which way the arrows go: between crates by their manifests, between floors of the store by what its modules use.

use std::collections::BTreeMap;

use super::source::Source;

/// What a crate may not depend on.
struct Crate {
    manifest: &'static str,
    /// Crates of the house that it may use.
    below: &'static [&'static str],
    /// Crates of others that belong elsewhere.
    never: &'static [&'static str],
}

/// Crates that only the program may depend on.
const PROGRAM_ONLY: &[&str] = &[
    "clap",
    "clap_complete",
    "clap_mangen",
    "indicatif",
    "rpassword",
    "signal-hook",
    "tracing-subscriber",
    "axum",
    "hyper",
    "anyhow",
];

const CRATES: &[Crate] = &[
    Crate {
        manifest: "Cargo.toml",
        below: &["holdfast-store", "holdfast-backup", "holdfast-fs"],
        never: &["fuser", "rusqlite", "azure_core", "azure_storage_blob"],
    },
    Crate { manifest: "store/Cargo.toml", below: &[], never: &["fuser", "globset"] },
    Crate {
        manifest: "backup/Cargo.toml",
        below: &["holdfast-store"],
        never: &["fuser", "azure_core", "tokio"],
    },
    Crate {
        manifest: "fs/Cargo.toml",
        below: &["holdfast-store"],
        never: &["rusqlite", "azure_core", "tokio", "globset"],
    },
];

/// Dependencies of a manifest that it must not have.
pub fn broken_dependencies(name: &str, manifest: &str) -> Vec<String> {
    let Some(rule) = CRATES.iter().find(|rule| rule.manifest == name) else {
        return vec![format!("{name}:1: no rule says what this crate may use")];
    };
    let program = rule.manifest == "Cargo.toml";
    let wrong = |dependency: &str| {
        let ours = dependency.starts_with("holdfast-");
        ours && !rule.below.contains(&dependency)
            || rule.never.contains(&dependency)
            || !program && PROGRAM_ONLY.contains(&dependency)
    };
    let found = dependencies(manifest).into_iter().filter(|(_, dependency)| wrong(dependency));
    found
        .map(|(line, dependency)| format!("{name}:{line}: `{dependency}` belongs to another floor"))
        .collect()
}

/// Line number and name of each entry under `[dependencies]`; what tests alone use is free.
fn dependencies(manifest: &str) -> Vec<(usize, &str)> {
    let mut in_section = false;
    let mut found = Vec::new();
    for (number, line) in manifest.lines().enumerate() {
        let line = line.trim();
        if line.starts_with('[') {
            in_section =
                line.ends_with("dependencies]") && !line.contains("dev-") && !line.contains("workspace");
            let named = line.trim_matches(['[', ']']).strip_prefix("dependencies.");
            found.extend(named.map(|name| (number + 1, name)));
        } else if in_section && !line.starts_with('#') {
            let name = line.split(['=', '.', ' ']).next().unwrap_or_default();
            found.extend((!name.is_empty()).then_some((number + 1, name)));
        }
    }
    found
}

/// Floor of each module, from the list at the top of `store/src/lib.rs`.
pub fn floors(lib: &str) -> BTreeMap<String, u8> {
    let mut floors = BTreeMap::new();
    for line in lib.lines().filter_map(|line| line.strip_prefix("//! ")) {
        let Some((number, rest)) = line.split_once(". ") else { continue };
        let Ok(number) = number.parse::<u8>() else { continue };
        let modules = rest.split(':').next().unwrap_or_default();
        floors.extend(modules.split('`').skip(1).step_by(2).map(|module| (module.to_owned(), number)));
    }
    floors
}

/// Doors that a floor opens for the one below to stand behind: the trait is declared where it is used, and implemented
/// below. From, to, the only names that may be used.
const DOORS: &[(&str, &str, &[&str])] =
    &[("reader", "tree", &["ChunkSource"]), ("chunk_store", "tree", &["ChunkSink", "ChunkSource"])];

/// Uses of a higher floor in a file of the store.
pub fn broken_floors(source: &Source, floors: &BTreeMap<String, u8>) -> Vec<String> {
    let Some(path) = source.name.strip_prefix("store/src/").filter(|path| *path != "lib.rs") else {
        return Vec::new();
    };
    let parts: Vec<&str> = path.trim_end_matches(".rs").split('/').collect();
    let module = parts[0];
    let Some(floor) = floors.get(module) else {
        return vec![format!(
            "{}:1: `{module}` stands on no floor; list it at the top of store/src/lib.rs",
            source.name
        )];
    };
    let mut broken = Vec::new();
    for (at, used) in uses(&source.code, parts.len()) {
        let name = used.split("::").next().unwrap_or_default().trim();
        let higher = floors.get(name).filter(|above| *above > floor);
        let door = DOORS.iter().any(|(from, to, names)| {
            *from == module && *to == name && names.iter().any(|name| used.split("::").nth(1) == Some(name))
        });
        if let (Some(above), false) = (higher, door) {
            let line = source.line(at);
            broken.push(format!(
                "{}:{line}: `{module}` (floor {floor}) uses `{used}`, which is above it (floor {above})",
                source.name
            ));
        }
    }
    broken
}

/// Paths from the crate's root that code names, each with its place: `crate::a::B`, `super::a::B` at the depth where that
/// is the root, and each part of `{…}` groups.
fn uses(code: &str, depth: usize) -> Vec<(usize, String)> {
    let roots = ["crate::".to_owned(), "super::".repeat(depth)];
    let mut found = Vec::new();
    for root in &roots {
        for (at, _) in code.match_indices(root.as_str()) {
            let before = code[..at].chars().next_back();
            let whole = !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':');
            let rest = &code[at + root.len()..];
            if whole && !rest.starts_with("super::") {
                found.extend(paths(rest).into_iter().map(|path| (at, path)));
            }
        }
    }
    found
}

/// The path at the beginning of a text, or several, if it is or ends in a group.
fn paths(text: &str) -> Vec<String> {
    if let Some(group) = text.strip_prefix('{') {
        return members(group).into_iter().flat_map(|member| paths(member.trim_start())).collect();
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':')).unwrap_or(text.len());
    let head = text[..end].trim_end_matches(':');
    match text[..end].ends_with("::").then(|| text[end..].strip_prefix('{')).flatten() {
        Some(group) => members(group)
            .into_iter()
            .flat_map(|member| paths(member.trim_start()))
            .map(|member| format!("{head}::{member}"))
            .collect(),
        None => vec![head.to_owned()],
    }
}

/// Members of a `{…}` group that begins before `text`, cut at the commas of its own level.
fn members(text: &str) -> Vec<&str> {
    let (mut depth, mut begin, mut found) = (0, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                found.push(&text[begin..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    found.retain(|member| !member.trim().is_empty());
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIB: &str = "//! Top.\n//! 4. `store`, `tree`: points\n//! 3. `reader`, `index`: where\n//! 1. `vault`, `error`: out\n";

    fn broken(name: &str, text: &str) -> Vec<String> {
        broken_floors(&Source::new(name, text), &floors(LIB))
    }

    #[test]
    fn the_list_of_floors_is_read_from_the_top_of_the_crate() {
        let floors = floors(LIB);
        assert_eq!(floors.len(), 6);
        assert_eq!((floors["tree"], floors["reader"], floors["error"]), (4, 3, 1));
    }

    #[test]
    fn an_arrow_that_goes_up_is_found_however_it_is_written() {
        for text in [
            "use crate::tree::Node;",
            "use crate::{error::E, tree::Node};",
            "use crate::{\n    error::{A, B},\n    tree::{Node, Walk},\n};",
            "fn a() -> crate::tree::Node {}",
            "use super::tree::Node;",
            "pub use crate::store;",
        ] {
            assert_eq!(broken("store/src/index.rs", text).len(), text.matches("Walk").count() + 1, "{text}");
        }
        assert_eq!(broken("store/src/index/merge.rs", "use super::super::tree::Node;").len(), 1);
        assert_eq!(
            broken("store/src/vault.rs", "\nuse crate::index::X;"),
            ["store/src/vault.rs:2: `vault` (floor 1) uses `index::X`, which is above it (floor 3)"]
        );
    }

    #[test]
    fn arrows_down_and_within_a_floor_are_right() {
        let text = "use crate::error::E; use crate::{reader::R, StoreError}; use super::vault; use other_crate::tree::X;";
        assert_eq!(broken("store/src/index.rs", text), Vec::<String>::new());
        assert_eq!(broken("store/src/index/tree.rs", "use super::tree::X;"), Vec::<String>::new());
        assert_eq!(broken("fs/src/view.rs", "use crate::tree::X;"), Vec::<String>::new());
    }

    #[test]
    fn a_door_lets_its_trait_through_and_nothing_else() {
        assert_eq!(broken("store/src/reader.rs", "use crate::tree::ChunkSource;"), Vec::<String>::new());
        assert_eq!(broken("store/src/reader.rs", "use crate::tree::{ChunkSource, Node};").len(), 1);
        assert_eq!(broken("store/src/index.rs", "use crate::tree::ChunkSource;").len(), 1);
    }

    #[test]
    fn a_module_on_no_floor_is_found() {
        assert_eq!(broken("store/src/attic.rs", "").len(), 1);
        assert_eq!(broken("store/src/lib.rs", "pub mod attic;"), Vec::<String>::new());
    }

    #[test]
    fn a_manifest_with_an_arrow_up_or_aside_is_found() {
        let with = |line: &str| {
            format!("[package]\nname = \"x\"\n\n[dependencies]\n{line}\n\n[dev-dependencies]\nclap = \"4\"\n")
        };
        let table = [
            ("store/Cargo.toml", "holdfast-backup.workspace = true", 1),
            ("backup/Cargo.toml", "holdfast-fs = { path = \"../fs\" }", 1),
            ("fs/Cargo.toml", "holdfast-backup.workspace = true", 1),
            ("store/Cargo.toml", "clap = \"4\"", 1),
            ("Cargo.toml", "fuser = \"1\"", 1),
            ("Cargo.toml", "clap = \"4\"", 0),
            ("backup/Cargo.toml", "holdfast-store.workspace = true", 0),
            ("attic/Cargo.toml", "", 1),
        ];
        for (name, line, expected) in table {
            assert_eq!(broken_dependencies(name, &with(line)).len(), expected, "{name}: {line}");
        }
        let table_form = "[dependencies.clap]\nversion = \"4\"\n";
        assert_eq!(
            broken_dependencies("fs/Cargo.toml", table_form),
            ["fs/Cargo.toml:1: `clap` belongs to another floor"]
        );
    }
}
