//! How far the kernel reads ahead on a mount.
//!
//! It is 128 KiB by itself, as much as one frame holds, and the handshake can only lower it. Twice as much lets a frame be decoded while the one
//! before it is copied and used: `dd` of a large file gains a seventh. Beyond that there is little more for it, and whoever maps a file and touches it
//! here and there has as much decoded at each fault.

use std::fs;
use std::io;
use std::path::Path;

/// Where the kernel keeps it for each device that is mounted, in KiB. Root may write there, unless `/sys` is for reading only, as in containers.
const DEVICES: &str = "/sys/class/bdi";

const KIB: u32 = 256;

/// Raises it for the mount on the device of this minor number; more, as the machine's rules may have set, stays.
pub fn raise(minor: u32) -> io::Result<()> {
    raise_in(Path::new(DEVICES), minor)
}

fn raise_in(devices: &Path, minor: u32) -> io::Result<()> {
    let path = devices.join(format!("0:{minor}/read_ahead_kb"));
    let so_far = fs::read_to_string(&path)?;
    match so_far.trim().parse::<u32>() {
        Ok(kib) if kib >= KIB => Ok(()),
        _ => fs::write(&path, KIB.to_string()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn it_is_raised_and_never_lowered() {
        let devices = tempfile::tempdir().unwrap();
        assert!(raise_in(devices.path(), 41).is_err());
        let file = devices.path().join("0:41/read_ahead_kb");
        fs::create_dir(devices.path().join("0:41")).unwrap();
        for (so_far, then) in [("128\n", "256"), ("0\n", "256"), ("4096\n", "4096\n")] {
            fs::write(&file, so_far).unwrap();
            raise_in(devices.path(), 41).unwrap();
            assert_eq!(fs::read_to_string(&file).unwrap(), then);
        }
    }
}
