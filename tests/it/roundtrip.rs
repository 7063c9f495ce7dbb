//! What goes in comes out: by `restore`, by the mount, and by the tools that people copy with.
//!
//! One store with one point of the nasty tree is shared by the tests that only look at it. What a copying tool loses by
//! itself is found out by copying the source with it as well: the same must be lost, and nothing else.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};

use crate::compare::{Class, Differences, compare};
use crate::nasty::{self, HUGE_PATH};
use crate::testkit::{Machine, PASSPHRASE, Ran, as_nobody, can_be_nobody, can_mount, noise};
use crate::unchanged::{back_up_later, on_disk, run_later};

/// A machine with a point of the nasty tree, shared by the tests that run at the moment; the last one takes it away.
pub struct Nasty {
    pub machine: Machine,
    pub source: PathBuf,
    pub point: String,
    summary: serde_json::Value,
}

/// The one that there is at the moment, or a new one.
pub fn nasty() -> Arc<Nasty> {
    static SHARED: Mutex<Weak<Nasty>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(nasty) = shared.upgrade() {
        return nasty;
    }
    let machine = Machine::with_store();
    let source = machine.path("source");
    nasty::build(&source);
    let summary = machine.back_up(&source, &[]);
    let point = summary["snapshot_id"].as_str().unwrap().to_owned();
    let nasty = Arc::new(Nasty { machine, source, point, summary });
    *shared = Arc::downgrade(&nasty);
    nasty
}

fn write(path: PathBuf, content: impl AsRef<[u8]>) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

/// Paths of everything below a directory, sorted.
fn paths(root: &Path) -> Vec<String> {
    fn walk(root: &Path, below: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(root.join(below)).unwrap() {
            let entry = entry.unwrap();
            let path = below.join(entry.file_name());
            found.push(path.to_str().unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                walk(root, &path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(root, Path::new(""), &mut found);
    found.sort();
    found
}

#[test]
fn a_restored_tree_is_identical_in_every_class() {
    let nasty = nasty();
    assert_eq!(nasty.summary["state"], "complete", "{}", nasty.summary);
    let back = nasty.machine.restore("latest", "back");
    compare(&nasty.source, &back).assert_none();
}

#[test]
fn the_mount_is_identical_in_every_class() {
    if !can_mount("the_mount_is_identical_in_every_class") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-to-compare", &[]);
    compare(&nasty.source, &mount.point(&nasty.point)).assert_none();
}

/// A tool that copies trees, run with the tree to copy as its current directory: the paths it sees are equally long then.
struct Tool {
    name: &'static str,
    /// For `sh`; `$1` is the new directory.
    script: &'static str,
    /// What the tool itself may lose or change, whatever it copies.
    loses: &'static [Class],
    /// Whether it may end with an error of its own: no tool takes the path that is too long.
    fails: bool,
    /// What it cannot be asked to copy.
    left_out: Option<&'static str>,
}

/// Copies the source and the point with a tool; both copies must lack the same.
fn copy_with(tool: &Tool) {
    if !can_mount(tool.name) {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount(&format!("mount-{}", tool.name), &[]);
    let copy = |from: &Path, name: &str| {
        let to = nasty.machine.path(name);
        std::fs::create_dir(&to).unwrap();
        let mut command = Command::new("sh");
        let ran = Ran::of(command.args(["-c", tool.script, "sh"]).arg(&to).current_dir(from));
        assert_eq!(ran.code() != 0, tool.fails, "{} of {}: {}", tool.name, from.display(), ran.err());
        (to, ran.err().lines().count())
    };
    let (of_source, complaints) = copy(&nasty.source, &format!("{}-source", tool.name));
    let (of_mount, complaints_of_mount) = copy(&mount.point(&nasty.point), &format!("{}-mounted", tool.name));
    assert_eq!(complaints, complaints_of_mount);
    let lost = compare(&nasty.source, &of_source).without(&[Class::Flags]);
    let lost_of_mount = compare(&nasty.source, &of_mount).without(&[Class::Flags]);
    let unexpected: Vec<_> = lost.classes().into_iter().filter(|class| !tool.loses.contains(class)).collect();
    assert!(unexpected.is_empty(), "{} of the source itself: {lost:?}", tool.name);
    // Which times of directories a tool loses after an error of its own is a matter of chance.
    let lasting = |lost: Differences| match tool.loses.contains(&Class::DirectoryMtime) {
        true => lost.without(&[Class::DirectoryMtime]).places(),
        false => lost.places(),
    };
    let told = format!("{}: {lost:?} {lost_of_mount:?}", tool.name);
    assert_eq!(lasting(lost), lasting(lost_of_mount), "{told}");
    if let Some(path) = tool.left_out {
        assert!(!of_mount.join(path).exists(), "{path} was copied");
    }
}

#[test]
fn cp_out_of_the_mount_loses_only_what_cp_loses() {
    copy_with(&Tool {
        name: "cp",
        script: "cp -a . \"$1\"",
        // The path that is too long, with times of directories above it that are set after their content.
        loses: &[Class::Missing, Class::DirectoryMtime],
        fails: true,
        left_out: None,
    });
}

#[test]
fn rsync_out_of_the_mount_loses_only_what_rsync_loses() {
    copy_with(&Tool {
        name: "rsync",
        // It reads holes as zeros: a TiB of them takes it half an hour.
        script: "rsync -aHAXS --exclude /sparse/huge . \"$1\"",
        loses: &[Class::Missing, Class::DirectoryMtime, Class::Xattr],
        fails: true,
        left_out: Some(HUGE_PATH),
    });
}

#[test]
fn tar_out_of_the_mount_loses_only_what_tar_loses() {
    copy_with(&Tool {
        name: "tar",
        script: "tar --xattrs --xattrs-include='*' --acls -S -cf - . | tar --xattrs --xattrs-include='*' --acls -C \"$1\" -xpf -",
        // Sockets, the path that is too long, that two fifos are one.
        loses: &[Class::Missing, Class::DirectoryMtime, Class::Xattr, Class::HardLinks, Class::LinkCount],
        fails: true,
        left_out: Some("special/socket"),
    });
}

#[test]
fn a_second_backup_reads_no_file_and_a_third_only_the_changed_one() {
    let (machine, dir) = (Machine::with_store(), on_disk());
    let source = dir.path().join("source");
    for n in 0..20 {
        write(source.join(format!("dir-{}/file-{n}", n % 4)), vec![n; 10_000 + usize::from(n)]);
    }
    let first = back_up_later(&machine, &source, 120, &[]);
    assert_eq!((&first["files_new"], &first["files_changed"]), (&20.into(), &0.into()), "{first}");
    let second = back_up_later(&machine, &source, 180, &[]);
    assert_eq!(second["files_unmodified"], 20, "{second}");
    assert_eq!((&second["files_new"], &second["files_changed"]), (&0.into(), &0.into()), "{second}");
    assert_eq!(second["data_added"], 0, "{second}");
    write(source.join("dir-1/file-1"), "changed");
    let ran = run_later(machine.command(["backup"]).arg(&source), 240).expect_code(0);
    let said = ran.out() + &ran.err();
    assert!(said.contains("20 files") && said.contains(" 1 read (7 B)"), "{said}");
    // What is read again without need is neither new nor stored again.
    let forced = back_up_later(&machine, &source, 300, &["--force"]);
    assert_eq!((&forced["files_new"], &forced["files_changed"]), (&0.into(), &20.into()), "{forced}");
    assert_eq!(forced["data_added"], 0, "{forced}");
}

#[test]
fn hard_links_share_an_inode_in_the_mount_and_inode_numbers_survive_a_remount() {
    if !can_mount("hard_links_share_an_inode_in_the_mount_and_inode_numbers_survive_a_remount") {
        return;
    }
    let nasty = nasty();
    let inodes = || {
        let mount = nasty.machine.mount("mount-twice", &[]);
        let root = mount.point(&nasty.point);
        let inode = |name: &str| root.join(name).symlink_metadata().unwrap().ino();
        assert_eq!(inode("links/a"), inode("links/sub/c"));
        assert_eq!(inode("links/dangling"), inode("links/dangling-again"));
        assert_eq!(inode("special/fifo"), inode("special/fifo-again"));
        assert_ne!(inode("links/a"), inode("links/many/0"));
        assert_eq!(root.join("links/many/77").metadata().unwrap().nlink(), 200);
        let list = |dir: &str| -> BTreeMap<_, _> {
            let entries = root.join(dir).read_dir().unwrap().map(Result::unwrap);
            entries.map(|entry| (entry.file_name(), entry.metadata().unwrap().ino())).collect()
        };
        let found = [list(""), list("links"), list("big"), list("names")];
        mount.umount();
        found
    };
    let first = inodes();
    assert_eq!(first[2].len(), nasty::BIG);
    assert_eq!(first, inodes());
}

#[test]
fn a_single_file_is_restored_by_point_and_path() {
    let nasty = nasty();
    let back = nasty.machine.restore("latest:sizes/65537", "one-file");
    assert_eq!(paths(&back), ["65537"]);
    assert_eq!(
        std::fs::read(back.join("65537")).unwrap(),
        std::fs::read(nasty.source.join("sizes/65537")).unwrap()
    );
    let back = nasty.machine.restore(&format!("{}:acl", &nasty.point[..8]), "one-directory");
    compare(&nasty.source.join("acl"), &back).assert_none();
    let mut command = nasty.machine.command(["restore", "latest:no/such", "--target"]);
    Ran::of(command.arg(nasty.machine.path("nothing"))).expect_code(1).expect_err(&["no/such"]);
}

#[test]
fn each_option_leaves_out_what_it_says() {
    let machine = Machine::with_store();
    let source = machine.path("source");
    for name in ["keep", "a.tmp", "B.TMP", "sub/c.tmp", "sub/keep", "top/x", "sub/top/y", "marked/.nobackup"]
    {
        write(source.join(name), name);
    }
    write(source.join("marked/inside"), "i");
    write(source.join("cache/CACHEDIR.TAG"), "Signature: 8a477f597d28d172789f06886806bc55\n");
    write(source.join("cache/junk"), "j");
    write(source.join("large"), vec![b'l'; 5000]);
    let list = machine.path("patterns");
    write(list.clone(), "# a comment\n*.tmp\n\n!a.tmp\n");
    let list = list.to_str().unwrap();
    let anchored = source.join("top");
    let table: [(&[&str], &[&str]); 8] = [
        (&["--exclude", "*.tmp"], &["a.tmp", "sub/c.tmp"]),
        (&["--iexclude", "*.tmp"], &["B.TMP", "a.tmp", "sub/c.tmp"]),
        (&["--exclude-file", list], &["sub/c.tmp"]),
        (&["--exclude", "top"], &["sub/top", "sub/top/y", "top", "top/x"]),
        (&["--exclude", anchored.to_str().unwrap()], &["top", "top/x"]),
        (&["--exclude-caches"], &["cache/junk"]),
        (&["--exclude-if-present", ".nobackup"], &["marked/inside"]),
        (&["--exclude-larger-than", "4K"], &["large"]),
    ];
    let all = paths(&source);
    for (n, (options, left_out)) in table.into_iter().enumerate() {
        machine.back_up(&source, options);
        let found = paths(&machine.restore("latest", &format!("back-{n}")));
        let missing: Vec<_> = all.iter().filter(|path| !found.contains(path)).collect();
        assert_eq!(missing, left_out, "{options:?}");
        assert!(found.iter().all(|path| all.contains(path)), "{options:?}: {found:?}");
    }
}

#[test]
fn one_file_system_stays_in_it_and_without_it_the_other_is_taken() {
    if !can_mount("one_file_system_stays_in_it_and_without_it_the_other_is_taken") {
        return;
    }
    let machine = Machine::with_store();
    let source = machine.path("source");
    write(source.join("file"), "f");
    std::fs::create_dir(source.join("other")).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", source.join("other"), "tmpfs", flags, c"size=1m").unwrap();
    write(source.join("other/inside"), "i");
    machine.back_up(&source, &["--one-file-system"]);
    assert_eq!(paths(&machine.restore("latest", "one")), ["file", "other"]);
    machine.back_up(&source, &[]);
    assert_eq!(paths(&machine.restore("latest", "all")), ["file", "other", "other/inside"]);
}

#[test]
fn the_stores_own_directories_are_not_in_its_points() {
    let machine = Machine::with_store();
    let vault = machine.path("vault");
    Ran::of(machine.command(["vault", "add"]).arg(&vault)).expect_code(0);
    write(machine.path("mine"), "m");
    // All of the machine is the source: store, vault, cache and keys lie in it, and a mount of the points if that can be.
    let mount = can_mount("a mount inside a source").then(|| {
        machine.back_up(&machine.path("mine"), &[]);
        machine.mount("recovery", &[])
    });
    machine.back_up(machine.root(), &["--as", "machine"]);
    drop(mount);
    let back = machine.restore("latest", "back");
    let found = paths(&back);
    assert!(found.contains(&"files/mine".to_owned()), "{found:?}");
    assert!(found.contains(&"files/store".to_owned()), "{found:?}");
    let below = |dir: &str| found.iter().filter(|path| path.starts_with(dir)).cloned().collect::<Vec<_>>();
    assert_eq!(below("files/store/"), [""; 0]);
    assert_eq!(below("files/vault/"), [""; 0]);
    assert_eq!(below("files/recovery/"), [""; 0]);
    let cached = below("cache/");
    assert!(cached.iter().all(|path| path.matches('/').count() == 1), "{cached:?}");
}

#[test]
fn a_file_that_cannot_be_read_makes_the_point_partial_and_is_named() {
    if !can_be_nobody("a_file_that_cannot_be_read_makes_the_point_partial_and_is_named") {
        return;
    }
    let machine = Machine::with_store();
    let source = machine.path("source");
    write(source.join("open"), "o");
    write(source.join("sub/secret"), "s");
    machine.give_to_nobody();
    std::os::unix::fs::chown(source.join("sub/secret"), Some(0), Some(0)).unwrap();
    std::fs::set_permissions(source.join("sub/secret"), std::fs::Permissions::from_mode(0o000)).unwrap();
    let mut command = machine.command(["backup"]);
    let ran = Ran::of(as_nobody(command.arg(&source))).expect_code(3);
    ran.expect_err(&["sub/secret"]);
    let json = Ran::of(as_nobody(machine.command(["backup", "--json"]).arg(&source))).expect_code(3);
    assert_eq!((&json.json()["state"], &json.json()["errors"]), (&"partial".into(), &1.into()));
    assert!(json.err().contains("\"item\":"), "{}", json.err());
    let list = machine.run(["snapshots"]).expect_code(0).out();
    assert_eq!(list.matches("partial, 1 error").count(), 2, "{list}");
    // The rest of the point is whole.
    let back = machine.restore("latest", "back");
    assert_eq!(std::fs::read(back.join("open")).unwrap(), b"o");
}

#[test]
fn what_is_already_there_is_treated_as_overwrite_says() {
    let machine = Machine::with_store();
    let source = machine.path("source");
    write(source.join("a"), "point");
    write(source.join("b"), "point");
    let time = |path: &Path, seconds| {
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        std::fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
    };
    time(&source.join("a"), 1_000_000);
    time(&source.join("b"), 1_000_000);
    machine.back_up(&source, &[]);
    // In the target, a is older than the point's and b younger; only the target has c.
    let table: [(&str, &[(&str, &str)]); 4] = [
        ("always", &[("a", "point"), ("b", "point"), ("c", "mine")]),
        ("never", &[("a", "mine"), ("b", "mine"), ("c", "mine")]),
        ("if-newer", &[("a", "point"), ("b", "mine"), ("c", "mine")]),
        ("keep-both", &[("a", "mine"), ("b", "mine"), ("c", "mine")]),
    ];
    for (policy, expected) in table {
        let target = machine.path(policy);
        for (name, seconds) in [("a", 500_000), ("b", 2_000_000), ("c", 3)] {
            write(target.join(name), "mine");
            time(&target.join(name), seconds);
        }
        let before = paths(&target);
        let restore = |options: &[&str]| {
            let mut command = machine.command(["restore", "latest", "--overwrite", policy, "--target"]);
            Ran::of(command.arg(&target).args(options)).expect_code(0)
        };
        restore(&["--dry-run"]);
        assert_eq!(paths(&target), before, "{policy}");
        restore(&[]);
        for (name, content) in expected {
            assert_eq!(std::fs::read_to_string(target.join(name)).unwrap(), *content, "{policy} {name}");
        }
        let others = paths(&target).len() - 3;
        assert_eq!(others, if policy == "keep-both" { 2 } else { 0 }, "{policy}: {:?}", paths(&target));
    }
}

#[test]
fn a_file_that_changes_in_its_middle_is_restored_as_it_was_at_each_point() {
    let machine = Machine::with_store();
    let source = machine.path("source");
    let mut content = noise("changes", 3_000_000);
    write(source.join("file"), &content);
    machine.back_up(&source, &[]);
    let file = std::fs::File::options().write(true).open(source.join("file")).unwrap();
    file.write_all_at(b"changed", 1_500_000).unwrap();
    let second = machine.back_up(&source, &[]);
    let added = second["data_added"].as_u64().unwrap();
    assert!(added > 0 && added < 3_000_000, "{second}");
    let read = |point: &str, name: &str| std::fs::read(machine.restore(point, name).join("file")).unwrap();
    assert!(read("latest~1", "before") == content);
    content[1_500_000..1_500_007].copy_from_slice(b"changed");
    assert!(read("latest", "after") == content);
}

#[test]
fn a_store_with_the_sounder_chunker_keeps_and_gives_back_what_is_in_it_and_stores_an_insertion_alone() {
    let machine = Machine::recovering();
    let mut init = machine.command(["init", "--chunker", "rabin-aes", "--sheet", "sheet"]);
    Ran::of(init.env("HOLDFAST_PASSWORD", PASSPHRASE)).expect_code(0);
    let (source, mut large) = (machine.path("source"), noise(3, 24 << 20));
    write(source.join("large"), &large);
    write(source.join("zeros"), vec![0; 9 << 20]);
    write(source.join("small"), "a few bytes");
    machine.back_up(&source, &[]);
    large.splice(7_000_000..7_000_000, *b"an insertion");
    write(source.join("large"), &large);
    let summary = machine.back_up(&source, &[]);
    let added = summary["data_added"].as_u64().unwrap();
    assert!(added > 100 << 10 && added < 9 << 20, "{summary}");
    let point = summary["snapshot_id"].as_str().unwrap();
    compare(&source, &machine.restore(point, "back")).assert_none();
    machine.run(["check", "--read-data"]).expect_code(0);
}
