//! Programs that know nothing of the mount, at work in place.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{assert_same, probe, sh, shell, sorted};
use crate::roundtrip::nasty;
use crate::testkit::{Machine, can_mount, noise, skip};

/// Bytes of the file that is mapped.
const MAPPED: usize = 24 << 20;

/// Random stretches that are compared.
const STRETCHES: &str = "20000";

/// Whether a program is there; else it says, visibly, that the test is left out.
fn has(program: &str, test: &str) -> bool {
    let found =
        Command::new("sh").args(["-c", &format!("command -v {program} >/dev/null")]).status().unwrap();
    if !found.success() {
        skip(test, &format!("there is no {program}"));
    }
    found.success()
}

/// A machine with a point of what `script` makes in an empty directory: the machine, that directory and the point's id.
fn machine_with(script: &str) -> (Machine, PathBuf, String) {
    let machine = Machine::with_store();
    let source = machine.path("source");
    std::fs::create_dir(&source).unwrap();
    sh(&source, script, &[]);
    let made = machine.back_up(&source, &[]);
    (machine, source, made["snapshot_id"].as_str().unwrap().to_owned())
}

#[test]
fn rsync_finds_no_difference_in_either_direction() {
    if !can_mount("rsync_finds_no_difference_in_either_direction") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-rsync", &[]);
    let point = mount.point(&nasty.point);
    // Paths below `deep` are longer than rsync takes, the huge hole longer than a person waits.
    for options in ["--exclude /deep", "--exclude /deep --exclude /sparse/huge --checksum"] {
        let script = format!("rsync -naHAXS --itemize-changes --delete {options} \"$1\"/ \"$2\"/");
        for [from, to] in [[&nasty.source, &point], [&point, &nasty.source]] {
            let listed = sh(Path::new("/"), &script, &[from, to]);
            assert_eq!(listed.escape_ascii().to_string(), "", "{options} {}", from.display());
        }
    }
}

#[test]
fn tar_find_and_grep_see_what_is_at_the_source() {
    if !can_mount("tar_find_and_grep_see_what_is_at_the_source") {
        return;
    }
    let nasty = nasty();
    let mount = nasty.machine.mount("mount-tools", &[]);
    let point = mount.point(&nasty.point);
    let compare = "tar --exclude ./deep --exclude ./sparse/huge --exclude ./special/socket -S --acls --xattrs -cf - . | tar -C \"$1\" --acls --xattrs -df -";
    for [archived, compared] in [[&nasty.source, &point], [&point, &nasty.source]] {
        let said = shell(archived, compare, &[compared]).expect_code(0);
        assert_eq!((said.out().as_str(), said.err().as_str()), ("", ""), "{}", archived.display());
    }
    for script in [
        "grep -r -c . acl big links names sizes times xattr",
        "grep -rl 1 big sizes",
        "find . -perm /7000 -o -links +2 -o -empty -o -uid 1234 -o -newermt 2030-01-01 -o ! -newermt 2000-01-01",
        "ls -ARln --time-style=full-iso acl big links modes names special times xattr | sed -E 's/^total .*//; s/ +/ /g; s/^(d[^ ]+ [0-9]+ [0-9]+ [0-9]+) [0-9]+/\\1/'",
        "find sizes big names -type f -print0 | sort -z | xargs -0 sha256sum",
    ] {
        let [source, mounted] = [&nasty.source, &point].map(|root| sorted(&sh(root, script, &[]), b"\n"));
        assert!(source.len() > 4, "{script}: {source:?}");
        assert_same(script, &source, &mounted);
    }
}

#[test]
fn sqlite_reads_databases_in_place() {
    if !can_mount("sqlite_reads_databases_in_place") || !has("sqlite3", "sqlite_reads_databases_in_place") {
        return;
    }
    let (machine, source, id) = machine_with(
        "rows='create table t(a primary key, b); with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
            insert into t select i, printf(\"%0200d\", i * i) from n; create index i on t(b);'
        sqlite3 plain.db \"$rows\" && sqlite3 wal.db \"pragma journal_mode = wal; $rows\" && ls",
    );
    let mount = machine.mount("recovery", &[]);
    let point = mount.point(&id);
    let ask = "pragma integrity_check; select count(*), sum(a), max(b) from t; select a from t order by b desc limit 3;";
    for (database, mapped) in [
        ("-readonly plain.db", ""),
        ("-readonly plain.db", "pragma mmap_size = 100000000; "),
        ("'file:plain.db?immutable=1'", ""),
        ("'file:wal.db?immutable=1'", "pragma mmap_size = 100000000; "),
    ] {
        let script = format!("sqlite3 {database} '{mapped}{ask}' | grep -v '^100000000$'");
        let said = String::from_utf8(sh(&point, &script, &[])).unwrap();
        assert!(said.starts_with("ok\n20000|200010000|"), "{database}: {said}");
        assert_eq!(said.as_bytes(), sh(&source, &script, &[]), "{database}");
    }
    let refused = shell(&point, "sqlite3 plain.db 'delete from t'", &[]);
    assert!(refused.code() != 0 && refused.err().contains("readonly"), "{}", refused.err());
}

#[test]
fn git_works_in_a_repository_in_place() {
    if !can_mount("git_works_in_a_repository_in_place") || !has("git", "git_works_in_a_repository_in_place") {
        return;
    }
    let (machine, source, id) = machine_with(
        "git init -q . && git config user.name A && git config user.email a@example.invalid && mkdir -p d/e && ln -s d link
        for n in 1 2 3 4 5 6 7 8 9; do seq $n 3000 > d/e/$n; seq $n > $n; git add . && git commit -qm \"commit $n\"; done
        git gc -q && echo loose > loose && git add loose && git commit -qm loose && git tag -a -m t v1
        echo changed > 3 && echo untracked > untracked && rm 4",
    );
    let mount = machine.mount("recovery", &[]);
    let point = mount.point(&id);
    for script in [
        "git status --porcelain",
        "git fsck --full --strict --no-progress 2>&1",
        "git log --stat --format='%H %s'",
        "git diff; git diff --cached; git stash list",
        "git grep -c 29",
        "git archive HEAD | sha256sum",
        "git clone -q . \"$1\" && cd \"$1\" && git log --format=%H && rm -rf \"$1\"",
    ] {
        let clone = machine.path("clone");
        let [source, mounted] = [&source, &point].map(|root| sh(root, script, &[&clone]));
        assert_eq!(String::from_utf8_lossy(&source), String::from_utf8_lossy(&mounted), "{script}");
    }
    assert_eq!(sh(&point, "git status --porcelain", &[]), b" M 3\n D 4\n?? untracked\n");
}

#[test]
fn a_large_file_is_mapped_read_directly_and_read_by_many_at_once() {
    if !can_mount("a_large_file_is_mapped_read_directly_and_read_by_many_at_once") {
        return;
    }
    let machine = Machine::with_store();
    let source = machine.path("source");
    std::fs::create_dir(&source).unwrap();
    let mut content = noise("mapped", MAPPED);
    // Holes are mapped as well, and so is an end that fills no page.
    content[5 << 20..7 << 20].fill(0);
    content.truncate(MAPPED - 1234);
    std::fs::write(source.join("flat"), &content).unwrap();
    sh(&source, "cp --sparse=always flat holey && rm flat", &[]);
    let id = machine.back_up(&source, &[])["snapshot_id"].as_str().unwrap().to_owned();
    let mount = machine.mount("recovery", &[]);
    let (file, original) = (mount.point(&id).join("holey"), source.join("holey"));
    let mapped = || assert_eq!(probe(&[&"mapped", &file, &original, &STRETCHES]), "same");
    std::thread::scope(|scope| {
        (0..3).for_each(|_| drop(scope.spawn(mapped)));
        scope.spawn(|| sh(Path::new("/"), "cat \"$1\" | cmp - \"$2\"", &[&file, &original]));
        scope.spawn(|| {
            let direct = "dd if=\"$1\" bs=256k iflag=direct status=none | cmp - \"$2\"";
            sh(Path::new("/"), direct, &[&file, &original])
        });
    });
}
