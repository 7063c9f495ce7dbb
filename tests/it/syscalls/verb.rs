//! The verbs that write what must last: what each finds, and what is so when it said that it is done.

use std::path::Path;

use serde_json::Value;

use super::victim::{Victim, copy};
use crate::testkit::points_in;
use crate::trouble::{assert_restores, files_below};

/// A verb.
pub struct Verb {
    pub name: &'static str,
    /// Makes what it needs of a machine that has points.
    pub prepare: fn(&mut Victim),
    pub args: fn(&Victim) -> Vec<String>,
    /// The exit code of a run that nobody disturbs.
    pub code: i32,
    /// Exit codes of the runs after one that was hurt.
    pub again: &'static [i32],
    /// Whether the point in the vault is one that goes.
    pub removes: bool,
    /// Whether it may not say that it is done when nothing can be made durable.
    pub lasts: bool,
    /// What it says instead of what the disk said.
    pub says: &'static [&'static str],
    /// What is so whenever it said that it is done.
    pub said: fn(&Victim),
    /// What else must go then.
    pub then: fn(&Victim),
}

/// One that needs nothing and promises no more than all do.
const PLAIN: Verb = Verb {
    name: "",
    prepare: |_| (),
    args: |_| Vec::new(),
    code: 0,
    again: &[0],
    removes: false,
    lasts: true,
    says: &[],
    said: |_| (),
    then: |_| (),
};

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// What `snapshots` says of a point.
fn shown(points: &Value, id: &str) -> Value {
    points.as_array().unwrap().iter().find(|point| point["id"] == *id).unwrap().clone()
}

fn is_held(victim: &Victim) -> bool {
    let points = victim.run(&["snapshots", "--json"]).expect_code(0).json();
    shown(&points, &victim.vaulted)["held"].is_object()
}

fn directories(victim: &Victim) -> usize {
    victim.run(&["staging", "list", "--json"]).expect_code(0).json().as_array().unwrap().len()
}

/// Whether `status` has an alert of this name.
fn has_alert(victim: &Victim, name: &str) -> bool {
    let config = victim.machine.path("nothing.toml");
    std::fs::write(&config, "").unwrap();
    let page = victim.run(&["status", "--json", "--config", config.to_str().unwrap()]).expect_code(0).json();
    page["alerts"].as_array().unwrap().iter().any(|alert| alert["name"] == name)
}

fn packs(place: &Path) -> Vec<String> {
    let name = |path: &Path| path.strip_prefix(place).unwrap().to_str().unwrap().to_owned();
    files_below(&place.join("pack")).iter().map(|path| name(path)).collect()
}

fn flip(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

/// A pack is damaged here and another one there, and each is whole in the other place.
fn spoil(victim: &mut Victim) {
    victim.run(&["vault", "push"]).expect_code(0);
    let here = packs(&victim.store.dir);
    let both: Vec<_> = packs(&victim.vault).into_iter().filter(|name| here.contains(name)).collect();
    assert!(both.len() > 1, "{both:?}");
    flip(&victim.store.dir.join(&both[0]));
    flip(&victim.vault.join(&both[1]));
}

/// The vault is what it was before another point came, and the one that it has went.
fn roll_back(victim: &mut Victim) {
    let before = victim.machine.path("before");
    copy(&victim.vault, &before);
    for args in [&["vault", "push"][..], &["forget", &victim.vaulted, "--yes"], &["prune", "--now"]] {
        victim.run(args).expect_code(0);
    }
    copy(&before, &victim.vault);
    victim.run(&["vault", "push"]).expect_code(1);
    assert!(has_alert(victim, "vault-rolled-back"));
}

fn spread(victim: &mut Victim) {
    victim.run(&["staging", "add", &victim.at("annex")]).expect_code(0);
    victim.back_up();
    assert!(!packs(&victim.machine.path("annex")).is_empty());
}

/// The machine has what the vault has, and has it there.
fn have_nothing_here(victim: &mut Victim) {
    std::fs::remove_dir_all(&victim.store.dir).unwrap();
    victim.run(&["recover", &victim.at("vault")]).expect_code(0);
    victim.expected.retain(|id, _| *id == victim.vaulted);
}

fn have_nothing(victim: &mut Victim) {
    std::fs::remove_dir_all(&victim.store.dir).unwrap();
    for name in ["keys", "cache"] {
        let dir = victim.machine.root().join(name);
        std::fs::remove_dir_all(&dir).unwrap();
        std::fs::create_dir(&dir).unwrap();
    }
    victim.expected.retain(|id, _| *id == victim.vaulted);
}

/// What was fetched is here, whether there is a vault or not.
fn reads_without_the_vault(victim: &Victim) {
    let away = victim.machine.path("away");
    std::fs::rename(&victim.vault, &away).unwrap();
    assert_restores(&victim.machine, &victim.store.dir, &victim.vaulted, &victim.expected[&victim.vaulted]);
    std::fs::rename(&away, &victim.vault).unwrap();
}

pub static BACKUP: Verb = Verb {
    name: "backup",
    args: |victim| words(&["backup", "--json", "--online", &victim.at("source")]),
    ..PLAIN
};

pub static PUSH: Verb = Verb {
    name: "vault push",
    args: |_| words(&["vault", "push"]),
    said: |victim| {
        let there = points_in(&victim.vault);
        assert!(victim.expected.keys().all(|id| there.contains(id)), "{there:?}");
    },
    ..PLAIN
};

pub static COPY: Verb = Verb {
    name: "copy",
    prepare: |victim| drop(victim.run(&["vault", "add", &victim.at("second")]).expect_code(0)),
    args: |victim| words(&["copy", "--all", "--to", &victim.at("second")]),
    said: |victim| {
        let there = points_in(&victim.machine.path("second"));
        assert!(victim.expected.keys().all(|id| there.contains(id)), "{there:?}");
    },
    then: |victim| victim.all_come_back(&victim.machine.path("second"), &victim.expected),
    ..PLAIN
};

pub static FORGET: Verb = Verb {
    name: "forget",
    args: |victim| words(&["forget", &victim.vaulted, "--yes"]),
    // One that is gone is not found.
    again: &[0, 1],
    removes: true,
    said: |victim| {
        let points = victim.run(&["snapshots", "--json"]).expect_code(0).out();
        assert!(!points.contains(&victim.vaulted), "{points}");
    },
    ..PLAIN
};

pub static PRUNE: Verb = Verb {
    name: "prune",
    // So that there is something to free, here and there.
    prepare: |victim| drop(victim.run(&(FORGET.args)(victim)).expect_code(0)),
    args: |_| words(&["prune", "--now"]),
    removes: true,
    ..PLAIN
};

pub static UNDELETE: Verb = Verb {
    name: "undelete",
    prepare: |victim| {
        std::fs::write(victim.machine.path("holdfast.toml"), "[soft-delete]\ndays = 14\n").unwrap();
        victim.run(&(FORGET.args)(victim)).expect_code(0);
    },
    args: |victim| words(&["undelete", &victim.vaulted]),
    // One that is back is not deleted.
    again: &[0, 1],
    said: |victim| {
        let points = victim.run(&["snapshots", "--json"]).expect_code(0).json();
        let point = shown(&points, &victim.vaulted);
        assert!(point["deleted_until"].is_null(), "{point}");
    },
    ..PLAIN
};

pub static HOLD: Verb = Verb {
    name: "hold",
    args: |victim| words(&["hold", &victim.vaulted, "--reason", "why"]),
    said: |victim| assert!(is_held(victim)),
    then: |victim| {
        victim.run(&(FORGET.args)(victim));
        let (bare, dir) = victim.recovered(&victim.vault);
        let points = crate::trouble::run(&bare, &dir, &["snapshots", "--json"]).expect_code(0).json();
        assert!(shown(&points, &victim.vaulted)["held"].is_object(), "{points}");
    },
    ..PLAIN
};

pub static RELEASE: Verb = Verb {
    name: "release",
    prepare: |victim| drop(victim.run(&(HOLD.args)(victim)).expect_code(0)),
    args: |victim| words(&["release", &victim.vaulted]),
    said: |victim| assert!(!is_held(victim)),
    ..PLAIN
};

pub static ACCEPT: Verb = Verb {
    name: "vault accept",
    prepare: roll_back,
    removes: true,
    args: |victim| words(&["vault", "accept", &victim.at("vault")]),
    said: |victim| assert!(!has_alert(victim, "vault-rolled-back")),
    // What it lost is missing there until it is sent again, which is told where nobody missed it before.
    then: |victim| {
        assert!([0, 3].contains(&victim.run(&["vault", "push"]).code()));
        victim.run(&["vault", "push"]).expect_code(0);
    },
    ..PLAIN
};

pub static VAULT_ADD: Verb = Verb {
    name: "vault add",
    args: |victim| words(&["vault", "add", &victim.at("second")]),
    then: |victim| {
        victim.run(&["vault", "push"]).expect_code(0);
        victim.all_come_back(&victim.machine.path("second"), &victim.expected);
    },
    ..PLAIN
};

pub static STAGING_ADD: Verb = Verb {
    name: "staging add",
    args: |victim| words(&["staging", "add", &victim.at("annex")]),
    said: |victim| assert_eq!(directories(victim), 2),
    then: |victim| {
        victim.run(&["backup", &victim.at("source")]).expect_code(0);
        assert!(!packs(&victim.machine.path("annex")).is_empty());
    },
    ..PLAIN
};

pub static STAGING_REMOVE: Verb = Verb {
    name: "staging remove",
    prepare: spread,
    args: |victim| words(&["staging", "remove", &victim.at("annex")]),
    // One that is none any more is not found.
    again: &[0, 1],
    said: |victim| {
        assert_eq!(directories(victim), 1);
        assert_eq!(std::fs::read_dir(victim.machine.path("annex")).unwrap().count(), 0);
    },
    ..PLAIN
};

pub static SCRUB: Verb = Verb {
    name: "scrub",
    prepare: spoil,
    args: |_| words(&["scrub", "--full"]),
    // It found something, and put it right; then there is nothing to be found.
    code: 1,
    again: &[0],
    lasts: false,
    ..PLAIN
};

pub static CHECK: Verb = Verb {
    name: "check",
    prepare: spoil,
    args: |_| words(&["check", "--read-data"]),
    code: 1,
    again: &[1],
    lasts: false,
    then: |victim| {
        assert!(has_alert(victim, "damage"));
        let whole = (0..4).any(|_| victim.run(&["scrub"]).code() == 0);
        assert!(whole, "what is damaged here is whole there");
    },
    ..PLAIN
};

pub static FETCH: Verb = Verb {
    name: "fetch",
    prepare: have_nothing_here,
    args: |victim| words(&["fetch", &victim.vaulted]),
    // It is a cache, which nobody misses, and that of directories, which are read on the way, is not what it speaks of.
    lasts: false,
    says: &["the cache does not keep what is fetched"],
    then: reads_without_the_vault,
    ..PLAIN
};

pub static RECOVER: Verb = Verb {
    name: "recover",
    prepare: have_nothing,
    args: |victim| words(&["recover", &victim.at("vault"), "--machine-key"]),
    ..PLAIN
};
