//! What a configuration says, and what is said of mistakes in one.
#![allow(clippy::unwrap_used)]
use holdfast_store::point::Consistency;

use super::*;

const WHOLE: &str = r#"
store = "/srv/holdfast"
time-zone = "Europe/Berlin"

[group.web]
sources = ["/srv/www", { path = "/var/lib/app", name = "app", exclude = ["*.sock"] }]
exclude = ["node_modules"]
exclude-any-case = ["thumbs.db"]
exclude-if-present = [".nobackup"]
exclude-caches = true
exclude-larger-than = "2G"
one-file-system = true

[group.web.local]
schedule = "every 15 minutes"
jitter = "2 minutes"
keep = { within = "7d", last = 10 }

[group.web.online]
schedule = "22:00"
keep = { daily = 14, weekly = 8, monthly = 24, yearly = "all" }

[group.etc]
sources = ["/etc"]
local = { schedule = "daily" }
"#;

fn text(text: &str) -> Text {
    ("/etc/holdfast/holdfast.toml".into(), text.to_owned())
}

/// Mistakes as line and text.
fn mistakes(files: &[Text]) -> Vec<(usize, String)> {
    match Config::parse(files) {
        Err(ConfigError::Wrong { problems }) => problems.into_iter().map(|p| (p.line, p.what)).collect(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn vaults_of_a_tier_are_kept_in_the_form_in_which_the_store_keeps_them() {
    let with = |vaults: &str| {
        text(&format!(
            "[group.g]\nsources = [\"/s\"]\nonline = {{ schedule = \"daily\", vaults = [{vaults}] }}"
        ))
    };
    let config = Config::parse(&[with("\"file:///mnt/usb\", \"azure://acc/nam\"")]).unwrap();
    let online = config.groups[0].online.as_ref().unwrap();
    assert_eq!(online.vaults, ["/mnt/usb", "azure://acc/nam"]);
    assert!(online.is_for("/mnt/usb") && !online.is_for("/mnt/other"));
    let [(line, what)] = &mistakes(&[with("\"usb\"")])[..] else { panic!() };
    assert!(*line == 3 && what.contains("group.g.online.vaults: \"usb\""), "{what}");
}

#[test]
fn all_that_can_be_said_is_read() {
    let config = Config::parse(&[text(WHOLE)]).unwrap();
    assert_eq!(config.store.as_deref(), Some(Path::new("/srv/holdfast")));
    assert_eq!(config.zone.unwrap().iana_name(), Some("Europe/Berlin"));
    let [etc, web] = &config.groups[..] else { panic!("{:?}", config.groups) };
    assert_eq!((etc.name.as_str(), web.name.as_str()), ("etc", "web"));
    let sources: Vec<_> = web.sources.iter().map(|s| (s.path.to_str().unwrap(), s.name.as_deref())).collect();
    assert_eq!(sources, [("/srv/www", None), ("/var/lib/app", Some("app"))]);
    let (local, online) = (web.local.as_ref().unwrap(), web.online.as_ref().unwrap());
    assert_eq!(
        (local.schedule.to_string().as_str(), local.jitter, local.keep.last),
        ("every 15 minutes", 120, 10)
    );
    assert_eq!(local.keep.within.unwrap().fieldwise(), jiff::Span::new().days(7).fieldwise());
    let keep = &online.keep;
    assert_eq!((keep.last, keep.daily, keep.weekly, keep.monthly, keep.yearly), (0, 14, 8, 24, u32::MAX));
    assert!(etc.online.is_none() && etc.local.as_ref().unwrap().keep.is_empty());
}

#[test]
fn hooks_are_read_with_what_is_usual() {
    let of = |hooks: &str| {
        let group = format!("[group.a]\nsources = [\"/a\"]\nlocal = {{ schedule = \"daily\" }}\n{hooks}\n");
        Config::parse(&[text(&group)]).map(|config| config.groups[0].hooks.clone().unwrap())
    };
    let file = PathBuf::from("/etc/holdfast/holdfast.toml");
    let usual = Hooks {
        before: Some(HookCommand::Words(vec!["/bin/dump".into(), "-f".into(), "a b".into()])),
        after: None,
        limit: std::time::Duration::from_secs(600),
        on_failure: OnFailure::Fail,
        consistency: Consistency::Fuzzy,
        place: (file.clone(), 4),
    };
    assert_eq!(of("[group.a.hooks]\nbefore = [\"/bin/dump\", \"-f\", \"a b\"]").unwrap(), usual);
    let all = "hooks = { before = \"dump | gzip\", after = \"rm x\", timeout = \"2 seconds\", on-failure = \"mark\", consistency = \"application\" }";
    let said = Hooks {
        before: Some(HookCommand::Shell("dump | gzip".into())),
        after: Some(HookCommand::Shell("rm x".into())),
        limit: std::time::Duration::from_secs(2),
        on_failure: OnFailure::Mark,
        consistency: Consistency::Application,
        place: (file, 4),
    };
    assert_eq!(of(all).unwrap(), said);
    for (wrong, what) in [
        ("", "it needs `before` or `after`"),
        ("before = []", "nothing to run"),
        ("before = \" \"", "nothing to run"),
        ("before = [\"a\", 1]", "a text or a list of texts is wanted"),
        ("after = \"x\"\nconsistency = \"application\"", "without `before`"),
        ("before = \"x\"\nconsistency = \"perfect\"", "is none of"),
        ("before = \"x\"\non-failure = \"ignore\"", "neither"),
        ("before = \"x\"\ntimeout = \"0 seconds\"", "a second is the least"),
        ("before = \"x\"\ntimeout = \"soon\"", "10 minutes"),
        ("before = \"x\"\nbeside = \"y\"", "group.a.hooks.beside is not known"),
    ] {
        let error = of(&format!("[group.a.hooks]\n{wrong}")).unwrap_err().to_string();
        assert!(error.contains(what), "{wrong}: {error}");
    }
}

#[test]
fn limits_of_bandwidth_are_read_in_their_order_and_each_mistake_told() {
    let of = |said: &str| Config::parse(&[text(said)]).map(|config| config.bandwidth);
    let hours =
        |when: &str, rate: &str| During { when: when.parse().unwrap(), upload: rate.parse().unwrap() };
    let all = "[bandwidth]\nupload = \"10M\"\n[[bandwidth.during]]\nwhen = \"Mon..Fri 08:00-18:00\"\nupload = \"1M\"\n[[bandwidth.during]]\nwhen = \"Sun\"\nupload = \"unlimited\"\n";
    let in_line = "bandwidth = { upload = \"10M\", during = [{ when = \"Mon..Fri 08:00-18:00\", upload = \"1M\" }, { when = \"Sun\", upload = \"unlimited\" }] }";
    for said in [all, in_line] {
        let read = of(said).unwrap();
        assert_eq!(read.upload.to_string(), "10485760");
        assert_eq!(read.during, [hours("Mon..Fri 08:00-18:00", "1M"), hours("Sun", "unlimited")]);
    }
    assert!(!of("").unwrap().is_limited());
    let wrong = r#"[bandwidth]
upload = "10"
download = "1M"
[[bandwidth.during]]
when = "Mon..Fry 08:00-18:00"
upload = 5
[[bandwidth.during]]
until = "now"
"#;
    let found = mistakes(&[text(wrong), ("/etc/b.toml".into(), "[bandwidth]\nduring = 7".into())]);
    for (line, said) in [
        (2, "bandwidth.upload: \"10\" is too little"),
        (3, "bandwidth.download is not known; known here: upload, during"),
        (5, "bandwidth.during.when: \"Mon..Fry 08:00-18:00\" is no time of a week"),
        (6, "bandwidth.during.upload: a text in quotes is wanted"),
        (7, "it needs `when`"),
        (7, "it needs `upload`"),
        (8, "bandwidth.during.until is not known"),
        (2, "bandwidth.during: a list of tables is wanted"),
    ] {
        assert!(
            found.iter().any(|(at, what)| *at == line && what.contains(said)),
            "{line}: {said}\n{found:#?}"
        );
    }
    let twice = mistakes(&[text(all), ("/etc/b.toml".into(), "\n[bandwidth]\nupload = \"1M\"".into())]);
    assert_eq!(twice, [(2, "bandwidth: it is said in another file already".to_owned())]);
}

#[test]
fn jobs_are_as_nice_as_is_said_or_as_is_usual() {
    let of = |said: &str| Config::parse(&[text(said)]).map(|config| config.nice);
    for (said, nice) in [("", 10), ("[jobs]", 10), ("[jobs]\nnice = 0", 0), ("jobs.nice = 19", 19)] {
        assert_eq!(of(said).unwrap(), nice, "{said}");
    }
    for wrong in ["20", "-1", "256", "\"idle\"", "1.5"] {
        let error = of(&format!("[jobs]\nnice = {wrong}")).unwrap_err().to_string();
        assert!(error.contains(":2: jobs.nice: a whole number from 0 to 19 is wanted"), "{wrong}: {error}");
    }
    assert!(of("[jobs]\nio = \"idle\"").unwrap_err().to_string().contains("known here: nice"));
}

#[test]
fn a_source_has_the_rules_of_its_group_and_its_own() {
    let config = Config::parse(&[text(WHOLE)]).unwrap();
    let [www, app] = &config.groups[1].sources[..] else { panic!() };
    let (www, app) = (format!("{:?}", www.exclude), format!("{:?}", app.exclude));
    for said in
        ["node_modules", "CACHEDIR.TAG", ".nobackup", "one_file_system: true", "size_max: Some(2147483648)"]
    {
        // Names of marks are shown as bytes.
        let bytes = format!("{:?}", said.as_bytes());
        assert!(
            [&www, &app].iter().all(|rules| rules.contains(said) || rules.contains(&bytes)),
            "{said}: {www}"
        );
    }
    assert!(app.len() > www.len());
}

#[test]
fn each_mistake_is_told_with_its_line_and_all_of_them_at_once() {
    let wrong = r#"store = "srv"
time-zone = "Mars/Olympus"
tiem-zone = "UTC"
[group.a]
sources = ["/a", "b", 7, { name = "c" }, { path = "/d", nmae = "x" }, "/a", { path = "/e", exclude = ["["] }]
exclude-larger-than = "2 bananas"
exclude-caches = "yes"
[group.a.local]
schedule = "every 30 seconds"
jitter = "1 minute"
keep = { daily = -1, weekly = "some", within = "7" }
[group.".b"]
sources = ["/b"]
[group.c]
sources = []
exclude = "usb"
[group.c.online]
keep = 7
[group.d]
sources = ["/d"]
[group.e]
sources = ["/e"]
local = { schedule = "hourly", jitter = "31 minutes" }
"#;
    let found = mistakes(&[text(wrong)]);
    for (line, said) in [
        (1, "store: \"srv\" is no absolute path"),
        (2, "time-zone: this machine knows no time zone"),
        (
            3,
            "tiem-zone is not known; known here: store, time-zone, reclaim, check, drill, scrub, soft-delete, alerts, metrics, jobs, bandwidth, group",
        ),
        (5, "\"b\" is no absolute path"),
        (5, "group.a.sources: a text or a table is wanted"),
        (5, "a source needs a path"),
        (5, "group.a.sources.nmae is not known; known here: exclude,"),
        (5, "another source of the group has this path"),
        (6, "\"bananas\" is no unit"),
        (7, "group.a.exclude-caches: true or false is wanted, and this is a text"),
        (9, "group.a.local.schedule: \"every 30 seconds\" is no schedule: a minute is the least"),
        (11, "group.a.local.keep.daily: a number of points"),
        (11, "group.a.local.keep.weekly: a number of points"),
        (11, "group.a.local.keep.within: \"7\" is no span"),
        (12, "the group \".b\""),
        (15, "sources: it is empty"),
        (16, "group.c.exclude: a list of texts is wanted, and this is a text"),
        (17, "it needs a schedule"),
        (18, "group.c.online.keep: a table is wanted, and this is a number"),
        (19, "the group d has no schedule"),
        (23, "more than half of the time between two moments"),
    ] {
        assert!(
            found.iter().any(|(at, what)| *at == line && what.contains(said)),
            "{line}: {said}\n{found:#?}"
        );
    }
}

#[test]
fn what_is_no_toml_is_told_with_its_line() {
    assert_eq!(mistakes(&[text("store = \"/s\"\n[group\n")])[0].0, 2);
    let both = mistakes(&[text("x = "), ("/etc/holdfast/holdfast.toml.d/b.toml".into(), "y = 1".into())]);
    assert_eq!(both.len(), 2, "{both:?}");
}

#[test]
fn files_beside_it_add_groups_and_say_nothing_twice() {
    let beside = |name: &str, text: &str| {
        (PathBuf::from(format!("/etc/holdfast/holdfast.toml.d/{name}")), text.to_owned())
    };
    let more = beside("db.toml", "[group.db]\nsources = [\"/db\"]\nlocal = { schedule = \"hourly\" }\n");
    let config = Config::parse(&[text(WHOLE), more.clone()]).unwrap();
    assert_eq!(config.groups.iter().map(|g| g.name.as_str()).collect::<Vec<_>>(), ["db", "etc", "web"]);
    let again = beside(
        "z.toml",
        "store = \"/other\"\n[group.db]\nsources = [\"/x\"]\nlocal = { schedule = \"hourly\" }\n",
    );
    let Err(ConfigError::Wrong { problems }) = Config::parse(&[text(WHOLE), more, again]) else { panic!() };
    let told: Vec<_> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told[0].starts_with("/etc/holdfast/holdfast.toml.d/z.toml:1: store: it is said"), "{told:?}");
    assert!(told[1].contains("z.toml:2: there is a group db in another file"), "{told:?}");
}

fn both(one: &str, two: &str) -> Result<Config, ConfigError> {
    Config::parse(&[text(one), ("/etc/b.toml".into(), two.to_owned())])
}

#[test]
fn a_table_in_two_files_holds_with_the_keys_of_both() {
    let config = both(
        "[reclaim]\nvaults = false\nschedule = \"never\"\n[check]\n[jobs]\n[alerts]\nevery = \"2 minutes\"",
        "[reclaim]\nsilence = \"2 days\"\n[check]\nschedule = \"never\"\n[jobs]\nnice = 3\n[alerts]\nwebhook = \"http://h/\"",
    );
    let config = config.unwrap();
    assert!(!config.reclaim_vaults && config.reclaim.is_none() && config.check.is_none());
    assert_eq!((config.reclaim_terms.silence.as_secs(), config.nice), (2 * 86_400, 3));
    assert!(config.alerts.every.as_secs() == 120 && config.alerts.webhook.is_some());
}

#[test]
fn how_long_what_is_deleted_stays_may_be_said() {
    let days = |said: &str| Config::parse(&[text(said)]).map(|config| config.soft_delete_days);
    assert_eq!(days("").unwrap(), 0);
    for (said, expected) in [("days = 14", 14), ("days = 3650", 3650), ("", 0)] {
        assert_eq!(days(&format!("[soft-delete]\n{said}")).unwrap(), expected);
    }
    for bad in ["days = -1", "days = 3651", "days = \"14\"", "weeks = 2"] {
        assert!(days(&format!("[soft-delete]\n{bad}")).is_err(), "{bad}");
    }
}

#[test]
fn how_much_is_read_again_each_day_may_be_said() {
    let usual = Config::parse(&[text("")]).unwrap();
    assert_eq!(usual.scrub_terms, ScrubTerms { days: 30, vault_bytes: 1 << 30 });
    let text_of = |schedule: &Option<Schedule>| schedule.as_ref().map(ToString::to_string);
    let usual = [&usual.check, &usual.scrub, &usual.drill].map(text_of);
    assert_eq!(usual, ["05:30", "01:30", "Sun 06:30"].map(|text| Some(text.to_owned())));
    let said = "[scrub]\nschedule = \"never\"\ndays = 7\nvault-bytes = \"0\"";
    let config = Config::parse(&[text(said)]).unwrap();
    assert_eq!(config.scrub_terms, ScrubTerms { days: 7, vault_bytes: 0 });
    assert!(config.scrub.is_none());
    for bad in ["days = 0", "days = 3651", "days = -1", "days = \"7\"", "vault-bytes = \"much\""] {
        assert!(Config::parse(&[text(&format!("[scrub]\n{bad}"))]).is_err(), "{bad}");
    }
}

#[test]
fn a_key_that_two_files_say_is_a_mistake_in_every_table() {
    // What is usual anyway may be said once only as well.
    for said in [
        "store = \"/s\"",
        "time-zone = \"UTC\"",
        "reclaim.schedule = \"04:30\"",
        "reclaim.vaults = true",
        "reclaim.silence = \"24 hours\"",
        "reclaim.grace = \"2 days\"",
        "reclaim.daily-percent = 5",
        "check.schedule = \"never\"",
        "drill.schedule = \"monthly\"",
        "soft-delete.days = 14",
        "scrub.days = 30",
        "scrub.vault-bytes = \"1G\"",
        "alerts.every = \"5 minutes\"",
        "metrics.file = \"/m\"",
        "jobs.nice = 10",
        "bandwidth.upload = \"unlimited\"",
    ] {
        both(said, "").unwrap();
        let error = both(said, said).unwrap_err().to_string();
        assert!(error.starts_with("/etc/b.toml:1: "), "{said}: {error}");
        assert!(error.ends_with(": it is said in another file already"), "{said}: {error}");
    }
}

#[test]
fn files_are_read_in_the_order_of_their_names_and_what_is_no_file_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("holdfast.toml");
    assert!(matches!(Config::load(&path), Err(ConfigError::Io { .. })));
    fs::write(&path, "").unwrap();
    assert!(Config::load(&path).unwrap().groups.is_empty());
    let beside = dir.path().join("holdfast.toml.d");
    fs::create_dir(&beside).unwrap();
    for name in ["b.toml", "a.toml", "c.toml.old"] {
        fs::write(beside.join(name), "").unwrap();
    }
    let names: Vec<_> = files_of(&path).unwrap().into_iter().map(|file| file.0).collect();
    assert_eq!(names, [path.clone(), beside.join("a.toml"), beside.join("b.toml")]);
    nix::unistd::mkfifo(&beside.join("d.toml"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("d.toml"));
    fs::remove_file(beside.join("d.toml")).unwrap();
    fs::File::create(beside.join("e.toml")).unwrap().set_len(LEN_MAX + 1).unwrap();
    assert!(Config::load(&path).unwrap_err().to_string().contains("e.toml"));
}

#[test]
fn no_text_makes_it_panic() {
    let pieces = [
        "[group.a]",
        "[group]",
        "\n",
        "sources",
        " = ",
        "[",
        "]",
        "{",
        "}",
        "\"/a\"",
        "local",
        ".",
        "7",
        "schedule",
        ",",
        "\"daily\"",
        "#",
        "é",
    ];
    let mut state = 20_261_128_u64;
    let mut below = |n: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap() % n
    };
    for _ in 0..20_000 {
        let made: String = (0..=below(20)).map(|_| pieces[below(pieces.len())]).collect();
        if let Err(error) = Config::parse(&[text(&made)]) {
            assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn the_store_is_known_whatever_mistakes_stand_elsewhere() {
    let store = |text: &str| Config::store_despite_mistakes(&[("a.toml".into(), text.to_owned())]);
    for rest in
        ["", "[alrts]", "[group.a]\nsorces = [1]", "[group", "x = \"", "a =\n[group.b]", "x = \"\"\"\nb\nc"]
    {
        assert_eq!(store(&format!("store = \"/s\"\n{rest}\n")), Some("/s".into()), "{rest}");
    }
    for text in
        ["store = 5", "store = \"s\"", "[x\nstore = \"/s\"", "[x]\nstore = \"/s\"", "store = \"/s", ""]
    {
        assert_eq!(store(text), None, "{text}");
    }
    let endless = format!("{}x = \"\"\"\n", "# a line\n".repeat(100_000));
    assert_eq!(store(&endless), None);
}
