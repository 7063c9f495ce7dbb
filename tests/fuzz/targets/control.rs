//! What is said over the daemon's socket, and its answers as whoever asked reads them.

use super::program::talk::{Answer, Question};

/// A line of either side.
pub fn question(data: &[u8]) {
    if let Ok(question) = serde_json::from_slice::<Question>(data) {
        let line = serde_json::to_vec(&question).expect("what was read can be said");
        assert_eq!(serde_json::from_slice::<Question>(&line).expect("what was said is understood"), question);
    }
    if let Ok(answer) = serde_json::from_slice::<Answer>(data) {
        let line = serde_json::to_vec(&answer).expect("what was read can be said");
        assert_eq!(serde_json::from_slice::<Answer>(&line).expect("what was said is understood"), answer);
    }
}
