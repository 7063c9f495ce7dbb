//! Modules of the program, which is no library, taken in as they are; and the little of the rest of it that they name.

#[path = "../../../src"]
pub mod source {
    pub mod accepted;
    pub mod deleted;
    pub mod point_spec;
    pub mod proven;
    pub mod small_file;
}

#[path = "../../../src/daemon/talk.rs"]
pub mod talk;

pub mod outcome {
    use std::path::Path;

    /// What the program says when it gives up.
    #[derive(Debug)]
    pub struct Failure(pub String);

    impl Failure {
        pub fn usage(text: impl Into<String>) -> Self {
            Self(text.into())
        }

        pub fn failed(text: impl Into<String>) -> Self {
            Self(text.into())
        }

        pub fn io(action: &str, path: &Path, error: &std::io::Error) -> Self {
            Self(format!("cannot {action} {}: {error}", path.display()))
        }

        /// That of what was typed wrongly; no other is asked for.
        pub fn exit_code(&self) -> u8 {
            2
        }

        pub fn hint(self, _: impl Into<String>) -> Self {
            self
        }
    }

    impl From<holdfast_store::StoreError> for Failure {
        fn from(error: holdfast_store::StoreError) -> Self {
            Self(error.to_string())
        }
    }
}

pub mod terminal {
    pub mod text {
        use holdfast_store::clock::Timestamp;

        pub fn count(n: u64, what: &str) -> String {
            format!("{n} {what}{}", if n == 1 { "" } else { "s" })
        }

        pub fn rfc3339(time: Timestamp) -> String {
            format!("{}.{:09}", time.seconds, time.nanos)
        }
    }
}
