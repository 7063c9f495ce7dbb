//! Processes as the kernel tells of them: which there are, what they take, and where they stand.

use std::fmt::Write as _;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::waiting::came;

/// Processes of the program that have `path` among their arguments, without the guards of mounts.
pub fn processes_with(path: &Path) -> Vec<i32> {
    use std::os::unix::ffi::OsStrExt;
    let is_meant = |pid: &i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let has = |wanted: &[u8]| line.split(|byte| *byte == 0).any(|argument| argument == wanted);
        has(path.as_os_str().as_bytes()) && !has(b"guard-mount")
    };
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_meant).collect()
}

/// Waits until no process serves a mount at `path`; else says where its threads stand, so that a hang can be understood.
#[track_caller]
pub fn wait_for_the_end(path: &Path, seconds: u64) {
    if !came(seconds, || processes_with(path).is_empty()) {
        let stand: String = processes_with(path).into_iter().map(threads).collect();
        panic!("the process of {} did not end within {seconds} s:\n{stand}", path.display());
    }
}

/// The threads of a process, with where they stand in the kernel as far as that is told.
fn threads(pid: i32) -> String {
    let mut said = format!("process {pid}\n");
    let of_process = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    for task in std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let of = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let state = state_in(&of("stat")).unwrap_or('?');
        let (id, comm, syscall) = (task.file_name(), of("comm"), of("syscall"));
        let _ = writeln!(
            said,
            "  {} {} {state} in {:?}, call {}",
            id.display(),
            comm.trim(),
            of("wchan"),
            syscall.trim()
        );
        of("stack").lines().for_each(|line| writeln!(said, "    {line}").unwrap());
    }
    said + &of_process("status")
}

/// The state that a `stat` of `/proc` tells: `R`, `S`, `D`, `Z`...
fn state_in(stat: &str) -> Option<char> {
    stat.rsplit_once(") ")?.1.chars().next()
}

/// Whether a process waits in the kernel, in a call whose first argument is a descriptor of `path`.
pub fn stands_in(pid: u32, path: &Path) -> bool {
    let of = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
    // The call's number and its arguments, or `running`.
    let call = of("syscall");
    let first =
        call.split(' ').nth(1).and_then(|hex| u32::from_str_radix(hex.trim_start_matches("0x"), 16).ok());
    let file = first.and_then(|fd| std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok());
    file.as_deref() == Some(path) && matches!(state_in(&of("stat")), Some('S' | 'D'))
}

/// A number out of a file of `/proc` about a process; of sizes, in KiB.
#[track_caller]
pub fn figure(pid: i32, file: &str, name: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// How many descriptors a process has.
pub fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// What the background processes of a machine wrote into their logs.
pub fn logs(cache: &Path) -> String {
    let entries = cache.read_dir().unwrap().map(|entry| entry.unwrap().path());
    let mut logs: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "log")).collect();
    logs.sort();
    logs.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect()
}

/// Has the kernel forget the content of a file, as far as nobody uses it.
pub fn drop_pages(file: &File) -> std::io::Result<()> {
    Ok(rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed)?)
}

#[test]
fn threads_are_told_with_where_they_stand() {
    let mut sleeper = std::process::Command::new("sleep").arg("60").spawn().unwrap();
    let pid = sleeper.id().cast_signed();
    let told = came(10, || {
        let said = threads(pid);
        [" sleep S in ", "VmRSS:"].iter().all(|word| said.contains(word))
            && (!super::is_root() || said.contains("nanosleep"))
    });
    sleeper.kill().unwrap();
    sleeper.wait().unwrap();
    assert!(told);
}
