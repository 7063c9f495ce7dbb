//! Files found by their number alone: handles, which servers of NFS and overlays keep.

use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{assert_same, evict_or_skip, overlay, probe, sh, sorted};
use crate::roundtrip::nasty;
use crate::testkit::{Machine, can_mount};

/// Every entry but those whose path is too long, by NUL.
const ALL: &str = "find . -path ./deep -prune -o -path ./sparse/huge -o -print0";

#[test]
fn handles_open_what_they_were_made_of_after_the_kernel_forgot_it() {
    if !can_mount("handles_open_what_they_were_made_of_after_the_kernel_forgot_it") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-handles", &[]);
    let point = mount.point(&nasty.point);
    let (saved, program) = (nasty.machine.path("handles"), &*super::PROBE);
    sh(&point, &format!("{ALL} | \"$1\" save \"$2\""), &[program, &saved]);
    let count = sh(&point, &format!("{ALL} | tr -dc '\\0' | wc -c"), &[]);
    let count: usize = String::from_utf8(count).unwrap().trim().parse().unwrap();
    assert!(count > 3000, "only {count} handles");
    let open = |mounted: &Path| probe(&[&"open", &mounted, &saved]);
    let all_same = format!("{count} same, 0 stale, 0 other");
    assert_eq!(open(mount.path()), all_same);
    for _ in 0..2 {
        evict_or_skip("handles after eviction");
        assert_eq!(open(mount.path()), all_same);
    }
    // The next mount knows none of them until it has met them again; none of them leads astray.
    mount.umount();
    let mount = nasty.machine.mount("mount-handles", &[]);
    let said = open(mount.path());
    assert!(said.ends_with(" stale, 0 other"), "{said}");
    sh(&mount.point(&nasty.point), ALL, &[]);
    assert_eq!(open(mount.path()), all_same);
}

#[test]
fn an_overlay_goes_on_where_it_was_when_the_mount_below_was_killed_and_made_anew() {
    if !can_mount("an_overlay_goes_on_where_it_was_when_the_mount_below_was_killed_and_made_anew") {
        return;
    }
    let machine = Machine::with_store();
    let source = machine.path("source");
    std::fs::create_dir(&source).unwrap();
    let make = "mkdir -p a/b gone && for n in 1 2 3 4; do echo $n > a/b/$n; done && ln a/b/1 a/one && echo x > gone/x && chmod 640 a/b/2";
    sh(&source, make, &[]);
    let made = machine.back_up(&source, &[]);
    let id = made["snapshot_id"].as_str().unwrap();
    let scratch = machine.path("scratch");
    let look = "find . -printf '%p %y %m %s %T@\\0' -type f -exec cat {} +";
    let mut before = None;
    for _ in 0..2 {
        let mount = machine.mount("recovery", &[]);
        let merged = overlay(&mount.point(id), &scratch, "");
        if before.is_none() {
            sh(
                &merged,
                "echo more >> a/b/1 && rm -r gone && mv a/b/3 a/three && chmod 600 a/b/2 && echo new > new",
                &[],
            );
        }
        let seen = sorted(&sh(&merged, look, &[]), b"\0");
        evict_or_skip("an overlay after eviction");
        assert_same("after eviction", &seen, &sorted(&sh(&merged, look, &[]), b"\0"));
        assert_same("the same overlay", before.get_or_insert(seen.clone()), &seen);
        sh(&scratch, "umount merged", &[]);
        for process in mount.processes() {
            kill(Pid::from_raw(process), Signal::SIGKILL).unwrap();
        }
        mount.wait_for_the_end(10);
    }
}

#[test]
fn an_overlay_with_an_index_keeps_hard_links_together() {
    if !can_mount("an_overlay_with_an_index_keeps_hard_links_together") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-indexed", &[]);
    let merged = overlay(&mount.point(&nasty.point), &nasty.machine.path("scratch-indexed"), ",index=on");
    sh(&merged, "echo more >> links/a", &[]);
    let seen =
        ["links/a", "links/b", "links/sub/c"].map(|name| std::fs::read_to_string(merged.join(name)).unwrap());
    assert_eq!(seen, ["hardmore\n"; 3]);
    assert_eq!(std::fs::read_to_string(mount.point(&nasty.point).join("links/b")).unwrap(), "hard");
    sh(Path::new("/"), "umount \"$1\"", &[&merged]);
}
