//! What is wrong with a vault that is not what it was, each kind with a word that programs can rely on, and a way out
//! (`docs/decisions/vault-memory.md`).

use serde::{Deserialize, Serialize};

/// In which way a vault contradicts what was seen of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmKind {
    /// Much of what was there is gone together, or what says that something was removed on purpose is: it is an older state.
    VaultRolledBack,
    /// The newest points of a source are not shown.
    PointWithheld,
    /// A point is gone, newer ones of its source are there, and nothing says that it was removed on purpose.
    PointRemoved,
    /// A point is there of which it was seen that it was removed, or under the name of an attempt that nobody began.
    PointReplayed,
    /// Under the name of a point is another one.
    PointSwapped,
    /// Two points of a source have the same number: two machines take them, or somebody made one up.
    ChainForked,
    /// What a point calls the one before it is not the one that is there.
    ChainBroken,
    /// The config is not the one with which the store was made.
    ConfigSwapped,
    /// A key slot is not the one that it was, or lies under the name of another.
    SlotSwapped,
    /// A key slot that was removed is there again.
    SlotReplayed,
    /// A point is signed by a writer that the store's owner did not admit.
    WriterUnknown,
    /// A signature of a point does not hold, is missing, or is of a writer that may not write its source.
    WriterForged,
}

impl AlarmKind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::VaultRolledBack,
        Self::PointWithheld,
        Self::PointRemoved,
        Self::PointReplayed,
        Self::PointSwapped,
        Self::ChainForked,
        Self::ChainBroken,
        Self::ConfigSwapped,
        Self::SlotSwapped,
        Self::SlotReplayed,
        Self::WriterUnknown,
        Self::WriterForged,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::VaultRolledBack => "vault-rolled-back",
            Self::PointWithheld => "point-withheld",
            Self::PointRemoved => "point-removed",
            Self::PointReplayed => "point-replayed",
            Self::PointSwapped => "point-swapped",
            Self::ChainForked => "chain-forked",
            Self::ChainBroken => "chain-broken",
            Self::ConfigSwapped => "config-swapped",
            Self::SlotSwapped => "slot-swapped",
            Self::SlotReplayed => "slot-replayed",
            Self::WriterUnknown => "writer-unknown",
            Self::WriterForged => "writer-forged",
        }
    }

    /// What a person can do, for the vault of this address.
    pub fn way_out(self, address: &str) -> String {
        let accept = format!("`holdfast vault accept {address}`");
        match self {
            Self::VaultRolledBack => format!(
                "ask who keeps the vault whether it was put back from an older copy; if it was, {accept} names what is lost and goes on with \
                 what is there, and `holdfast vault push` sends again what is still here; if nobody did, do not rely on this vault alone"
            ),
            Self::PointWithheld | Self::PointRemoved => format!(
                "`holdfast vault push` sends it again if it is still here or in another vault; ask who keeps the vault who removed it; {accept} \
                 does without it"
            ),
            Self::PointReplayed => format!(
                "it is one that was removed: `holdfast forget` removes it once more; ask who keeps the vault how it came back; {accept} keeps it"
            ),
            Self::PointSwapped => {
                "whoever keeps the vault exchanged it, or a copy of the vault went wrong: `holdfast vault push` puts the right one there if it is \
                 still here"
                    .to_owned()
            }
            Self::ChainForked => format!(
                "both are kept. If this machine or another one is a copy of one that takes points of the same source (a clone, or a machine put \
                 back from a snapshot), give one of them another host name, or another name for its group, then {accept}; if there is no such \
                 machine, somebody has its key: `holdfast key list`"
            ),
            Self::ChainBroken => format!(
                "a point was made that does not follow those that are there: see which machine made it (`holdfast snapshots --json`); {accept} \
                 takes it as it is"
            ),
            Self::ConfigSwapped => {
                "put the file `config` of the store's directory in its place there; nothing else can be told of a vault with another one"
                    .to_owned()
            }
            Self::SlotSwapped | Self::SlotReplayed => format!(
                "a passphrase or key that was thought to be gone may open the vault again: remove the object by hand, then {accept}"
            ),
            Self::WriterUnknown | Self::WriterForged => format!(
                "do not recover from it unless you know who made it. If a machine of yours did, `holdfast key own` there, with the passphrase or \
                 the words, lets it sign from now on, and {accept} takes this one as it is; if none did, somebody has a key of the store: \
                 `holdfast forget` removes it, and `holdfast key rotate` makes another key"
            ),
        }
    }
}

/// Something that is wrong with a vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alarm {
    /// In which way.
    pub kind: AlarmKind,
    /// With what of it: ids that stay the same as long as the cause does; empty for the whole vault.
    pub subject: String,
    /// What is wrong, for people.
    pub detail: String,
    /// When it was first seen, in seconds since 1970.
    #[serde(default)]
    pub since: i64,
    /// Whether only who reads what is there can see it: a listing alone does not end it.
    #[serde(default)]
    pub by_reading: bool,
}

impl Alarm {
    /// One that a listing shows.
    pub(crate) fn new(kind: AlarmKind, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { kind, subject: subject.into(), detail: detail.into(), since: 0, by_reading: false }
    }

    /// One that only reading shows.
    pub(crate) fn read(kind: AlarmKind, subject: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { by_reading: true, ..Self::new(kind, subject, detail) }
    }

    /// What tells it from others of the same vault.
    pub fn key(&self) -> String {
        format!("{} {}", self.kind.word(), self.subject)
    }

    /// The word, what is wrong, and what to do.
    pub fn sentence(&self, address: &str) -> String {
        format!("{}: {}; {}", self.kind.word(), self.detail, self.kind.way_out(address))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_kind_has_a_word_of_its_own_which_is_also_how_it_is_written() {
        let words: std::collections::BTreeSet<_> = AlarmKind::ALL.iter().map(|kind| kind.word()).collect();
        assert_eq!(words.len(), AlarmKind::ALL.len());
        for kind in AlarmKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.word());
            assert!(kind.way_out("/v").len() > 40, "{kind:?} leaves nobody alone");
        }
    }
}
