//! Who owns what is restored: by number as at the source, by name on this machine, by rules, or whoever restores.
//!
//! A rule names an owner of the source by name, by number or as `*`, and an owner here by name or number; the first that fits
//! decides. Numbers in ACLs follow the rules that go by number: an ACL holds no names.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_store::tree::Node;

use super::attributes::{ACL_ACCESS, ACL_DEFAULT};

/// The number that stands for "leave as it is".
const LEAVE: u32 = u32::MAX;
/// Entries of an ACL that name somebody: tags of a user and of a group (`linux/posix_acl_xattr.h`).
const ACL_USER: u16 = 0x02;
const ACL_GROUP: u16 = 0x08;

/// A rule that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid owner rule {given:?}: {detail}")]
pub struct OwnerRuleError {
    /// As it was given.
    pub given: String,
    /// What is wrong.
    pub detail: String,
}

/// Users or groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OwnerKind {
    /// Users.
    User,
    /// Groups.
    Group,
}

/// What decides where no rule does.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OwnerDefault {
    /// The number at the source.
    #[default]
    Number,
    /// Whoever has the name here that the owner had at the source; the number where nobody has.
    Name,
    /// Whoever restores.
    Leave,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Anybody,
    Number(u32),
    Name(Vec<u8>),
}

/// Numbers that names have on this machine, if they have one.
type Known = HashMap<(OwnerKind, Vec<u8>), Option<u32>>;

/// Who gets what.
#[derive(Debug, Clone, Default)]
pub struct Owners {
    default: OwnerDefault,
    rules: Vec<(OwnerKind, From, u32)>,
    known: Arc<Mutex<Known>>,
}

impl Owners {
    /// Without rules.
    pub fn new(default: OwnerDefault) -> Self {
        Self { default, ..Self::default() }
    }

    /// Appends the rule `OLD:NEW`.
    pub fn add(&mut self, kind: OwnerKind, rule: &str) -> Result<(), OwnerRuleError> {
        let wrong = |detail: &str| OwnerRuleError { given: rule.to_owned(), detail: detail.to_owned() };
        let (old, new) = rule.split_once(':').ok_or_else(|| wrong("it is not OLD:NEW"))?;
        let (old, new) = (old.trim(), new.trim());
        if old.is_empty() || new.is_empty() {
            return Err(wrong("a side of it is empty"));
        }
        let from = match (old, old.parse()) {
            ("*", _) => From::Anybody,
            (_, Ok(number)) => From::Number(number),
            (name, Err(_)) => From::Name(name.as_bytes().to_vec()),
        };
        let to = match new.parse() {
            Ok(number) => number,
            Err(_) => {
                lookup(kind, new.as_bytes()).ok_or_else(|| wrong("nobody here has the name it ends with"))?
            }
        };
        self.rules.push((kind, from, to));
        Ok(())
    }

    /// Appends the rules of a file: `user OLD:NEW` or `group OLD:NEW` a line; `#` begins a comment.
    pub fn add_lines(&mut self, text: &str) -> Result<(), OwnerRuleError> {
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            match line.split_once(char::is_whitespace) {
                Some(("user", rule)) => self.add(OwnerKind::User, rule.trim())?,
                Some(("group", rule)) => self.add(OwnerKind::Group, rule.trim())?,
                _ => {
                    let detail = "a line begins with `user` or `group`".into();
                    return Err(OwnerRuleError { given: line.to_owned(), detail });
                }
            }
        }
        Ok(())
    }

    /// Gives a node the owners it shall have here. Set-id bits go where the owner is left to be whoever restores.
    pub(super) fn apply(&self, node: &mut Node) {
        if self.rules.is_empty() && self.default == OwnerDefault::Number {
            return;
        }
        node.uid = self.of(OwnerKind::User, node.uid, node.user.as_deref());
        node.gid = self.of(OwnerKind::Group, node.gid, node.group.as_deref());
        if node.uid == LEAVE || node.gid == LEAVE {
            node.mode &= 0o1777;
        }
        for xattr in node.xattrs.iter_mut().filter(|x| x.name == ACL_ACCESS || x.name == ACL_DEFAULT) {
            self.rewrite_acl(&mut xattr.value);
        }
    }

    fn of(&self, kind: OwnerKind, number: u32, name: Option<&[u8]>) -> u32 {
        let fits = |from: &From| match from {
            From::Anybody => true,
            From::Number(from) => *from == number,
            From::Name(from) => Some(from.as_slice()) == name,
        };
        if let Some((_, _, to)) = self.rules.iter().find(|(of, from, _)| *of == kind && fits(from)) {
            return *to;
        }
        match self.default {
            OwnerDefault::Number => number,
            OwnerDefault::Name => name.and_then(|name| self.here(kind, name)).unwrap_or(number),
            OwnerDefault::Leave => LEAVE,
        }
    }

    /// The number of a name on this machine; asked for once.
    fn here(&self, kind: OwnerKind, name: &[u8]) -> Option<u32> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        *known.entry((kind, name.to_vec())).or_insert_with(|| lookup(kind, name))
    }

    /// Version (4 bytes), then entries of tag (2), rights (2) and number (4), all little-endian.
    fn rewrite_acl(&self, value: &mut [u8]) {
        let by_number = |of: OwnerKind, number: u32| {
            let rule = self.rules.iter().find(|(kind, from, _)| *kind == of && *from == From::Number(number));
            rule.map(|(_, _, to)| *to)
        };
        for entry in value.get_mut(4..).unwrap_or_default().chunks_exact_mut(8) {
            let &mut [t0, t1, _, _, a, b, c, d] = entry else { continue };
            let kind = match u16::from_le_bytes([t0, t1]) {
                ACL_USER => OwnerKind::User,
                ACL_GROUP => OwnerKind::Group,
                _ => continue,
            };
            if let (Some(to), Some(number)) =
                (by_number(kind, u32::from_le_bytes([a, b, c, d])), entry.get_mut(4..))
            {
                number.copy_from_slice(&to.to_le_bytes());
            }
        }
    }
}

fn lookup(kind: OwnerKind, name: &[u8]) -> Option<u32> {
    let name = std::str::from_utf8(name).ok()?;
    match kind {
        OwnerKind::User => Some(nix::unistd::User::from_name(name).ok()??.uid.as_raw()),
        OwnerKind::Group => Some(nix::unistd::Group::from_name(name).ok()??.gid.as_raw()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::source::memory::MemorySource;
    use crate::testing::MemoryPoint;
    use holdfast_store::tree::Xattr;

    fn node(uid: u32, user: &str) -> Node {
        let mut source = MemorySource::new();
        let node = source.file(b"f", b"x");
        (node.uid, node.user, node.gid, node.mode) = (uid, Some(user.into()), 7, 0o4755);
        MemoryPoint::of(&source).0.get(b"/f")
    }

    fn mapped(owners: &Owners, mut node: Node) -> (u32, u32, u16) {
        owners.apply(&mut node);
        (node.uid, node.gid, node.mode)
    }

    #[test]
    fn numbers_decide_unless_somebody_says_otherwise() {
        assert_eq!(mapped(&Owners::default(), node(4321, "root")), (4321, 7, 0o4755));
        assert_eq!(mapped(&Owners::new(OwnerDefault::Name), node(4321, "root")), (0, 7, 0o4755));
        assert_eq!(mapped(&Owners::new(OwnerDefault::Name), node(4321, "nobody here")), (4321, 7, 0o4755));
        assert_eq!(mapped(&Owners::new(OwnerDefault::Leave), node(4321, "root")), (LEAVE, LEAVE, 0o755));
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let mut owners = Owners::default();
        owners.add_lines("# who is who\nuser alice:1001\n user 500:root\nuser *:9\ngroup 7:70\n").unwrap();
        assert_eq!(mapped(&owners, node(1, "alice")), (1001, 70, 0o4755));
        assert_eq!(mapped(&owners, node(500, "bob")), (0, 70, 0o4755));
        assert_eq!(mapped(&owners, node(501, "bob")).0, 9);
        for wrong in ["alice", ":1", "a:", "alice:no such name here"] {
            assert!(owners.add(OwnerKind::User, wrong).is_err(), "{wrong}");
        }
        assert!(owners.add_lines("alice:1").is_err());
    }

    #[test]
    fn numbers_in_an_acl_follow_rules_by_number() {
        let entry = |tag: u16, id: u32| [&tag.to_le_bytes()[..], &[7, 0], &id.to_le_bytes()].concat();
        let acl = |user: u32, group: u32| {
            [vec![2, 0, 0, 0], entry(1, LEAVE), entry(2, user), entry(8, group), entry(0x20, LEAVE)].concat()
        };
        let mut owners = Owners::default();
        owners.add(OwnerKind::User, "500:5000").unwrap();
        owners.add(OwnerKind::Group, "600:6000").unwrap();
        let mut node = node(1, "a");
        node.xattrs = vec![Xattr { name: ACL_ACCESS.to_vec(), value: acl(500, 600) }];
        owners.apply(&mut node);
        assert_eq!(node.xattrs[0].value, acl(5000, 6000));
        node.xattrs[0].value.truncate(9);
        owners.apply(&mut node);
    }
}
