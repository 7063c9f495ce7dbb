//! Killed at any moment: what was acknowledged restores byte for byte, nothing half is shown, the next run goes on.
//!
//! `HOLDFAST_CRASHES` says how often each kind of run is killed, `HOLDFAST_SEED` makes the moments those of a former run.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use holdfast_store::id::VaultId;
use holdfast_store::tree::testing::TestRandom;
use holdfast_store::vault::testing::{Azurite, HttpProxy, Verb};

use crate::testkit::Machine;
use crate::trouble::{
    SmallStore, Tree, assert_restores, azurite, command, mutate, points, read_tree, run, sample, summary_id,
    write_tree,
};

/// Bytes of the source: some packs of 1 MiB.
const SOURCE: usize = 5 << 20;

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// A source, its store, and what every point must restore to.
struct Victim {
    machine: Machine,
    store: SmallStore,
    source: PathBuf,
    random: TestRandom,
    tree: Tree,
    /// By id; points that were seen, whether they were acknowledged or not.
    expected: BTreeMap<String, Tree>,
    acknowledged: Vec<String>,
    vaulted: Vec<String>,
}

impl Victim {
    fn new(seed: u64) -> Self {
        let machine = Machine::new();
        let store = SmallStore::make(&machine, machine.path("store"));
        let mut random = TestRandom::new(seed);
        let tree = sample(&mut random, SOURCE);
        let source = machine.path("source");
        write_tree(&source, &tree);
        Self {
            machine,
            store,
            source,
            random,
            tree,
            expected: BTreeMap::new(),
            acknowledged: Vec::new(),
            vaulted: Vec::new(),
        }
    }

    fn change(&mut self, round: u64) {
        mutate(&mut self.random, &mut self.tree, round);
        write_tree(&self.source, &self.tree);
    }

    fn backup_args(&self, online: bool) -> Vec<String> {
        let mut args: Vec<String> = ["backup", "--json"].map(Into::into).into();
        args.extend(online.then(|| "--online".to_owned()));
        args.push(self.source.display().to_string());
        args
    }

    /// A run that nobody disturbs; how long it took.
    fn backup(&mut self, online: bool) -> Duration {
        let began = Instant::now();
        let args = self.backup_args(online);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ran = run(&self.machine, &self.store.dir, &args).expect_code(0);
        let took = began.elapsed();
        self.acknowledge(&ran.out(), online);
        took
    }

    fn acknowledge(&mut self, out: &str, online: bool) {
        let Some(id) = summary_id(out) else { return };
        self.expected.insert(id.clone(), self.tree.clone());
        self.acknowledged.push(id.clone());
        if online {
            self.vaulted.push(id);
        }
    }

    /// Kills a run of these arguments after `delay`; what it had printed.
    fn kill(&self, args: &[&str], delay: Duration) -> String {
        let mut child = command(&self.machine, &self.store.dir, args)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(delay);
        let _ = child.kill();
        let output = child.wait_with_output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What must hold after every kill.
    fn examine(&mut self) {
        let shown = points(&self.machine, &self.store.dir);
        for id in &self.acknowledged {
            assert!(shown.contains(id), "the acknowledged point {id} is not shown");
        }
        for id in shown {
            if !self.expected.contains_key(&id) {
                // It was complete when the run died, and so is a point of what the source was.
                assert_restores(&self.machine, &self.store.dir, &id, &self.tree);
                self.expected.insert(id, self.tree.clone());
            }
        }
        run(&self.machine, &self.store.dir, &["check"]).expect_code(0);
        let nth = self.random.below(self.acknowledged.len() as u64) as usize;
        let id = &self.acknowledged[nth];
        assert_restores(&self.machine, &self.store.dir, id, &self.expected[id]);
    }

    /// Everything, at the end.
    fn conclude(&self) {
        run(&self.machine, &self.store.dir, &["check", "--read-data"]).expect_code(0);
        for (id, tree) in &self.expected {
            assert_restores(&self.machine, &self.store.dir, id, tree);
        }
    }

    /// From the vault alone, on a machine that has nothing but the words.
    fn recover(&self, url: &str) {
        let bare = Machine::new();
        let dir = bare.path("recovered");
        let mut recover = command(&bare, &dir, &["recover", url, "--machine-key"]);
        crate::testkit::Ran::of(recover.env("HOLDFAST_RECOVERY_KEY", &self.store.words)).expect_code(0);
        let shown = points(&bare, &dir);
        for id in &self.vaulted {
            assert!(shown.contains(id), "the vaulted point {id} is not recovered");
        }
        for id in &shown {
            assert_restores(&bare, &dir, id, &self.expected[id]);
        }
    }
}

fn seed(test: &str) -> u64 {
    let seed = env("HOLDFAST_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    // Shown when the test fails.
    #[allow(clippy::print_stdout)]
    {
        println!("{test}: HOLDFAST_SEED={seed}");
    }
    seed
}

fn rounds() -> u64 {
    env("HOLDFAST_CRASHES").unwrap_or(20)
}

/// A moment within a run that takes `whole`, or a little after it.
fn moment(random: &mut TestRandom, whole: Duration) -> Duration {
    whole.mul_f64(random.below(1100) as f64 / 1000.0)
}

fn packs_in(vault: &Path) -> usize {
    read_tree(vault).keys().filter(|path| path.starts_with("pack/")).count()
}

#[test]
fn a_backup_killed_at_any_moment_loses_nothing() {
    let mut victim = Victim::new(seed("backup"));
    victim.backup(false);
    victim.change(0);
    let mut whole = victim.backup(false);
    let mut cut = 0;
    for round in 1..=rounds() {
        victim.change(round);
        let args = victim.backup_args(false);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let delay = moment(&mut victim.random, whole);
        let out = victim.kill(&args, delay);
        cut += u64::from(out.is_empty());
        victim.acknowledge(&out, false);
        victim.examine();
        // How long a run takes follows what else the machine does.
        whole = victim.backup(false);
    }
    assert!(cut * 2 > rounds(), "only {cut} runs were cut off");
    victim.conclude();
}

#[test]
fn a_backup_with_its_upload_killed_at_any_moment_loses_nothing_and_sends_no_pack_twice() {
    let mut victim = Victim::new(seed("backup --online"));
    let vault = victim.machine.path("vault");
    let url = vault.display().to_string();
    run(&victim.machine, &victim.store.dir, &["vault", "add", &url]).expect_code(0);
    victim.backup(true);
    victim.change(0);
    let whole = victim.backup(true);
    for round in 1..=rounds() {
        victim.change(round);
        let args = victim.backup_args(true);
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let delay = moment(&mut victim.random, whole);
        let out = victim.kill(&args, delay);
        victim.acknowledge(&out, true);
        victim.examine();
        finish_push(&mut victim, || packs_in(&vault));
        victim.backup(true);
    }
    victim.conclude();
    victim.recover(&url);
}

/// Pushes what is left and compares the packs that were sent with those that came.
fn finish_push(victim: &mut Victim, packs: impl Fn() -> usize) -> u64 {
    let before = packs();
    let out = run(&victim.machine, &victim.store.dir, &["vault", "push", "--json"]).expect_code(0).out();
    let said: serde_json::Value = serde_json::from_str(out.lines().last().unwrap()).unwrap();
    let sent = said["packs"].as_u64().unwrap();
    assert_eq!(sent, (packs() - before) as u64, "a pack that was there was sent again");
    victim.vaulted = points(&victim.machine, &victim.store.dir);
    sent
}

#[test]
fn a_push_to_azure_killed_at_any_moment_sends_no_confirmed_pack_again() {
    let Some(azurite) = azurite() else { return };
    let proxy = HttpProxy::start(azurite.port()).unwrap();
    let mut victim = Victim::new(seed("vault push"));
    let name = format!("crash{}", &VaultId::random().hex()[..16]);
    let url = format!("azure+http://127.0.0.1:{}/{}/{name}", proxy.port(), Azurite::ACCOUNT);
    run(&victim.machine, &victim.store.dir, &["vault", "add", &url]).expect_code(0);
    victim.backup(true);
    victim.change(0);
    victim.backup(false);
    let began = Instant::now();
    run(&victim.machine, &victim.store.dir, &["vault", "push"]).expect_code(0);
    let whole = began.elapsed();
    for round in 1..=rounds().div_ceil(4) {
        victim.change(round);
        victim.backup(false);
        let delay = moment(&mut victim.random, whole);
        victim.kill(&["vault", "push"], delay);
        victim.examine();
        let puts = proxy.count(Verb::Put);
        let sent = finish_push(&mut victim, || azure_packs(&url)) as usize;
        let puts = proxy.count(Verb::Put) - puts;
        // Session, index and point are the others.
        assert!(puts <= sent + 3, "{puts} requests for {sent} packs");
    }
    victim.conclude();
    victim.recover(&url);
}

fn azure_packs(url: &str) -> usize {
    let vault = holdfast_store::vault::address::open(
        &url.parse().unwrap(),
        &holdfast_store::vault::address::Credentials { azure: Some(Azurite::credential()) },
    )
    .unwrap();
    let clock = std::sync::Arc::new(holdfast_store::clock::SystemClock);
    let transfer = holdfast_store::transfer::Transfer::new(vault, clock, Default::default()).unwrap();
    transfer.list_all("pack/").unwrap().len()
}
