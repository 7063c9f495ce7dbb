//! `mount(8)` and `/etc/fstab`: the real `mount` and the real `mount.fuse3`, in a namespace of mounts in which this program
//! is installed and nowhere else.
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::Command;

use crate::testkit::{Machine, PASSPHRASE, Ran, can_mount, mounts, processes_with, wait_for};

/// Whether there is all that it takes; else it says that the test is left out.
fn can(test: &str) -> bool {
    let there = ["/usr/bin/unshare", "/usr/sbin/mount.fuse3"].iter().all(|tool| Path::new(tool).exists());
    if !there {
        crate::testkit::skip(test, "it needs unshare and mount.fuse3");
    }
    there && can_mount(test)
}

/// A machine with a point, a directory `bin` with the program, and a place to mount.
fn machine() -> Machine {
    let machine = Machine::with_store();
    let source = machine.path("docs");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("file"), "one").unwrap();
    machine.back_up(&source, &["--as", "docs"]);
    std::fs::create_dir(machine.path("bin")).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_holdfast"), machine.path("bin/holdfast")).unwrap();
    std::fs::create_dir(machine.path("mnt")).unwrap();
    machine
}

/// Runs a script with nothing in the environment. What it mounts is gone with it; `/usr/local/bin` holds our `bin` meanwhile,
/// since that is where a `mount` that clears its environment lets programs be found.
fn script(machine: &Machine, text: &str) -> Ran {
    let install = "mount --bind \"$FILES/bin\" /usr/local/bin";
    let mut command = Command::new("/usr/bin/unshare");
    command.args(["--mount", "/bin/sh", "-ec"]).arg(format!("cd \"$FILES\"\n{install}\n{text}"));
    command
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("FILES", machine.root().join("files"));
    Ran::of(command.env("KEYS", machine.root().join("keys")).env("CACHE", machine.root().join("cache")))
}

/// Options that keep the program away from the places of this machine's root.
const OPTIONS: &str = "key_dir=$KEYS,cache_dir=$CACHE";

fn assert_gone(machine: &Machine) {
    let mnt = machine.path("mnt");
    assert!(!mounts().contains(&mnt));
    wait_for("the end of the mount's process", 10, || processes_with(&mnt).is_empty());
}

#[test]
fn a_line_of_fstab_mounts_and_umount_ends_it() {
    if !can("a_line_of_fstab_mounts_and_umount_ends_it") {
        return;
    }
    let machine = machine();
    let ran = script(
        &machine,
        &format!(
            "echo \"$FILES/store $FILES/mnt fuse.holdfast ro,allow_other,noexec,_netdev,nofail,x-systemd.requires=x,{OPTIONS} 0 0\" > fstab
             mount --fstab fstab \"$FILES/mnt\"
             cat mnt/by-group/default/docs/latest/file; echo
             grep \" $FILES/mnt \" /proc/self/mountinfo
             umount mnt
             ls mnt"
        ),
    )
    .expect_code(0);
    let out = ran.out();
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!((lines.len(), lines[0]), (2, "one"), "{out}");
    for word in ["ro,", "nosuid", "nodev", "noexec", "fuse.holdfast", "allow_other", "holdfast:"] {
        assert!(lines[1].contains(word), "{word}: {}", lines[1]);
    }
    assert_eq!(ran.err(), "");
    assert_gone(&machine);
}

#[test]
fn mount_finds_it_under_the_name_of_a_helper_too() {
    if !can("mount_finds_it_under_the_name_of_a_helper_too") {
        return;
    }
    let machine = machine();
    // A passphrase in a file goes on to the process that serves the mount.
    machine.forget_keys();
    std::fs::write(machine.path("passphrase"), PASSPHRASE).unwrap();
    let ran = script(
        &machine,
        &format!(
            "ln -s /usr/local/bin/holdfast bin/mount.holdfast
             bin/mount.holdfast none mnt -v -o rw,store=$FILES/store,password_file=$FILES/passphrase,cache_size=64M,{OPTIONS}
             cat mnt/by-group/default/docs/latest/file; echo
             umount mnt"
        ),
    )
    .expect_code(0);
    let out = ran.out();
    assert!(out.starts_with("mounted at ") && out.ends_with("\none\n"), "{out}");
    assert_gone(&machine);
}

#[test]
fn what_cannot_be_mounted_fails_and_says_why() {
    if !can("what_cannot_be_mounted_fails_and_says_why") {
        return;
    }
    let machine = machine();
    let mount = |options: &str, store: &str| {
        script(&machine, &format!("mount -t fuse.holdfast \"{store}\" mnt -o {options},{OPTIONS}"))
    };
    let unknown = mount("ro,uid=1000", "$FILES/store");
    assert_ne!(unknown.code(), 0);
    unknown.expect_err(&["the option uid=1000 is not known", "password_file=FILE"]);
    let nowhere = mount("ro", "$FILES/nowhere");
    assert_ne!(nowhere.code(), 0);
    nowhere.expect_err(&["nowhere", "holdfast init"]);
    assert_gone(&machine);
}
