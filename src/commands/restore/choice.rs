//! Which files are restored, over what, and to whom they belong afterwards.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use holdfast_backup::pattern::{PatternError, Patterns};
use holdfast_backup::restore::{self, OwnerDefault, OwnerKind, OwnerRuleError, Owners};

use crate::outcome::Failure;

/// What to do with a file that is already there and not identical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Overwrite {
    /// Replace it
    Always,
    /// Leave it
    Never,
    /// Replace it if the point's is younger
    IfNewer,
    /// Keep it and put the point's beside it, as NAME.restored
    KeepBoth,
}

impl From<Overwrite> for restore::Overwrite {
    fn from(given: Overwrite) -> Self {
        match given {
            Overwrite::Always => Self::Always,
            Overwrite::Never => Self::Never,
            Overwrite::IfNewer => Self::IfNewer,
            Overwrite::KeepBoth => Self::KeepBoth,
        }
    }
}

/// What of a point is restored.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Which files")]
pub struct ChoiceArgs {
    /// Only what matches this pattern; may be repeated
    #[arg(short, long, value_name = "PATTERN")]
    include: Vec<OsString>,
    /// The same, from a file of patterns, one a line; # begins a comment
    #[arg(long, value_name = "FILE")]
    include_file: Vec<PathBuf>,
    /// Nothing that matches this pattern, also of what --include names; may be repeated
    #[arg(short, long, value_name = "PATTERN")]
    exclude: Vec<OsString>,
    /// The same, from a file of patterns
    #[arg(long, value_name = "FILE")]
    exclude_file: Vec<PathBuf>,
}

impl ChoiceArgs {
    /// What is meant.
    pub fn include(&self) -> Result<Patterns, Failure> {
        patterns(&self.include, &self.include_file)
    }

    /// What is not.
    pub fn exclude(&self) -> Result<Patterns, Failure> {
        patterns(&self.exclude, &self.exclude_file)
    }
}

fn patterns(given: &[OsString], files: &[PathBuf]) -> Result<Patterns, Failure> {
    let mut patterns = Patterns::default();
    let refused = |e: PatternError| Failure::usage(format!("pattern {}: {}", e.pattern, e.detail));
    for pattern in given {
        patterns.add(pattern.as_bytes(), false).map_err(refused)?;
    }
    for file in files {
        let text = std::fs::read(file).map_err(|error| Failure::io("read the patterns in", file, &error))?;
        patterns.add_lines(&text, false).map_err(refused)?;
        if patterns.is_empty() {
            // Nothing to choose by would choose everything.
            return Err(Failure::usage(format!("{} holds no pattern", file.display())));
        }
    }
    Ok(patterns)
}

/// To whom restored files belong.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Owners")]
pub struct OwnerArgs {
    /// Owners by number, as at the source (this is the default)
    #[arg(long, conflicts_with_all = ["owner_names", "no_owner"])]
    numeric_ids: bool,
    /// Owners by name: whoever has the name here; by number where nobody has it
    #[arg(long, conflicts_with = "no_owner")]
    owner_names: bool,
    /// Everything belongs to whoever restores; set-id bits are not set
    #[arg(long)]
    no_owner: bool,
    /// What belonged to the user OLD (a name of the source, a number, or *) belongs to NEW (a name here, or a number); may
    /// be repeated, the first that fits decides
    #[arg(long, value_name = "OLD:NEW")]
    user_map: Vec<String>,
    /// The same for groups
    #[arg(long, value_name = "OLD:NEW")]
    group_map: Vec<String>,
    /// A file of such rules: `user OLD:NEW` or `group OLD:NEW`, one a line
    #[arg(long, value_name = "FILE")]
    owner_map: Vec<PathBuf>,
}

impl OwnerArgs {
    /// The rules.
    pub fn owners(&self) -> Result<Owners, Failure> {
        let mut owners = Owners::new(match self {
            Self { owner_names: true, .. } => OwnerDefault::Name,
            Self { no_owner: true, .. } => OwnerDefault::Leave,
            _ => OwnerDefault::Number,
        });
        let refused = |error: OwnerRuleError| Failure::usage(error.to_string());
        for (kind, rules) in [(OwnerKind::User, &self.user_map), (OwnerKind::Group, &self.group_map)] {
            rules.iter().try_for_each(|rule| owners.add(kind, rule)).map_err(refused)?;
        }
        for file in &self.owner_map {
            let text = std::fs::read_to_string(file)
                .map_err(|error| Failure::io("read the owners in", file, &error))?;
            owners.add_lines(&text).map_err(refused)?;
        }
        Ok(owners)
    }
}
