//! What an edit changes of a text, and what it leaves.
#![allow(clippy::unwrap_used)]
use super::super::{Config, Text};
use super::*;

const WRITTEN: &str = r#"# Ours. Ask Eva before you change it.
store = '/srv/holdfast'   # the big disk

# web servers
[group.web]  # head
sources = [
    "/srv/www",   # pages
    # the application:
    { path = "/var/lib/app", name = "app" },  # with a name
]
exclude = ["*.tmp"]   # of all

[group.web.local]
schedule   =   'hourly'  # often
keep = { within = "7d", last = 10 }

# of its own

# databases
[group.db]
sources = [ "/var/lib/db" ]
local = { schedule = "daily" }

# the end
"#;

fn wish(group: &str, paths: &[&str]) -> Protection {
    let source = |path: &&str| SourceWish { path: (*path).to_owned(), ..SourceWish::default() };
    let sources = paths.iter().map(source).collect();
    Protection { group: group.to_owned(), sources, ..Protection::default() }
}

fn tier(schedule: &str, keep: &str) -> TierWish {
    let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    TierWish { schedule: some(schedule), keep: some(keep).map(|keep| keep.parse().unwrap()) }
}

fn parsed(text: &str) -> Config {
    let file: Text = ("/etc/holdfast/holdfast.toml".into(), text.to_owned());
    Config::parse(&[file]).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// What became of a text: lines that went and came, which make the same configuration when said again.
#[track_caller]
fn changed(text: &str, wish: &Protection) -> Vec<String> {
    let edited = protect(text, wish).unwrap();
    parsed(&edited);
    assert_eq!(protect(&edited, wish).unwrap(), edited, "said twice");
    difference(text, &edited)
}

/// Lines of one text alone, between those that both begin and end with.
fn difference(old: &str, new: &str) -> Vec<String> {
    let (old, new): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = |(a, b): &(&&str, &&str)| a == b;
    let begin = old.iter().zip(&new).take_while(same).count();
    let (old, new) = (&old[begin..], &new[begin..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    old.iter().map(|line| format!("-{line}")).chain(new.iter().map(|line| format!("+{line}"))).collect()
}

#[test]
fn what_is_said_already_changes_nothing() {
    let mut said = wish("web", &["/srv/www", "/var/lib/app/"]);
    assert_eq!(changed(WRITTEN, &said), [""; 0]);
    said.local = tier("hourly", "last=10,within=7d");
    said.sources[1].name = Some("app".to_owned());
    assert_eq!(changed(WRITTEN, &said), [""; 0]);
}

#[test]
fn a_group_is_stopped_by_a_line_and_goes_on_without_it() {
    let inline = "group.web = { sources = [\"/a\"], local = { schedule = \"daily\" } }\n";
    let dotted = "[group.web]\nsources = [\"/a\"]  # all\nlocal.schedule = \"daily\"\n";
    for text in [WRITTEN, inline, dotted] {
        let stopped = stop(text, "web", Some(Stopped::Keep)).unwrap();
        assert_eq!(parsed(&stopped).groups.last().unwrap().stopped, Some(Stopped::Keep), "{stopped}");
        assert_eq!(stop(&stopped, "web", Some(Stopped::Keep)).unwrap(), stopped);
        let other = stop(&stopped, "web", Some(Stopped::UntilExpiry)).unwrap();
        assert_eq!(other, stopped.replace("\"keep\"", "\"until-expiry\""));
        assert_eq!(stop(&other, "web", None).unwrap(), text);
        assert_eq!(stop(text, "web", None).unwrap(), text);
    }
    let stopped = stop(WRITTEN, "web", Some(Stopped::Keep)).unwrap();
    assert_eq!(difference(WRITTEN, &stopped), ["+stopped = \"keep\""]);
    let missing = EditError::NoGroup { group: "x".into() };
    assert_eq!(stop(WRITTEN, "x", Some(Stopped::Keep)), Err(missing));
}

#[test]
fn a_source_is_a_line_more_in_a_list_of_lines_and_a_word_more_in_a_line() {
    assert_eq!(changed(WRITTEN, &wish("web", &["/srv/new"])), ["+    \"/srv/new\","]);
    assert_eq!(
        changed(WRITTEN, &wish("db", &["/a", "/b"])),
        ["-sources = [ \"/var/lib/db\" ]", "+sources = [ \"/var/lib/db\", \"/a\", \"/b\" ]"]
    );
}

#[test]
fn lists_of_all_forms_keep_theirs() {
    let text = |list: &str| format!("[group.a]\nlocal = {{ schedule = \"daily\" }}\nsources = {list}\n");
    for (list, with, without) in [
        (r#"["/a"]"#, r#"["/a", "/n"]"#, r#"["/a"]"#),
        (r#"["/a",]"#, r#"["/a", "/n",]"#, r#"["/a",]"#),
        (r#"["/a", ]"#, r#"["/a", "/n", ]"#, r#"["/a", ]"#),
        ("[\n  \"/a\"\n]", "[\n  \"/a\",\n  \"/n\"\n]", "[\n  \"/a\"\n]"),
        ("[\n  \"/a\" # x\n]", "[\n  \"/a\", # x\n  \"/n\"\n]", "[\n  \"/a\" # x\n]"),
        ("[\"/a\", # x\n]", "[\"/a\", # x\n    \"/n\",\n]", "[\"/a\", # x\n]"),
        (
            "[\n\t\"/a\", # x\n\t# y\n\t]",
            "[\n\t\"/a\", # x\n\t# y\n\t\"/n\",\n\t]",
            "[\n\t\"/a\", # x\n\t# y\n\t]",
        ),
        ("[\n  \"/a\"]", "[\n  \"/a\",\n  \"/n\"]", "[\n  \"/a\"]"),
    ] {
        let edited = protect(&text(list), &wish("a", &["/n"])).unwrap();
        assert_eq!(edited, text(with), "{list}");
        parsed(&edited);
        assert_eq!(unprotect(&edited, "a", &["/n"]).unwrap(), (text(without), false), "{list}");
    }
}

#[test]
fn a_source_goes_with_its_line_and_no_other_comment_goes_with_it() {
    let text = |list: &str| format!("[group.a]\nlocal = {{ schedule = \"daily\" }}\nsources = {list}\n");
    for (list, left) in [
        (r#"["/x", "/b", "/c"]"#, r#"["/b", "/c"]"#),
        (r#"["/a", "/x", "/c"]"#, r#"["/a", "/c"]"#),
        (r#"[ "/a", "/x" ]"#, r#"[ "/a" ]"#),
        ("[\n  \"/x\", # x\n  # b:\n  \"/b\", # b\n]", "[\n  # b:\n  \"/b\", # b\n]"),
        ("[\n  \"/a\", # a\n  \"/x\", # x\n  \"/b\", # b\n]", "[\n  \"/a\", # a\n  \"/b\", # b\n]"),
        ("[\n  \"/a\", # a\n  \"/x\" # x\n]", "[\n  \"/a\" # a\n]"),
        ("[\n  \"/a\", # a\n  \"/x\"]", "[\n  \"/a\" # a\n]"),
        ("[\n  \"/a\", \"/x\",\n  \"/b\"]", "[\n  \"/a\", \"/b\"]"),
        ("[\n  \"/x\", \"/a\",\n  \"/b\"]", "[\n  \"/a\",\n  \"/b\"]"),
        ("[\"/a\", \"/x\", # both\n  \"/b\"]", "[\"/a\", # both\n  \"/b\"]"),
        ("[\"/a\", \"/x\" # both\n]", "[\"/a\" # both\n]"),
        (r#"["/a", { path = "/x", exclude = ["y"] }]"#, r#"["/a"]"#),
    ] {
        let (edited, gone) = unprotect(&text(list), "a", &["/x"]).unwrap();
        assert_eq!((edited.as_str(), gone), (text(left).as_str(), false), "{list}");
        parsed(&edited);
    }
}

#[test]
fn rules_of_a_source_are_set_where_it_stands() {
    let mut said = wish("web", &["/srv/www", "/var/lib/app"]);
    said.sources[0].exclude = Some(vec!["*.log".to_owned()]);
    said.sources[1].exclude = Some(vec!["a b".to_owned(), "c\"".to_owned()]);
    assert_eq!(
        changed(WRITTEN, &said),
        [
            r#"-    "/srv/www",   # pages"#,
            "-    # the application:",
            r#"-    { path = "/var/lib/app", name = "app" },  # with a name"#,
            r#"+    { path = "/srv/www", exclude = ["*.log"] },   # pages"#,
            "+    # the application:",
            r#"+    { path = "/var/lib/app", name = "app", exclude = ["a b", 'c"'] },  # with a name"#,
        ]
    );
    let mut said = wish("db", &["/var/lib/db"]);
    said.sources[0].name = Some("db".to_owned());
    assert_eq!(changed(WRITTEN, &said)[1], r#"+sources = [ { path = "/var/lib/db", name = "db" } ]"#);
}

#[test]
fn schedules_and_what_is_kept_change_in_place_with_the_comments_beside_them() {
    let mut said = wish("web", &[]);
    said.local = tier("every 15 minutes", "");
    assert_eq!(
        changed(WRITTEN, &said),
        ["-schedule   =   'hourly'  # often", "+schedule   =   \"every 15 minutes\"  # often"]
    );
    said.local = tier("", "within=7d,daily=14,yearly=all");
    assert_eq!(
        changed(WRITTEN, &said),
        [
            r#"-keep = { within = "7d", last = 10 }"#,
            r#"+keep = { within = "7d", daily = 14, yearly = "all" }"#
        ]
    );
    said.local = tier("", "all");
    assert_eq!(changed(WRITTEN, &said), [r#"-keep = { within = "7d", last = 10 }"#]);
    let mut said = wish("db", &[]);
    said.local = tier("12:00", "last=3");
    assert_eq!(
        changed(WRITTEN, &said),
        [r#"-local = { schedule = "daily" }"#, r#"+local = { schedule = "12:00", keep = { last = 3 } }"#]
    );
    let table = "[group.a]\nsources = [\"/a\"]\n[group.a.local]\nschedule = \"daily\"\n[group.a.local.keep]\n# why\nlast = 3 # x\ndaily = 2\n";
    let mut said = wish("a", &[]);
    said.local = tier("", "last=4,weekly=1");
    assert_eq!(changed(table, &said), ["-last = 3 # x", "-daily = 2", "+last = 4 # x", "+weekly = 1"]);
}

#[test]
fn a_tier_that_is_new_stands_behind_its_group() {
    let mut said = wish("web", &[]);
    said.online = tier("22:00", "daily=14");
    assert_eq!(
        changed(WRITTEN, &said),
        ["+[group.web.online]", "+schedule = \"22:00\"", "+keep = { daily = 14 }", "+"]
    );
    for written in [
        "[group]\na = { sources = [\"/a\"], local = { schedule = \"daily\" } }\n",
        "[group]\na.sources = [\"/a\"]\na.local.schedule = \"daily\"\n",
        "group.a = { sources = [\"/a\"], local = { schedule = \"daily\" } }\n",
        "group = { a = { sources = [\"/a\"], local = { schedule = \"daily\" } } }\n",
    ] {
        let mut said = wish("a", &["/b"]);
        said.online = tier("22:00", "all");
        changed(written, &said);
        let group = &parsed(&protect(written, &said).unwrap()).groups[0];
        assert_eq!((group.sources.len(), group.online.is_some()), (2, true), "{written}");
    }
    for group in ["web", "new"] {
        let mut said = wish(group, &["/a"]);
        said.online = tier("", "daily=14");
        let refused = EditError::NoSchedule { group: group.to_owned(), tier: "online" };
        assert_eq!(protect(WRITTEN, &said), Err(refused));
    }
}

#[test]
fn a_group_that_is_new_stands_at_the_end() {
    let mut said = wish("B\u{fc}ro 2", &["/home", "/it's"]);
    said.sources[1].exclude = Some(vec!["*.iso".to_owned()]);
    said.local = tier("hourly", "within=7d");
    said.online = tier("22:00", "all");
    let block = "\
[group.\"B\u{fc}ro 2\"]
sources = [\"/home\", { path = \"/it's\", exclude = [\"*.iso\"] }]

[group.\"B\u{fc}ro 2\".local]
schedule = \"hourly\"
keep = { within = \"7d\" }

[group.\"B\u{fc}ro 2\".online]
schedule = \"22:00\"
";
    assert_eq!(protect("", &said).unwrap(), block);
    for written in [WRITTEN, "store = \"/s\"", "# a comment\n", "\n"] {
        let edited = protect(written, &said).unwrap();
        assert!(edited.starts_with(written) && edited.ends_with(&format!("\n\n{block}")), "{edited}");
        assert_eq!(changed(written, &said).iter().filter(|line| line.starts_with('-')).count(), 0);
    }
}

#[test]
fn with_its_last_source_a_group_goes_and_nothing_else() {
    let (edited, gone) = unprotect(WRITTEN, "db", &["/var/lib/db"]).unwrap();
    assert!(gone);
    assert_eq!(
        difference(WRITTEN, &edited),
        [
            "-# databases",
            "-[group.db]",
            "-sources = [ \"/var/lib/db\" ]",
            "-local = { schedule = \"daily\" }",
            "-"
        ]
    );
    let (edited, gone) = unprotect(WRITTEN, "web", &["/var/lib/app", "/srv/www"]).unwrap();
    assert!(gone);
    let left = "# Ours. Ask Eva before you change it.\nstore = '/srv/holdfast'   # the big disk\n\n# of its own\n\n# databases\n[group.db]\n";
    assert!(edited.starts_with(left) && edited.ends_with("# the end\n"), "{edited}");
    let (edited, _) = unprotect(&edited, "db", &["/var/lib/db"]).unwrap();
    assert!(parsed(&edited).groups.is_empty() && edited.contains("# of its own\n"), "{edited}");
    let one = "# Ours.\n[group.a]\nsources = [\"/a\"]\nlocal = { schedule = \"daily\" }\n\n[group.b]\nsources = [\"/a\"]\nlocal = { schedule = \"daily\" }\n";
    let (edited, _) = unprotect(one, "a", &["/a"]).unwrap();
    assert!(edited.starts_with("# Ours.\n\n[group.b]\n"), "{edited}");
    let (edited, _) = unprotect(one.strip_prefix("# Ours.\n").unwrap(), "a", &["/a"]).unwrap();
    assert!(edited.starts_with("[group.b]\n"), "{edited}");
}

#[test]
fn line_ends_of_two_bytes_stay() {
    let carried = WRITTEN.replace('\n', "\r\n");
    let edited = protect(&carried, &wish("web", &["/srv/new"])).unwrap();
    assert_eq!(edited, protect(WRITTEN, &wish("web", &["/srv/new"])).unwrap().replace('\n', "\r\n"));
    // Of both kinds in one file some would change.
    let mixed = carried.replacen("\r\n", "\n", 1);
    assert_eq!(protect(&mixed, &wish("web", &["/srv/new"])), Err(EditError::OtherLines));
}

#[test]
fn what_is_not_there_cannot_be_taken_away() {
    let group = |group: &str| group.to_owned();
    assert_eq!(unprotect(WRITTEN, "x", &["/a"]), Err(EditError::NoGroup { group: group("x") }));
    let refused = EditError::NoSource { group: group("web"), path: "/a".to_owned() };
    assert_eq!(unprotect(WRITTEN, "web", &["/srv/www", "/a"]), Err(refused));
    assert_eq!(protect(WRITTEN, &wish("x", &[])), Err(EditError::NoGroup { group: group("x") }));
    assert!(matches!(protect("[", &wish("a", &["/a"])), Err(EditError::NotToml { .. })));
}

#[test]
fn rules_of_retention_are_read_or_refused() {
    for bad in ["", "7d", "within=7", "daily=x", "daily=-1", "dayly=1", "last=1,last=2", "last=", "last=1,"] {
        assert!(bad.parse::<Keep>().is_err(), "{bad}");
    }
    assert!("all".parse::<Keep>().unwrap().is_everything());
    assert_eq!(
        "last=3, yearly=all".parse::<Keep>().unwrap().value().to_string(),
        r#"{ last = 3, yearly = "all" }"#
    );
}

#[test]
fn whatever_comes_and_goes_leaves_a_configuration_and_the_lines_of_others() {
    let mut state = 20_261_128_u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % n
    };
    let mut text = WRITTEN.to_owned();
    for _ in 0..2000 {
        let (group, path) = (["web", "db", "new"][below(3)], ["/a", "/b", "/c", "/d"][below(4)]);
        if below(2) == 0 {
            let mut said = wish(group, &[path]);
            said.sources[0].exclude = (below(3) == 0).then(|| vec!["x".to_owned()]);
            if below(2) == 0 || !has_group(&text, group) {
                said.local =
                    tier(["daily", "hourly"][below(2)], ["", "all", "last=2", "within=3d"][below(4)]);
            }
            let again = protect(&text, &said).unwrap();
            assert_eq!(protect(&again, &said).unwrap(), again);
            text = again;
        } else if let Ok((edited, _)) = unprotect(&text, group, &[path]) {
            text = edited;
        }
        let config = parsed(&text);
        assert!(config.groups.iter().any(|group| group.name == "web" && group.sources.len() >= 2));
        for line in ["# Ours. Ask Eva before you change it.", "    # the application:", "# the end"] {
            assert!(text.lines().any(|known| known == line), "{line}\n{text}");
        }
    }
}
