//! `restore`, as scripts and people use it: where to, over what, for whom, again after a death, and read back.

use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Stdio;

use super::Stored;
use crate::compare::compare;
use crate::testkit::{Ran, is_root, noise};

fn write(path: std::path::PathBuf, content: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

fn read(path: std::path::PathBuf) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// Names below a directory that only runs that are not done have.
fn leftovers(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with(".holdfast-restore-") {
            found.push(name);
        } else if entry.file_type().unwrap().is_dir() {
            found.extend(leftovers(&entry.path()));
        }
    }
    found
}

#[test]
fn files_come_back_to_where_they_were_only_when_that_is_said() {
    let stored = Stored::new();
    write(stored.path("src/a/one"), "one");
    write(stored.path("src/a/two"), "two");
    write(stored.path("src/b"), "b");
    stored.backup();
    stored.run(["backup", "src/b", "--as", "single"]).expect_code(0);
    stored.run(["restore", "docs@latest"]).expect_code(2).expect_err(&["--target"]);
    let file = stored.path("src/a/one");
    std::fs::remove_file(&file).unwrap();
    stored.run(["restore", "docs@latest:a/one", "--to-original"]).expect_code(0);
    assert_eq!(read(file), "one");
    std::fs::remove_dir_all(stored.path("src")).unwrap();
    stored.run(["restore", "docs@latest:a", "--to-original"]).expect_code(0);
    assert_eq!(read(stored.path("src/a/two")), "two");
    assert!(!stored.path("src/b").exists());
    let mode = std::fs::metadata(stored.path("src")).unwrap().mode();
    stored.run(["restore", "single@latest", "--to-original"]).expect_code(0);
    assert_eq!(read(stored.path("src/b")), "b");
    assert_eq!(std::fs::metadata(stored.path("src")).unwrap().mode(), mode);
    stored.run(["restore", "docs@latest", "--to-original"]).expect_code(0);
    assert_eq!(read(stored.path("src/a/one")), "one");
    stored.run(["backup", "src", "--as", "far", "--host", "elsewhere"]).expect_code(0);
    let refused = stored.run(["restore", "far@latest", "--to-original"]).expect_code(1);
    refused.expect_err(&["elsewhere", "--allow-other-host"]);
    stored.run(["restore", "far@latest", "--to-original", "--allow-other-host"]).expect_code(0);
}

#[test]
fn a_single_file_leaves_the_directory_around_it_as_it_is() {
    let stored = Stored::new();
    write(stored.path("src/file"), "x");
    stored.backup();
    std::fs::create_dir(stored.path("target")).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o1777);
    std::fs::set_permissions(stored.path("target"), mode).unwrap();
    stored.run(["restore", "latest:file", "--target", "target"]).expect_code(0);
    assert_eq!(std::fs::metadata(stored.path("target")).unwrap().mode() & 0o7777, 0o1777);
}

#[test]
fn nothing_is_restored_into_the_store() {
    let stored = Stored::with_vault();
    write(stored.path("src/x"), "x");
    stored.backup();
    for place in ["store", "store/pack", "store/new/dir", "vault/data"] {
        std::fs::create_dir_all(stored.path("vault/data")).unwrap();
        let ran = stored.run(["restore", "latest", "--target", place]).expect_code(1);
        ran.expect_err(&["belongs to the store"]);
    }
    assert!(!stored.path("store/x").exists() && !stored.path("store/new").exists());
}

#[test]
fn a_dry_run_says_what_it_would_do_and_makes_nothing() {
    let stored = Stored::new();
    write(stored.path("src/new"), "new");
    write(stored.path("src/d/same"), "same");
    write(stored.path("src/d/other"), "from the point");
    stored.backup();
    let plan = |more: &[&str]| {
        let args = ["restore", "latest", "--target", "back", "--dry-run", "-v"];
        let mut lines: Vec<String> =
            stored.run(args.iter().chain(more)).expect_code(0).out().lines().map(str::to_owned).collect();
        let sum = lines.pop().unwrap();
        lines.sort();
        (lines, sum)
    };
    let (lines, sum) = plan(&[]);
    assert_eq!(lines, ["create      d", "create      d/other", "create      d/same", "create      new"]);
    assert!(sum.starts_with("would restore 3 files (21 B) to back in "), "{sum}");
    assert!(!stored.path("back").exists());
    stored.run(["restore", "latest", "--target", "back"]).expect_code(0);
    std::fs::remove_file(stored.path("back/new")).unwrap();
    write(stored.path("back/d/other"), "mine");
    for (policy, word) in
        [("always", "replace"), ("if-newer", "keep"), ("never", "keep"), ("keep-both", "keep both")]
    {
        let (lines, _) = plan(&["--overwrite", policy]);
        let mut expected = vec!["create      new".to_owned(), "same        d/same".into()];
        expected.push(format!("{word:<10}  d/other"));
        expected.sort();
        assert_eq!(lines, expected, "{policy}");
        assert_eq!(read(stored.path("back/d/other")), "mine");
    }
    let lines = stored.json(&["restore", "latest", "--target", "back", "--dry-run"]);
    let entries: Vec<_> = lines.iter().filter(|line| line["message_type"] == "verbose_status").collect();
    assert_eq!(entries.len(), 3, "{lines:?}");
    assert!(entries.iter().any(|line| line["item"] == "d/other" && line["action"] == "replace"));
    let sum = lines.last().unwrap();
    assert_eq!((&sum["files_replaced"], &sum["files_identical"]), (&1.into(), &1.into()), "{sum}");
    assert_eq!(sum["dry_run"], true);
}

#[test]
fn patterns_come_from_files_too() {
    let stored = Stored::new();
    for name in ["a.rs", "b.txt", "sub/c.rs", "sub/d.txt", "sub/e.rs"] {
        write(stored.path("src").join(name), name);
    }
    stored.backup();
    write(stored.path("in"), "# sources\n*.rs\n");
    write(stored.path("out"), "e.*\n");
    let args = ["--include-file", "in", "--exclude-file", "out", "--exclude", "a.rs"];
    stored.run(["restore", "latest", "--target", "back"].iter().chain(&args)).expect_code(0);
    assert!(stored.path("back/sub/c.rs").exists());
    for name in ["a.rs", "b.txt", "sub/d.txt", "sub/e.rs"] {
        assert!(!stored.path("back").join(name).exists(), "{name}");
    }
    write(stored.path("empty"), "# nothing\n");
    let ran = stored.run(["restore", "latest", "--target", "x", "--include-file", "empty"]);
    ran.expect_code(2).expect_err(&["no pattern"]);
}

#[test]
fn reading_back_tells_of_each_difference_and_the_exit_code_does() {
    let stored = Stored::new();
    std::fs::write(stored.path("src/large"), noise(1, 3_000_000)).unwrap();
    write(stored.path("src/small"), "small");
    stored.backup();
    let ran = stored.run(["restore", "latest", "--target", "back", "--verify"]).expect_code(0);
    assert!(ran.out().contains("compared 2 entries in back with the point: no difference"), "{}", ran.out());
    let file = std::fs::File::options().write(true).open(stored.path("back/large")).unwrap();
    let time = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"rot", 2_000_000).unwrap();
    file.set_modified(time).unwrap();
    let only = ["restore", "latest", "--target", "back", "--verify", "--dry-run"];
    let ran = stored.run(only).expect_code(1);
    ran.expect_err(&["large: its content is not that of the point", "1 difference"]);
    let restore = |more: &[&str]| {
        let args = ["restore", "latest", "--target", "back", "--verify"];
        stored.run(args.iter().chain(more))
    };
    // What is told to help does.
    let told = restore(&[]).expect_code(1);
    told.expect_err(&["--checksum, without --dry-run, restores them again"]);
    for keeps in ["never", "if-newer"] {
        let ran = restore(&["--overwrite", keeps, "--checksum"]).expect_code(1);
        ran.expect_err(&["--overwrite always --checksum, without --dry-run, restores them again"]);
    }
    restore(&["--overwrite", "always", "--checksum"]).expect_code(0);
    stored.run(only).expect_code(0);
    stored.run(["restore", "latest", "--target", "none", "--verify", "--dry-run"]).expect_code(1);
}

#[test]
fn owners_are_those_that_were_asked_for() {
    let stored = Stored::new();
    write(stored.path("src/file"), "x");
    stored.run(["restore", "latest", "--target", "x", "--user-map", "nonsense"]).expect_code(2);
    if !is_root() {
        return;
    }
    std::os::unix::fs::chown(stored.path("src/file"), Some(501), Some(502)).unwrap();
    stored.backup();
    write(stored.path("rules"), "# from the old machine\nuser 501:601\ngroup *:602\n");
    let of = |name: &str, options: &[&str]| {
        stored.run(["restore", "latest", "--target", name].iter().chain(options)).expect_code(0);
        let meta = std::fs::metadata(stored.path(name).join("file")).unwrap();
        (meta.uid(), meta.gid())
    };
    assert_eq!(of("plain", &[]), (501, 502));
    assert_eq!(of("numbers", &["--numeric-ids"]), (501, 502));
    assert_eq!(of("nobody", &["--no-owner"]), (0, 0));
    assert_eq!(of("file", &["--owner-map", "rules"]), (601, 602));
    assert_eq!(of("map", &["--user-map", "501:root", "--group-map", "502:7"]), (0, 7));
}

#[test]
fn a_restore_that_is_killed_goes_on_with_the_same_command() {
    let stored = Stored::new();
    for n in 0..40 {
        let path = stored.path(&format!("src/d{n}/file"));
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, noise(n, 400_000)).unwrap();
        std::fs::hard_link(&path, stored.path(&format!("src/d{n}/second"))).unwrap();
    }
    stored.backup();
    for policy in ["always", "never", "if-newer", "keep-both"] {
        // The bound on bytes a second makes sure that it dies in the middle.
        let args = ["restore", "latest", "--target", policy, "--overwrite", policy];
        let mut child = stored.command(args.iter().chain(&["--limit-rate", "4M"]));
        let mut child = child.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        crate::testkit::wait_for("the first directories", 20, || stored.path(policy).join("d1").exists());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(!leftovers(&stored.path(policy)).is_empty(), "{policy}: it died too late to tell");
        stored.run(args).expect_code(0);
        assert_eq!(leftovers(&stored.path(policy)), Vec::<String>::new(), "{policy}");
        compare(&stored.path("src"), &stored.path(policy)).assert_none();
        let sum = stored.json(&args).pop().unwrap();
        assert_eq!(
            (&sum["files_restored"], &sum["files_identical"]),
            (&0.into(), &80.into()),
            "{policy} {sum}"
        );
    }
}

#[test]
fn a_restore_that_is_interrupted_leaves_nothing_half() {
    let stored = Stored::new();
    std::fs::write(stored.path("src/large"), noise(9, 4_000_000)).unwrap();
    stored.backup();
    std::fs::create_dir(stored.path("back")).unwrap();
    let mut child = stored.command(["restore", "latest", "--target", "back", "--limit-rate", "500K"]);
    let child = child.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    crate::testkit::wait_for("the file", 20, || !leftovers(&stored.path("back")).is_empty());
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read_dir(stored.path("back")).unwrap().count(), 0);
    Ran::of(&mut stored.command(["restore", "latest", "--target", "back"])).expect_code(0);
    assert_eq!(std::fs::read(stored.path("back/large")).unwrap(), noise(9, 4_000_000));
}
