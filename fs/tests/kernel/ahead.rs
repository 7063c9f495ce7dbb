//! What the kernel keeps, and is given before anybody asks.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use holdfast_fs::Unmounted;
use holdfast_fs::testing::Part;

use crate::{bed, eventually, shell};

#[test]
fn a_second_walk_asks_nothing() {
    let Some(bed) = bed(|r| {
        let files =
            |n: usize| (0..n).map(|n| r.file(&format!("f{n}"), &[Part::Data(vec![1; 5000])])).collect();
        vec![r.directory("a", files(300)), r.directory("b", vec![r.directory("c", files(50))])]
    }) else {
        return;
    };
    let script = "find . -type f | sort | xargs cat | wc -c; ls -lR | wc -l; stat none 2>&1; cat a/none 2>&1";
    let (_, first) = shell(script, &bed.at(""));
    assert!(first.starts_with("1750000"), "{first}");
    let asked = bed.recovery.asks();
    // One read of each file, some listings, and the attributes that `ls -l` asks for.
    assert!(asked < 350 * 4, "{asked}");
    let script =
        "find . -type f | sort | xargs cat | wc -c; find . -ls | wc -l; stat none 2>&1; cat a/none 2>&1";
    assert!(shell(script, &bed.at("")).1.starts_with("1750000"));
    assert_eq!(bed.recovery.asks(), asked);
}

/// How much of a file the kernel has, in pages.
fn pages(path: &Path) -> usize {
    let output = Command::new("fincore").args(["-n", "-o", "PAGES"]).arg(path).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

#[test]
fn who_reads_a_directory_in_order_is_given_what_comes_next() {
    let bytes = |n: usize| vec![n as u8; 1 + n * 977 % 9000];
    let name = |n: usize| format!("d/{n:03}");
    let Some(mut bed) = bed(|r| {
        let files = (0..40).map(|n| r.file(&format!("{n:03}"), &[Part::Data(bytes(n))]));
        vec![r.directory("d", files.collect())]
    }) else {
        return;
    };
    let read = |n: usize| assert_eq!(fs::read(bed.at(&name(n))).unwrap(), bytes(n), "{n}");
    // What is given unasked no answer tells of: the kernel is asked whether it has the last file of it.
    let given = |contents: u64, last: usize| {
        eventually("contents that nobody asked for", || bed.recovery.looked_ahead() == contents);
        let whole = bytes(last).len().div_ceil(4096);
        eventually("the last of them", || pages(&bed.at(&name(last))) == whole);
    };
    fs::read_dir(bed.at("d")).unwrap().for_each(|entry| drop(entry.unwrap()));
    read(0);
    read(1);
    given(7, 8);
    assert_eq!(bed.recovery.attempts(), 2);
    (2..6).for_each(read);
    assert_eq!(bed.recovery.attempts(), 2, "the kernel has them");
    read(6);
    given(7 + 15, 8 + 15);
    (7..19).for_each(read);
    given(7 + 15 + 14, 8 + 15 + 14);
    (19..40).for_each(read);
    // Four, unless somebody empties this machine's caches meanwhile.
    let asked = bed.recovery.attempts();
    assert!(asked <= 10, "{asked} requests for 40 files");
    assert_eq!(bed.unmount(), Unmounted::Cleanly);
}

#[test]
fn who_jumps_about_in_a_file_is_given_what_was_decoded_for_him() {
    const CHUNK: usize = 70_001;
    let bytes: Vec<u8> = (0..40 * CHUNK).map(|n| (n / 7) as u8).collect();
    let Some(mut bed) = bed(|r| {
        let parts: Vec<_> = bytes.chunks(CHUNK).map(|part| Part::Data(part.to_vec())).collect();
        vec![r.file("image", &parts)]
    }) else {
        return;
    };
    let image = File::open(bed.at("image")).unwrap();
    nix::fcntl::posix_fadvise(&image, 0, 0, nix::fcntl::PosixFadviseAdvice::POSIX_FADV_RANDOM).unwrap();
    let read = |at: usize, len: usize| {
        let mut found = vec![0; len];
        image.read_exact_at(&mut found, at as u64).unwrap();
        assert!(found == bytes[at..at + len], "{at}");
    };
    let chunk = |n: usize| (n * CHUNK).next_multiple_of(4096)..(n + 1) * CHUNK / 4096 * 4096;
    let before = bed.recovery.attempts();
    read(chunk(30).start + 8192, 100);
    eventually("the rest of the chunk", || bed.recovery.attempts() == before + 3);
    eventually("its pages", || pages(&bed.at("image")) == chunk(30).len() / 4096);
    read(chunk(30).start, chunk(30).len());
    assert_eq!(bed.recovery.attempts(), before + 3, "nothing is asked for twice");
    read(39 * CHUNK, CHUNK);
    read(0, bytes.len());
    drop(image);
    assert_eq!(bed.unmount(), Unmounted::Cleanly);
}
