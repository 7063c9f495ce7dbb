//! What holds of any text that might be a name: of an object, of an entry.

use proptest::prelude::*;

use super::*;
use crate::tree::NodeKind;
use crate::tree::page::Page;
use crate::tree::testing::sample_node;

fn named() -> impl Strategy<Value = Named> {
    (0..10u8, any::<[u8; 32]>(), any::<[u8; 16]>(), any::<u8>(), any::<u64>()).prop_map(
        |(kind, long, short, number, n)| {
            let mut tag = [0; 16];
            tag.copy_from_slice(&long[..16]);
            let (tag, point) = (SourceTag(tag), RecoveryPointId(short));
            let attempt = Attempt { point, number };
            match kind {
                0 => Named::Config,
                1 => Named::Slot(SlotId(short)),
                2 => Named::Pack(PackId(long)),
                3 => Named::Index(IndexId(long)),
                4 => Named::Session(attempt),
                5 => Named::Point(tag, attempt),
                6 => Named::Heartbeat(attempt, n),
                7 => Named::Condemned(n),
                8 => Named::Final(n),
                _ => Named::Hold(tag, point),
            }
        },
    )
}

/// The rule for names of objects, said in another way.
fn may_be_object(text: &str) -> bool {
    let mut before = '/';
    let mut part = String::new();
    for c in text.chars().chain(['/']) {
        if c == '/' {
            if before == '/' || part == "." || part == ".." {
                return false;
            }
            part.clear();
        } else if c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c) {
            part.push(c);
        } else {
            return false;
        }
        before = c;
    }
    text.len() <= 255
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_name_that_is_made_is_read_as_what_it_was_made_of(named in named()) {
        prop_assert_eq!(Named::parse(named.name().as_str()), Some(named));
    }

    #[test]
    fn a_made_name_with_one_byte_changed_is_another_or_none(named in named(), at in any::<prop::sample::Index>(), to in "[ -~]") {
        let mut text = named.name().to_string();
        let at = at.index(text.len());
        text.replace_range(at..=at, &to);
        let read = Named::parse(&text);
        prop_assert!(read.is_none_or(|read| read.name().as_str() == text), "{}", text);
        prop_assert_eq!(read == Some(named), text == named.name().as_str());
    }

    #[test]
    fn only_names_of_the_rule_are_names_of_objects(text in "[a-zA-Z0-9._/\\-\\\\\u{e4}\0 ]{0,12}|[a.]{250,260}|(\\.{0,3}/){0,4}") {
        prop_assert_eq!(ObjectName::new(text.as_str()).is_some(), may_be_object(&text), "{:?}", text);
    }

    #[test]
    fn no_entry_of_a_directory_can_lead_out_of_it(name in "[a./\0\u{e4}]{0,4}|[a-c]{253,258}") {
        let node = sample_node(name.as_bytes(), NodeKind::Fifo);
        let leads_nowhere = (1..=255).contains(&name.len()) && name != "." && name != ".."
            && !name.contains('/') && !name.contains('\0');
        let page = Page::Leaf(vec![node]);
        match page.encode() {
            Ok(bytes) => {
                prop_assert!(leads_nowhere, "{:?}", name);
                prop_assert_eq!(Page::parse(&bytes), Ok(page));
            }
            Err(_) => prop_assert!(!leads_nowhere, "{:?}", name),
        }
    }
}
