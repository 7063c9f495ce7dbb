//! `mount(8)` starts us: for `mount -t fuse.holdfast STORE MNT`, for a line of `/etc/fstab`, for a mount unit.
//!
//! There are two ways here. `mount(8)` runs `/sbin/mount.fuse3`, which finds this program by the type's name behind the dot
//! and calls it as `holdfast STORE MNT -o OPTIONS`. Or this program is linked as `/sbin/mount.holdfast` or
//! `/sbin/mount.fuse.holdfast`, and `mount(8)` calls that as `mount.holdfast STORE MNT [-sfnv] [-t TYPE] -o OPTIONS`. Either
//! is put into the words of `holdfast mount --background`, and this program is started anew with them: so there is one way to
//! mount, and what the options say of places and secrets goes on to the process that serves the mount.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;

use crate::args::Cli;
use crate::outcome::Failure;

/// Options that say what is so anyway, or that are for `mount(8)` and systemd. `rw`, `dev` and `suid` are what they say when
/// nobody said anything; the mount is `ro,nodev,nosuid` whatever they say.
const GRANTED: [&str; 34] = [
    "",
    "defaults",
    "ro",
    "rw",
    "nosuid",
    "suid",
    "nodev",
    "dev",
    "exec",
    "atime",
    "noatime",
    "relatime",
    "norelatime",
    "diratime",
    "nodiratime",
    "strictatime",
    "nostrictatime",
    "lazytime",
    "nolazytime",
    "async",
    "sync",
    "dirsync",
    "auto",
    "noauto",
    "user",
    "nouser",
    "users",
    "owner",
    "group",
    "nofail",
    "_netdev",
    "default_permissions",
    "silent",
    "loud",
];
/// The same with a value behind.
const GRANTED_BEGINNINGS: [&str; 6] = ["x-", "X-", "comment=", "subtype=", "fsname=", "user="];
/// Options whose value goes on in a variable: it holds for the process that serves the mount, too.
const VARIABLES: [(&str, &str); 3] = [
    ("password_file=", "HOLDFAST_PASSWORD_FILE"),
    ("cache_dir=", "HOLDFAST_CACHE_DIR"),
    ("key_dir=", "HOLDFAST_KEY_DIR"),
];
/// Options whose value goes on in an argument.
const ARGUMENTS: [(&str, &str); 3] =
    [("cache_size=", "--cache-size"), ("memory=", "--memory"), ("read_timeout=", "--read-timeout")];
/// Options that are one.
const FLAGS: [(&str, &str); 2] = [("allow_other", "--allow-other"), ("noexec", "--no-exec")];

/// What `mount(8)` asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Call {
    source: OsString,
    mountpoint: OsString,
    options: Vec<OsString>,
    /// `-f`: all but the mounting itself.
    fake: bool,
    /// `-s`: options that nobody knows are no error.
    sloppy: bool,
    /// `-v`.
    verbose: bool,
}

/// How to start this program so that it mounts.
#[derive(Debug, Default, PartialEq, Eq)]
struct Start {
    args: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
}

/// Mounts, if that is how this process was started: then it comes back only with what went wrong, or with `Ok` if there was
/// nothing to do. `None` if a person or a script typed a verb.
pub fn run(args: &[OsString]) -> Option<Result<(), Failure>> {
    let words = words_of_helper(args)?;
    Some(Call::parse(words).and_then(|call| {
        let start = call.start()?;
        if call.fake { Ok(()) } else { Err(start.exec()) }
    }))
}

/// What stands behind the name, if the name or what is behind it tells that `mount(8)` is behind this.
fn words_of_helper(args: &[OsString]) -> Option<&[OsString]> {
    let (program, words) = args.split_first()?;
    let name = Path::new(program).file_name().unwrap_or_default();
    if name.as_bytes().starts_with(b"mount.") {
        return Some(words);
    }
    match words {
        [source, _, option, _] if option == "-o" && !is_ours(source) => Some(words),
        _ => None,
    }
}

/// Whether a person typed this first: a verb or an option.
fn is_ours(word: &OsStr) -> bool {
    let verb = |name: &str| Cli::command().find_subcommand(name).is_some() || name == "help";
    word.as_bytes().starts_with(b"-") || word.to_str().is_some_and(verb)
}

impl Call {
    fn parse(words: &[OsString]) -> Result<Self, Failure> {
        let mut call = Self::default();
        let mut places = Vec::new();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match word.as_bytes() {
                b"-o" => call.options.extend(words.next().into_iter().flat_map(|list| split(list))),
                // The type is known, or this program would not have been found.
                b"-t" => drop(words.next()),
                [b'-', letters @ ..] if !letters.is_empty() => call.switch(letters, word)?,
                _ => places.push(word.clone()),
            }
        }
        match <[OsString; 2]>::try_from(places) {
            Ok([source, mountpoint]) => Ok(Self { source, mountpoint, ..call }),
            Err(_) => Err(refuse("it takes a store and a mountpoint")),
        }
    }

    fn switch(&mut self, letters: &[u8], word: &OsStr) -> Result<(), Failure> {
        for letter in letters {
            match letter {
                b'f' => self.fake = true,
                b's' => self.sloppy = true,
                b'v' => self.verbose = true,
                // There is no mtab.
                b'n' => {}
                _ => return Err(refuse(&format!("{} is not known", word.to_string_lossy()))),
            }
        }
        Ok(())
    }

    fn start(&self) -> Result<Start, Failure> {
        let mut start = Start::default();
        let mut store = self.source.clone();
        for option in &self.options {
            let known = start.take(option);
            match option.as_bytes().strip_prefix(b"store=") {
                Some(dir) => store = OsStr::from_bytes(dir).to_owned(),
                None if known || self.sloppy => {}
                None => {
                    let option = option.to_string_lossy();
                    return Err(refuse(&format!("the option {option} is not known")));
                }
            }
        }
        let begin = ["--store".into(), store, "mount".into(), "--background".into()];
        let quiet = (!self.verbose).then(|| "--quiet".into());
        let end = quiet.into_iter().chain(["--".into(), self.mountpoint.clone()]);
        start.args = begin.into_iter().chain(std::mem::take(&mut start.args)).chain(end).collect();
        Ok(start)
    }
}

impl Start {
    /// Takes an option, if it is known.
    fn take(&mut self, option: &OsStr) -> bool {
        let value = |name: &str| {
            option.as_bytes().strip_prefix(name.as_bytes()).map(|value| OsStr::from_bytes(value).to_owned())
        };
        if let Some((variable, value)) = VARIABLES.iter().find_map(|(name, to)| Some((*to, value(name)?))) {
            self.variables.push((variable, value));
        } else if let Some((argument, value)) =
            ARGUMENTS.iter().find_map(|(name, to)| Some((*to, value(name)?)))
        {
            self.args.extend([argument.into(), value]);
        } else if let Some((_, flag)) = FLAGS.iter().find(|(name, _)| option == *name) {
            self.args.push(flag.into());
        } else {
            return GRANTED.iter().any(|granted| option == *granted)
                || GRANTED_BEGINNINGS.iter().any(|beginning| value(beginning).is_some());
        }
        true
    }

    /// Becomes the program with these words; comes back only if that fails.
    fn exec(self) -> Failure {
        let program = std::env::current_exe().unwrap_or_else(|_| "holdfast".into());
        let error = Command::new(&program).args(self.args).envs(self.variables).exec();
        Failure::io("start", &program, &error)
    }
}

/// Options between commas; one that holds a comma or a backslash has a backslash before it.
fn split(list: &OsStr) -> Vec<OsString> {
    let mut options = vec![Vec::new()];
    let mut bytes = list.as_bytes().iter();
    while let Some(byte) = bytes.next() {
        match (byte, options.last_mut()) {
            (b',', _) => options.push(Vec::new()),
            (b'\\', Some(option)) => option.extend(bytes.next()),
            (other, Some(option)) => option.push(*other),
            (_, None) => {}
        }
    }
    options.into_iter().map(OsString::from_vec).collect()
}

fn refuse(what: &str) -> Failure {
    Failure::usage(format!("as a helper of mount(8): {what}")).hint(
        "STORE MNT -o store=DIR,password_file=FILE,cache_dir=DIR,key_dir=DIR,cache_size=SIZE,memory=SIZE,read_timeout=SECONDS,\
         allow_other,noexec; ro, nosuid, nodev and what is for mount(8) alone may stand there, too",
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    fn start(line: &str) -> Result<Start, Failure> {
        let args = words(line);
        Call::parse(words_of_helper(&args).unwrap()).and_then(|call| call.start())
    }

    fn args(line: &str) -> String {
        start(line).unwrap().args.join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn what_mount_says_becomes_what_a_person_would_say() {
        let table = [
            ("holdfast /srv/store /mnt -o dev,suid", "--store /srv/store mount --background --quiet -- /mnt"),
            ("mount.holdfast /srv/store /mnt", "--store /srv/store mount --background --quiet -- /mnt"),
            (
                "/sbin/mount.fuse.holdfast /s /mnt -nv -t fuse.holdfast -o rw,allow_other,x-systemd.automount,noexec",
                "--store /s mount --background --allow-other --no-exec -- /mnt",
            ),
            (
                "holdfast none /mnt -o ro,store=/s,nofail,_netdev,cache_size=5G,memory=1G,read_timeout=2m",
                "--store /s mount --background --cache-size 5G --memory 1G --read-timeout 2m --quiet -- /mnt",
            ),
            ("mount.holdfast /s /mnt -s -o nonsense", "--store /s mount --background --quiet -- /mnt"),
        ];
        for (line, expected) in table {
            assert_eq!(args(line), expected, "{line}");
            let typed = [vec!["holdfast".into()], start(line).unwrap().args].concat();
            assert!(<Cli as clap::Parser>::try_parse_from(typed).is_ok(), "{line}");
        }
    }

    #[test]
    fn places_and_secrets_go_on_to_the_process_that_serves() {
        let start =
            start("holdfast /s /mnt -o password_file=/etc/p,cache_dir=/fast\\,er,key_dir=/k").unwrap();
        let expected = [
            ("HOLDFAST_PASSWORD_FILE", "/etc/p"),
            ("HOLDFAST_CACHE_DIR", "/fast,er"),
            ("HOLDFAST_KEY_DIR", "/k"),
        ];
        assert_eq!(start.variables, expected.map(|(name, value)| (name, value.into())));
    }

    #[test]
    fn what_cannot_be_granted_is_refused_and_the_way_out_is_named() {
        for line in [
            "holdfast /s /mnt -o uid=1000",
            "mount.holdfast /s /mnt -o remount,ro",
            "mount.holdfast /s",
            "mount.holdfast /s /mnt -N ns",
        ] {
            let failure = start(line).unwrap_err();
            assert_eq!(failure.exit_code(), 2, "{line}");
            assert!(failure.hint.unwrap().contains("password_file=FILE"), "{line}");
        }
    }

    #[test]
    fn what_a_person_types_is_none_of_its_business() {
        for line in [
            "holdfast",
            "holdfast mount /mnt",
            "holdfast restore latest -o x",
            "holdfast -o a -o b",
            "holdfast help a -o b",
        ] {
            assert_eq!(words_of_helper(&words(line)), None, "{line}");
        }
    }

    #[test]
    fn a_rehearsal_mounts_nothing_and_still_looks_at_the_options() {
        assert!(matches!(run(&words("mount.holdfast /s /mnt -f")), Some(Ok(()))));
        assert!(matches!(run(&words("mount.holdfast /s /mnt -f -o nonsense")), Some(Err(_))));
    }
}
