//! How long verbs wait for a vault.

use std::time::Duration;

use holdfast_store::clock::Deadline;

/// A verb has no deadline of its own: over a slow line an honest answer may take long, and a line that is down for some minutes
/// shall not end the work of hours. A vault that does not answer is tried for five minutes
/// ([`retry_budget`](holdfast_store::transfer::TransferPolicy::retry_budget)), once in a run. After that reads that
/// need it fail at once, and every minute one of them waits five seconds, until it answers. A person who does not want to wait so
/// long presses Ctrl-C.
pub const FOR_A_VAULT: Deadline = Deadline::NEVER;

/// A vault that is asked beside the work, and that the work can do without, answers within this time, or it is left out and told.
pub const SOON: Duration = Duration::from_secs(30);
