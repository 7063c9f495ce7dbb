//! `ls`, `find`, `diff`, `dump`, `stats`.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::process::{Command, Stdio};

use super::Stored;
use crate::testkit::noise;

/// A name that is not UTF-8.
const RAW: &[u8] = b"raw\xff\xfe name";

fn odd_tree(stored: &Stored) {
    let src = stored.path("src");
    std::fs::create_dir_all(src.join("dir/deep")).unwrap();
    std::fs::write(src.join("dir/deep/report.txt"), "a report\n").unwrap();
    std::fs::write(src.join("-n"), "dash").unwrap();
    std::fs::write(src.join("new\nline"), "two lines").unwrap();
    std::fs::write(src.join("\u{2603} snow.JPG"), noise(1, 300_000)).unwrap();
    std::fs::write(src.join(OsStr::from_bytes(RAW)), "raw").unwrap();
    std::fs::hard_link(src.join("-n"), src.join("dir/second name")).unwrap();
    symlink("deep/report.txt", src.join("dir/link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, src.join("pipe"), rustix::fs::Mode::from_raw_mode(0o600)).unwrap();
    let sparse = std::fs::File::create(src.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 1 << 20).unwrap();
    std::fs::set_permissions(src.join("dir/deep"), std::fs::Permissions::from_mode(0o2750)).unwrap();
    let long = src.join("dir").join("n".repeat(200));
    std::fs::write(&long, "long name").unwrap();
    if let Err(error) = rustix::fs::lsetxattr(&long, "user.a=b", b"\0\xff\n", rustix::fs::XattrFlags::empty())
    {
        // Not every file system on which tests run has any.
        assert_eq!(error, rustix::io::Errno::OPNOTSUPP);
    }
}

#[test]
fn a_point_of_odd_names_is_listed_found_and_read() {
    let stored = Stored::new();
    odd_tree(&stored);
    stored.backup();
    lists(&stored);
    finds(&stored);
    dumps_files(&stored);
    unpacks_archives(&stored);
    counts(&stored);
}

fn lists(stored: &Stored) {
    let lines = stored.json(&["ls", "latest"]);
    assert_eq!(lines[0]["message_type"], "snapshot");
    assert_eq!(lines[0]["source"], "docs");
    assert_eq!(lines.len(), 1 + 12, "{lines:#?}");
    let at = |path: &str| lines.iter().find(|line| line["path"] == path).unwrap_or_else(|| panic!("{path}"));
    let report = at("dir/deep/report.txt");
    assert_eq!(
        (&report["type"], &report["size"], &report["name"]),
        (&"file".into(), &9.into(), &"report.txt".into())
    );
    assert_eq!(at("dir/deep")["permissions"], "drwxr-s---");
    assert_eq!(at("dir/link")["linktarget"], "deep/report.txt");
    assert_eq!((&at("pipe")["type"], &at("new\nline")["size"]), (&"fifo".into(), &9.into()));
    let raw = at("raw\u{fffd}\u{fffd} name");
    assert_eq!(raw["path_b64"], "cmF3//4gbmFtZQ==");
    let flat = stored.run(["ls", "latest:dir", "--flat"]).expect_code(0).out();
    let expected =
        ["dir/deep", "dir/link", &format!("dir/{}", "n".repeat(200)), "dir/second name"].join("\n");
    assert_eq!(flat, expected + "\n");
    let one = stored.run(["ls", "-l", "latest:dir/deep/report.txt"]).expect_code(0).out();
    assert!(one.starts_with("-rw") && one.ends_with(" dir/deep/report.txt\n"), "{one}");
    let long = stored.run(["ls", "-l", "latest:dir/"]).expect_code(0).out();
    assert!(long.contains(" dir/link -> deep/report.txt\n"), "{long}");
    let missing = stored.run(["ls", "latest:dir/nothing"]).expect_code(1).err();
    assert!(missing.contains("dir/nothing") && missing.contains("holdfast ls"), "{missing}");
}

fn finds(stored: &Stored) {
    let id = stored.points().remove(0);
    let out = stored.run(["find", "report.txt", "*snow*"]).expect_code(0).out();
    assert_eq!(out, format!("{0}:dir/deep/report.txt\n{0}:\u{2603} snow.JPG\n", &id[..8]));
    let found = stored.json(&["find", "-i", "*.jpg"]).remove(0);
    assert_eq!((&found[0]["hits"], &found[0]["snapshot"]), (&1.into(), &id.as_str().into()));
    assert_eq!(found[0]["matches"][0]["type"], "file");
    let only_there = stored.run(["find", "deep/report.txt"]).expect_code(0).out();
    assert_eq!(only_there, "");
    let nothing = stored.json(&["find", "nothing", "--point", "latest"]).remove(0);
    assert_eq!(nothing, serde_json::json!([]));
    stored.run(["find", "[a"]).expect_code(2);
}

fn dumps_files(stored: &Stored) {
    let snow = stored.run(["dump", "latest:\u{2603} snow.JPG"]).expect_code(0);
    assert_eq!(snow.stdout(), noise(1, 300_000));
    let sparse = stored.run(["dump", "latest:sparse"]).expect_code(0);
    assert_eq!((sparse.stdout().len(), &sparse.stdout()[1 << 20..]), ((1 << 20) + 3, &b"end"[..]));
    let raw = [b"latest:", RAW].concat();
    assert_eq!(stored.run([OsStr::new("dump"), OsStr::from_bytes(&raw)]).expect_code(0).out(), "raw");
    for (what, hint) in [("latest", "--archive tar"), ("latest:dir/link", "no file")] {
        assert!(stored.run(["dump", what]).expect_code(2).err().contains(hint));
    }
}

/// What comes out of the archive by the system's tar is what went into the store.
fn unpacks_archives(stored: &Stored) {
    let (src, out) = (stored.path("src"), stored.path("out"));
    std::fs::create_dir(&out).unwrap();
    let mut dump =
        stored.command(["dump", "latest", "--archive", "tar"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut tar = Command::new("tar");
    let tar = tar
        .args(["--xattrs", "--xattrs-include=*", "-xpf", "-", "-C"])
        .arg(&out)
        .stdin(dump.stdout.take().unwrap());
    let unpacked = tar_output(tar);
    assert!(dump.wait().unwrap().success());
    assert_eq!(unpacked, "");
    let same = Command::new("diff").args(["-r", "--no-dereference"]).args([&src, &out]).output().unwrap();
    // diff says of the two pipes that it cannot compare them, and nothing else.
    let said = String::from_utf8_lossy(&same.stdout).into_owned();
    assert!(said.lines().all(|line| line.contains("pipe") && line.contains("fifo")), "{said}");
    let meta = |at: &str| std::fs::symlink_metadata(out.join(at)).unwrap();
    assert_eq!(meta("-n").ino(), meta("dir/second name").ino());
    for at in ["", "-n", "dir/deep", "dir/link", "pipe"] {
        let (theirs, ours) = (std::fs::symlink_metadata(src.join(at)).unwrap(), meta(at));
        assert_eq!((theirs.mode(), theirs.uid()), (ours.mode(), ours.uid()), "{at}");
        assert_eq!((theirs.mtime(), theirs.mtime_nsec()), (ours.mtime(), ours.mtime_nsec()), "{at}");
    }
    let long = format!("dir/{}", "n".repeat(200));
    assert_eq!(xattr(&out.join(&long)), xattr(&src.join(&long)));
    let one = stored.run(["dump", "latest:dir/deep/report.txt", "--archive", "tar"]).expect_code(0);
    // Before the entry itself an extended header of two blocks for the nanoseconds of its time.
    assert_eq!((one.stdout().len() % 512, &one.stdout()[1024..1035]), (0, &b"report.txt\0"[..]));
}

fn xattr(path: &std::path::Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 64];
    let len = rustix::fs::lgetxattr(path, "user.a=b", &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}

fn tar_output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn counts(stored: &Stored) {
    let stats = stored.json(&["stats"]).remove(0);
    assert_eq!(stats["snapshots_count"], 1);
    assert!(stats["total_pack_count"].as_u64() >= Some(1), "{stats}");
    assert!(stats["total_blob_count"].as_u64() >= Some(3), "{stats}");
    assert_eq!(stats["total_stored_size"].as_u64(), Some(stored.pack_bytes("store")));
    assert_eq!((&stats["vault_requests"], &stats["vault_bytes"]), (&0.into(), &0.into()));
    let text = stored.run(["stats"]).expect_code(0).out();
    assert!(text.contains("recovery points   1\n"), "{text}");
}

#[test]
fn a_diff_names_each_change_by_its_kind() {
    let stored = Stored::new();
    let src = stored.path("src");
    for name in ["same", "changed", "gone", "mode", "becomes-dir"] {
        std::fs::write(src.join(name), name).unwrap();
    }
    std::fs::create_dir_all(src.join("becomes-file/inside")).unwrap();
    std::fs::create_dir(src.join("old")).unwrap();
    std::fs::write(src.join("old/a"), "aaaa").unwrap();
    stored.backup();
    std::fs::write(src.join("changed"), "otherwise").unwrap();
    std::fs::remove_file(src.join("gone")).unwrap();
    std::fs::set_permissions(src.join("mode"), std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::remove_file(src.join("becomes-dir")).unwrap();
    std::fs::create_dir(src.join("becomes-dir")).unwrap();
    std::fs::write(src.join("becomes-dir/new"), "new").unwrap();
    std::fs::remove_dir_all(src.join("becomes-file")).unwrap();
    std::fs::write(src.join("becomes-file"), "file").unwrap();
    std::fs::remove_dir_all(src.join("old")).unwrap();
    std::fs::write(src.join("added"), "added").unwrap();
    stored.backup();
    let expected = "+    added\nT    becomes-dir\n+    becomes-dir/new\nT    becomes-file\n-    becomes-file/inside\n\
                    M    changed\n-    gone\nU    mode\n-    old\n-    old/a\n";
    assert_eq!(stored.run(["diff", "latest~1", "latest", "-q"]).expect_code(0).out(), expected);
    let lines = stored.json(&["diff", "latest~1", "latest"]);
    assert_eq!(lines.len(), 11);
    assert_eq!(lines[0], serde_json::json!({"message_type": "change", "path": "added", "modifier": "+"}));
    let sum = lines.last().unwrap();
    assert_eq!((&sum["message_type"], &sum["changed_files"]), (&"statistics".into(), &3.into()));
    assert_eq!((&sum["added"]["paths"], &sum["removed"]["paths"]), (&2.into(), &4.into()));
    // "added", "becomes-dir/new", "becomes-file", "changed" after; "becomes-dir", "changed", "gone", "old/a" before.
    assert_eq!(
        (&sum["added"]["bytes"], &sum["removed"]["bytes"]),
        (&(5 + 3 + 4 + 9).into(), &(11 + 7 + 4 + 4).into())
    );
    let below = stored.run(["diff", "latest~1:becomes-dir", "latest:becomes-dir", "-q"]).expect_code(0).out();
    assert_eq!(below, "T    becomes-dir\n");
    let nothing = stored.run(["diff", "latest", "latest"]).expect_code(0).out();
    assert!(nothing.starts_with("\n0 new (0 B), 0 removed"), "{nothing}");
}
