//! `holdfast init`: a new store, its keys, its vaults, and the page that can bring all of it back.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use holdfast_store::format::config::ChunkerKind;

use super::Context;
use crate::create::{NewStore, hand_out_in, make_store};
use crate::outcome::{Done, Outcome};
use crate::places::on_same_disk;
use crate::sheet::SheetFile;

/// Make a new store and its recovery sheet
///
/// Makes a store in the directory of --store, secured by a passphrase, and prints the recovery sheet: the page with 24
/// words that opens the store when passphrase and machine are lost. Print it; it is shown once. This machine gets a key
/// of its own outside the store (mode 0600), so that unattended backups ask for nothing.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  holdfast init --store /srv/holdfast
  holdfast init --vault azure://ACCOUNT/NAME --sheet sheet.pdf
  holdfast init --vault file:///mnt/usb/vault --no-machine-key")]
pub struct InitArgs {
    /// A vault that keeps copies far away; may be repeated
    #[arg(long = "vault", value_name = "URL")]
    vaults: Vec<String>,
    /// Write the recovery sheet to a new file instead of the terminal: a page with a QR code if its name ends with .pdf, else text
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Make no key for this machine
    #[arg(long)]
    no_machine_key: bool,
    /// How files are cut into chunks, for as long as the store lives
    #[arg(long, value_enum, default_value_t = ChunkerArg::Fastcdc)]
    chunker: ChunkerArg,
}

/// A kind of chunker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum ChunkerArg {
    /// Secret, and fast
    Fastcdc,
    /// Secret also from who could watch lengths of chunks, which a vault does not show; takes three times as long to cut
    RabinAes,
}

/// Makes it. The file of the sheet is opened first, and written before a vault is asked for anything: a store whose sheet nobody
/// has would be worth less.
pub fn run(context: &Context<'_>, args: &InitArgs) -> Outcome {
    let path = context.settings.store()?;
    let file = args.sheet.as_deref().map(SheetFile::create).transpose()?;
    let passphrase = context.settings.secrets.new_passphrase(context.terminal)?;
    let new = NewStore {
        dir: path,
        passphrase: Some(&passphrase),
        machine_key: !args.no_machine_key,
        vaults: &args.vaults,
        chunker: match args.chunker {
            ChunkerArg::Fastcdc => ChunkerKind::FastCdc,
            ChunkerArg::RabinAes => ChunkerKind::RabinAes,
        },
    };
    let made = make_store(context, &new)?;
    let told = hand_out_in(context.terminal, &made, path, file)?;
    made.add_vaults(context, path)?;
    made.vaults
        .iter()
        .filter_map(|vault| on_same_disk(path, vault))
        .for_each(|told| context.terminal.warn(&told));
    told.map(|()| Done::Whole)
}
