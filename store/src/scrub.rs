//! Reading again what was written, so that damage is found while another copy heals it.
//!
//! [`ciphertext`] needs nothing but the bytes of a place: no key, no catalog. [`rotation`] chooses what is read next of a place by what the
//! catalog knows of each copy; reading and proving it is [`check::scrub`](crate::check::scrub).

pub mod ciphertext;
pub mod rotation;
