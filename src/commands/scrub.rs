//! `holdfast scrub`: reading again what was written, so that damage is found while another copy heals it.

mod ciphertext;
mod heal;
mod list;
mod rotation;

use clap::Args;
use holdfast_store::scrub::ciphertext::Part;
use holdfast_store::vault::ObjectName;

use super::Context;
use crate::args::values::some_size;
use crate::outcome::Outcome;

pub use rotation::terms_of;

/// Read again what was written, and prove it
///
/// Each time some of the packs of the store's directory and of each vault are read back, opened and hashed: in turn what waits longest
/// for that and what came last, so that all of it is read in thirty days, or as [scrub] in the configuration has it. The daemon does it every
/// night. Damage is named by pack and by the files it touches, and the exit code is 1. What is damaged in one place and whole in another is
/// put right from there, and that is told, too.
///
/// With --ciphertext ADDRESS the objects of a vault, or of a store's directory, are proven by their bytes alone: no key is needed, no
/// store and no configuration, so it can run on a machine beside the vault that must never see what it holds. The name of a pack is the
/// hash of its bytes, so every byte of all packs is proven; of small objects, what is not sealed. What is missing altogether only
/// `holdfast check` can tell, which has the key.
///
/// With --list nothing is read: it says of each pack in each place when its bytes were last proven there, or that it is damaged or
/// missing.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast scrub                                              what is due today, everywhere
  holdfast scrub local --full                                 all of the store's directory
  holdfast scrub azure://ACCOUNT/NAME --max-bytes 5G          of this vault so much, whatever is due
  holdfast scrub --list local                                 when each pack of it was last proven
  holdfast scrub --list --json | jq -c 'select(.state == \"damaged\" or .state == \"missing\")'
  holdfast scrub --ciphertext azure://ACCOUNT/NAME
  holdfast scrub --ciphertext /mnt/usb/vault --part 7/30      each night another part: all of it in a month
  holdfast scrub --ciphertext /mnt/usb/vault --max-bytes 20G --limit-rate 50M")]
pub struct ScrubArgs {
    /// `local`, or the address of a vault of the store; all, if none is named
    #[arg(value_name = "PLACE", conflicts_with = "ciphertext")]
    places: Vec<String>,
    /// Read nothing: list what is known of each pack there
    #[arg(long, conflicts_with_all = ["ciphertext", "full", "no_heal", "max_bytes"])]
    list: bool,
    /// Read all of it, not what is due
    #[arg(long, conflicts_with_all = ["ciphertext", "max_bytes"])]
    full: bool,
    /// Only tell of damage
    #[arg(long, conflicts_with = "ciphertext")]
    no_heal: bool,
    /// Stop before more than so many bytes are read (K, M, G), of each place
    #[arg(long, value_name = "BYTES", value_parser = some_size)]
    max_bytes: Option<u64>,
    /// A vault's address, or the directory of a store, of a vault or of an annex, to be proven without a key
    #[arg(long, value_name = "ADDRESS")]
    ciphertext: Option<String>,
    /// Only one of so many parts of equal size
    #[arg(long, value_name = "N/M", requires = "ciphertext", value_parser = |text: &str| text.parse::<Part>())]
    part: Option<Part>,
    /// Read at most so many bytes a second (K, M, G)
    #[arg(long, value_name = "BYTES", requires = "ciphertext", value_parser = some_size)]
    limit_rate: Option<u64>,
    /// Go on after this object
    #[arg(long, value_name = "OBJECT", requires = "ciphertext", value_parser = object_name)]
    after: Option<ObjectName>,
}

fn object_name(text: &str) -> Result<ObjectName, String> {
    ObjectName::new(text).ok_or_else(|| format!("{text:?} is no name of an object"))
}

/// Scrubs.
pub fn run(context: &Context<'_>, args: &ScrubArgs) -> Outcome {
    match &args.ciphertext {
        Some(address) => ciphertext::run(context, args, address),
        None if args.list => list::run(context, &args.places),
        None => rotation::run(context, args),
    }
}
