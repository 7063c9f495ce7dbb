//! What a name means where points are in doubt.
#![allow(clippy::unwrap_used)]

use super::*;
use crate::commands::testing::{doubtful_point, stored_point};

/// Two points of `a`, one of `b`, and those in doubt.
fn points(doubtful: Vec<DoubtfulPoint>) -> Points {
    let readable = vec![stored_point(0x1a, "a", 1), stored_point(0x2a, "b", 2), stored_point(0x3a, "a", 3)];
    Points { readable, doubtful, ..Points::default() }
}

fn found(points: &Points, name: &str) -> Result<u8, String> {
    let spec = parse_spec(OsStr::new(name)).unwrap();
    points.find(&spec.point, &Scope::default()).map(|id| id.0[0]).map_err(|failure| failure.message)
}

#[test]
fn the_beginning_of_an_id_means_no_other_point_while_one_that_begins_so_is_in_doubt() {
    let points = points(vec![doubtful_point(0x1b, None), doubtful_point(0x5b, Some("a"))]);
    assert_eq!(
        found(&points, "1"),
        Err("1 is the beginning of several ids: 1a1a1a1a (a), 1b1b1b1b (in doubt)".to_owned())
    );
    assert_eq!(found(&points, "1a"), Ok(0x1a));
    assert_eq!(found(&points, &"3a".repeat(16)), Ok(0x3a));
    for name in ["5", "5b", &"5b".repeat(16)] {
        let message = found(&points, name).unwrap_err();
        assert!(message.starts_with(&format!("recovery point {} is in doubt", "5b".repeat(16))), "{message}");
    }
    assert_eq!(found(&points, "6"), Err("no recovery point's id begins with 6".to_owned()));
}

#[test]
fn which_point_is_the_newest_is_not_said_while_one_that_may_be_it_is_in_doubt() {
    let (of_a, of_any) = (|| vec![doubtful_point(9, Some("a"))], || vec![doubtful_point(9, None)]);
    let refused = |points: &Points, name: &str| match found(points, name) {
        Err(message) => {
            message.contains(&format!("in doubt: the catalog's row of recovery point {}", "09".repeat(16)))
        }
        Ok(_) => false,
    };
    for name in [
        "latest",
        "latest~2",
        "latest~9",
        "a@latest",
        "a@latest~1",
        "a@latest~2",
        "a@1970-01-02",
        "a@1960-01-01",
    ] {
        assert!(refused(&points(of_a()), name) && refused(&points(of_any()), name), "{name}");
        let nothing = |doubtful| Points { doubtful, ..Points::default() };
        assert!(refused(&nothing(of_a()), name) && refused(&nothing(of_any()), name), "{name}");
    }
    assert_eq!(found(&points(of_a()), "b@latest"), Ok(0x2a));
    assert!(refused(&points(of_any()), "b@latest"));
    let of_an_unknown = || vec![doubtful_point(9, Some("c"))];
    for name in ["a@latest", "a@1970-01-02", "b@latest~1"] {
        assert!(
            refused(&points(of_an_unknown()), name),
            "{name}: it may be of a further source of that name"
        );
    }
    assert!(found(&points(of_a()), "b@latest~1").unwrap_err().contains("back further than the 1"));
    assert_eq!(found(&points(Vec::new()), "latest"), Ok(0x3a));
}

#[test]
fn a_point_in_doubt_that_may_be_in_scope_makes_what_is_read_of_all_partial() {
    let of = |source: &str| ScopeArgs { source: Some(source.into()), ..ScopeArgs::default() };
    let select = |scope: &ScopeArgs, doubtful| scope.select_points(points(doubtful));
    let a = select(&of("a"), vec![doubtful_point(9, Some("a"))]);
    assert_eq!((a.readable.len(), a.doubtful.len(), a.done()), (2, 1, Done::Partial));
    assert_eq!(select(&of("b"), vec![doubtful_point(9, Some("a"))]).done(), Done::Whole);
    assert_eq!(select(&of("b"), vec![doubtful_point(9, None)]).done(), Done::Partial);
    assert_eq!(select(&of("b"), vec![doubtful_point(9, Some("c"))]).done(), Done::Partial);
}
