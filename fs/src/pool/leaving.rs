//! Whether a caller was killed, or asked to end, while it waits for an answer.
//!
//! The kernel lets nobody go whose request was sent: who was killed stays until the answer comes, and who handles Ctrl-C himself
//! hears of it then. The kernel asks for that answer by `FUSE_INTERRUPT`, which the `fuser` crate refuses without telling anybody.
//! So the watchman looks by himself. Other signals do not count: after them a program goes on, and may not expect that
//! a file answers with `EINTR`.

/// The bit of `SIGKILL` in the kernel's masks. Every signal that ends a process becomes it on the way.
const KILL: u64 = 1 << 8;

/// The bits of `SIGHUP`, `SIGINT`, `SIGQUIT` and `SIGTERM`: requests to end that a program may handle.
const REQUESTS: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14;

/// Whether the thread `pid` is to end as soon as it can.
pub(super) fn is_leaving(pid: u32) -> bool {
    // Of 0, and of a thread that has ended, there is nothing to read.
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
    status.is_ok_and(|status| is_to_end(&status))
}

fn is_to_end(status: &str) -> bool {
    let mask = |name: &str| {
        let digits = status.lines().find_map(|line| line.strip_prefix(name));
        digits.and_then(|digits| u64::from_str_radix(digits.trim(), 16).ok()).unwrap_or_default()
    };
    let pending = mask("SigPnd:") | mask("ShdPnd:");
    let heard = mask("SigCgt:") & !mask("SigBlk:");
    pending & KILL != 0 || pending & REQUESTS & heard != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_kill_or_a_request_to_end_that_will_be_heard_counts() {
        let status = |pending: u64, shared: u64, blocked: u64, caught: u64| {
            let masks = [("SigPnd", pending), ("ShdPnd", shared), ("SigBlk", blocked), ("SigCgt", caught)];
            masks
                .iter()
                .fold("Name:\tcat\n".to_owned(), |text, (name, mask)| format!("{text}{name}:\t{mask:016x}\n"))
        };
        let (int, winch) = (1 << 1, 1 << 27);
        assert!(is_to_end(&status(KILL, int, 0, 0)) && is_to_end(&status(0, KILL, 0, 0)));
        assert!(is_to_end(&status(0, int, 0, int)));
        assert!(!is_to_end(&status(0, int, 0, 0)), "ignored");
        assert!(!is_to_end(&status(0, int, int, int)), "blocked");
        assert!(!is_to_end(&status(0, winch, 0, winch)) && !is_to_end(&status(0, 0, KILL, KILL)));
        assert!(!is_to_end("SigPnd:\tno number\n") && !is_to_end(""));
        assert!(!is_leaving(0) && !is_leaving(std::process::id()));
    }
}
