//! Limits of bandwidth on a real connection: what passes in a second, who is slowed and who is not, and that nobody waits for the end.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_store::clock::SystemClock;
use holdfast_store::pace::{Limit, Pace};
use holdfast_store::transfer::{Transfer, TransferPolicy};
use holdfast_store::vault::address::{Credentials, open};
use holdfast_store::vault::testing::{Azurite, Verb};
use holdfast_store::vault::{ObjectName, VaultError};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cloud::Cloud;
use crate::testkit::{Machine, Ran, noise, wait_for};

const MB: u64 = 1_000_000;

/// The way to a prepared vault, with a limit that may be changed at any moment.
fn limited(cloud: &Cloud, bytes_per_second: u64) -> (Arc<Transfer>, Arc<AtomicU64>) {
    let credentials = Credentials { azure: Some(Azurite::credential()) };
    let vault = open(&cloud.url().parse().unwrap(), &credentials).unwrap();
    let transfer = Transfer::new(vault, Arc::new(SystemClock), TransferPolicy::default()).unwrap();
    transfer.prepare().unwrap();
    let rate = Arc::new(AtomicU64::new(bytes_per_second));
    let now = rate.clone();
    // It is asked each time.
    let limit =
        move |moment| Limit { bytes_per_second: Some(now.load(Ordering::SeqCst)), until: Some(moment) };
    transfer.pace_uploads(Pace::new(Arc::new(SystemClock), limit));
    (transfer, rate)
}

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

#[test]
fn an_upload_keeps_to_its_limit_second_by_second_and_slows_nobody_else() {
    let Some(cloud) = Cloud::start("an_upload_keeps_to_its_limit") else { return };
    let (transfer, _) = limited(&cloud, MB);
    let body = noise("limit", 4 * MB as usize);
    transfer.put_new(&name("config"), vec![1].into()).unwrap();
    let (begin, before) = (Instant::now(), cloud.gate.sent());
    let (mut seen, mut slowest) = (Vec::new(), Duration::ZERO);
    std::thread::scope(|scope| {
        let put = scope.spawn(|| transfer.put_new(&name("pack/ab/x"), body.clone().into()));
        while !put.is_finished() {
            let asked = Instant::now();
            assert_eq!(transfer.stat(&name("config")).unwrap(), Some(1));
            slowest = slowest.max(asked.elapsed());
            seen.push((begin.elapsed(), cloud.gate.sent() - before));
        }
        put.join().unwrap().unwrap();
    });
    let took = begin.elapsed();
    assert!(slowest < Duration::from_secs(1), "a question took {slowest:?}");
    assert!((3500..6000).contains(&took.as_millis()), "{took:?}");
    for (at, sent) in &seen {
        let later = seen.iter().take_while(|(then, _)| *then <= *at + Duration::from_secs(1)).last().unwrap();
        // A burst of a quarter, and the questions.
        assert!(later.1 - sent < MB * 16 / 10, "{} bytes in the second from {at:?} on", later.1 - sent);
    }
    assert!(transfer.get(&name("pack/ab/x"), 8 * MB).unwrap() == body);
    let tries = (cloud.proxy.count(Verb::Put), transfer.stats().retries);
    assert_eq!(tries, (2, 0), "each object in one request, at the first try");
    println!("4 MB took {took:?}; of {} questions meanwhile the slowest {slowest:?}", seen.len());
}

#[test]
fn another_limit_holds_in_the_middle_of_an_upload_and_cancelling_ends_it_at_once() {
    let Some(cloud) = Cloud::start("another_limit_holds") else { return };
    let (transfer, rate) = limited(&cloud, 100_000);
    let body = noise("changes", 8 * MB as usize);
    std::thread::scope(|scope| {
        let put = scope.spawn(|| transfer.put_new(&name("pack/ab/x"), body.clone().into()));
        wait_for("the first bytes", 20, || cloud.gate.sent() > 200_000);
        assert!(cloud.gate.sent() < MB);
        let begin = Instant::now();
        rate.store(100 * MB, Ordering::SeqCst);
        put.join().unwrap().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
        rate.store(100_000, Ordering::SeqCst);
        let before = cloud.gate.sent();
        let put = scope.spawn(|| transfer.put_new(&name("pack/ab/y"), body.clone().into()));
        wait_for("the first bytes", 20, || cloud.gate.sent() - before > 50_000);
        let begin = Instant::now();
        transfer.cancel();
        assert!(matches!(put.join().unwrap(), Err(VaultError::Cancelled)));
        assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    });
}

#[test]
fn the_configuration_limits_what_is_pushed_and_the_command_line_wins() {
    let machine = Machine::with_store();
    let source = machine.path("source");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), noise("file", 3 << 20)).unwrap();
    Ran::of(machine.command(["vault", "add"]).arg(machine.path("vault"))).expect_code(0);
    machine.back_up(&source, &[]);
    let config = machine.path("holdfast.toml");
    let write = |text: &str| std::fs::write(&config, text).unwrap();
    let push = |more: &[&str]| {
        let mut command = machine.command(["vault", "push"].iter().chain(more));
        command.env("HOLDFAST_CONFIG", &config);
        command
    };
    // What is said of the hour does not hold in it, or it would take minutes.
    write("[bandwidth]\nupload = \"16K\"\n[[bandwidth.during]]\nwhen = \"Mon..Sun\"\nupload = \"1M\"\n");
    let begin = Instant::now();
    Ran::of(&mut push(&[])).expect_code(0);
    assert!((2500..20_000).contains(&begin.elapsed().as_millis()), "{:?}", begin.elapsed());

    std::fs::write(source.join("file"), noise("another", 3 << 20)).unwrap();
    machine.back_up(&source, &[]);
    write("[bandwidth]\nupload = \"16K\"\n");
    let mut slow = push(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let unfinished = || machine.path("vault/.tmp").read_dir().unwrap().next().is_some();
    wait_for("the upload", 20, unfinished);
    let begin = Instant::now();
    kill(Pid::from_raw(slow.id().try_into().unwrap()), Signal::SIGINT).unwrap();
    assert_eq!(slow.wait().unwrap().code(), Some(130));
    assert!(begin.elapsed() < Duration::from_secs(5) && !unfinished(), "{:?}", begin.elapsed());

    write("[bandwidth]\nupload = \"10\"\n");
    Ran::of(&mut push(&[])).expect_code(1).expect_err(&["holdfast.toml:2", "16K a second is the least"]);
    Ran::of(&mut push(&["--limit-upload", "15K"])).expect_code(2).expect_err(&["16K a second"]);
    write("[bandwidth]\nupload = \"16K\"\n");
    let begin = Instant::now();
    Ran::of(&mut push(&["--limit-upload", "unlimited"])).expect_code(0);
    assert!(begin.elapsed() < Duration::from_secs(60), "{:?}", begin.elapsed());
}
