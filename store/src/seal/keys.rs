//! The key ring: master keys by generation.

/// Master keys by generation, wiped when dropped.
#[derive(Debug)]
pub struct KeyRing {
    _private: (),
}
