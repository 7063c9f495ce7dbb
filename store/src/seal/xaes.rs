//! XAES-256-GCM (`c2sp.org/XAES-256-GCM`): AES-256-GCM under nonces of 192 bits, so that random nonces never run out.
//!
//! A message's own AES-256 key comes from the first half of its nonce by two blocks of CMAC-AES256 (NIST SP 800-108r1,
//! counter mode); the second half is the nonce of AES-256-GCM. The CMAC subkey `K1` depends on the key alone and is kept.

use std::fmt;

use aes::cipher::{BlockCipherEncrypt, KeyInit};
use aes::{Aes256, Block};
use aes_gcm::Aes256Gcm;
use aes_gcm::aead::AeadInOut;
use zeroize::{Zeroize, Zeroizing};

/// Length of a key in bytes.
pub const KEY_LEN: usize = 32;
/// Length of a nonce in bytes.
pub const NONCE_LEN: usize = 24;
/// Length of an authentication tag in bytes.
pub const TAG_LEN: usize = 16;

/// The ciphertext, its tag, its additional data, its nonce or the key is not the one it was sealed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BrokenSeal;

/// One expanded key. Wiped when dropped.
pub struct Xaes256Gcm {
    aes: Aes256,
    k1: Zeroizing<[u8; 16]>,
}

impl fmt::Debug for Xaes256Gcm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Xaes256Gcm(secret)")
    }
}

impl Xaes256Gcm {
    /// Expands a key.
    pub fn new(key: &[u8; KEY_LEN]) -> Self {
        let aes = Aes256::new(key.into());
        let mut l = Block::default();
        aes.encrypt_block(&mut l);
        let k1 = Zeroizing::new(double(l.into()));
        l.zeroize();
        Self { aes, k1 }
    }

    /// Encrypts `buffer` where it stands and returns the tag.
    ///
    /// # Panics
    /// When `buffer` has 64 GiB or more.
    pub fn seal_in_place(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], buffer: &mut [u8]) -> [u8; TAG_LEN] {
        let (cipher, rest) = self.message_cipher(nonce);
        let tag = cipher.encrypt_inout_detached(&rest.into(), aad, buffer.into());
        tag.expect("a message is shorter than 64 GiB").into()
    }

    /// Verifies the tag, then decrypts `buffer` where it stands. If the tag does not hold, `buffer` is left as it was.
    pub fn open_in_place(
        &self,
        nonce: &[u8; NONCE_LEN],
        aad: &[u8],
        buffer: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), BrokenSeal> {
        let (cipher, rest) = self.message_cipher(nonce);
        cipher.decrypt_inout_detached(&rest.into(), aad, buffer.into(), tag.into()).map_err(|_| BrokenSeal)
    }

    /// The cipher of one message, and its 96-bit nonce.
    fn message_cipher(&self, nonce: &[u8; NONCE_LEN]) -> (Aes256Gcm, [u8; 12]) {
        let (mut context, mut rest) = ([0; 12], [0; 12]);
        context.copy_from_slice(&nonce[..12]);
        rest.copy_from_slice(&nonce[12..]);
        (Aes256Gcm::new((&*self.message_key(&context)).into()), rest)
    }

    /// `AES(M1 xor K1) ‖ AES(M2 xor K1)` with `Mi = 0 ‖ i ‖ "X" ‖ 0 ‖ first half of the nonce`.
    fn message_key(&self, context: &[u8; 12]) -> Zeroizing<[u8; KEY_LEN]> {
        let mut key = Zeroizing::new([0; KEY_LEN]);
        for (counter, half) in (1u8..).zip(key.chunks_exact_mut(16)) {
            let mut block = Block::default();
            block[..4].copy_from_slice(&[0, counter, b'X', 0]);
            block[4..].copy_from_slice(context);
            for (byte, k) in block.iter_mut().zip(self.k1.iter()) {
                *byte ^= k;
            }
            self.aes.encrypt_block(&mut block);
            half.copy_from_slice(&block);
            block.zeroize();
        }
        key
    }
}

/// Doubling in GF(2^128) as CMAC does it (NIST SP 800-38B, section 6.1), without a branch on the secret.
fn double(l: [u8; 16]) -> [u8; 16] {
    let value = u128::from_be_bytes(l);
    let reduction = 0x87 & 0u128.wrapping_sub(value >> 127);
    (value << 1 ^ reduction).to_be_bytes()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use sha3::Shake128;
    use sha3::digest::{ExtendableOutput, Update, XofReader};

    use super::*;
    use crate::id::{from_hex, to_hex};

    const NONCE: &[u8; NONCE_LEN] = b"ABCDEFGHIJKLMNOPQRSTUVWX";

    /// Key byte, additional data, `K1`, message key, ciphertext and tag, as the specification prints them. In the
    /// first the top bit of `L` is clear, in the second it is set.
    const PUBLISHED: [(u8, &[u8], &str, &str, &str); 2] = [
        (
            1,
            b"",
            "e531954aca063d5b8d9c47a47d4cc6f0",
            "c8612c9ed53fe43e8e005b828a1631a0bbcb6ab2f46514ec4f439fcfd0fa969b",
            "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271",
        ),
        (
            3,
            b"c2sp.org/XAES-256-GCM",
            "23810ec50edb99f374409466ed1f4b7b",
            "e9c621d4cdd9b11b00a6427ad7e559aeedd66b3857646677748f8ca796cb3fd8",
            "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d",
        ),
    ];

    #[test]
    fn the_published_vectors_hold_with_every_step_on_the_way() {
        for (key_byte, aad, k1, message_key, sealed) in PUBLISHED {
            let xaes = Xaes256Gcm::new(&[key_byte; KEY_LEN]);
            assert_eq!(to_hex(&*xaes.k1), k1);
            assert_eq!(to_hex(&*xaes.message_key(NONCE[..12].try_into().unwrap())), message_key);
            let mut buffer = *b"XAES-256-GCM";
            let tag = xaes.seal_in_place(NONCE, aad, &mut buffer);
            assert_eq!(to_hex(&buffer) + &to_hex(&tag), sealed);
            xaes.open_in_place(NONCE, aad, &mut buffer, &tag).unwrap();
            assert_eq!(&buffer, b"XAES-256-GCM");
        }
    }

    /// The specification's accumulated test: key, nonce, plaintext and additional data of 10,000 messages are read from
    /// SHAKE-128 of nothing, and all ciphertexts are hashed with another SHAKE-128.
    #[test]
    fn ten_thousand_messages_have_the_published_hash() {
        fn take<const N: usize>(stream: &mut impl XofReader) -> [u8; N] {
            let mut bytes = [0; N];
            stream.read(&mut bytes);
            bytes
        }
        fn take_some(stream: &mut impl XofReader) -> Vec<u8> {
            let mut bytes = vec![0; usize::from(take::<1>(stream)[0])];
            stream.read(&mut bytes);
            bytes
        }
        let (mut stream, mut all) = (Shake128::default().finalize_xof(), Shake128::default());
        for _ in 0..10_000 {
            let (key, nonce) = (take(&mut stream), take(&mut stream));
            let (mut buffer, aad) = (take_some(&mut stream), take_some(&mut stream));
            let tag = Xaes256Gcm::new(&key).seal_in_place(&nonce, &aad, &mut buffer);
            all.update(&buffer);
            all.update(&tag);
        }
        let hash: [u8; 32] = take(&mut all.finalize_xof());
        assert_eq!(to_hex(&hash), "e6b9edf2df6cec60c8cbd864e2211b597fb69a529160cd040d56c0c210081939");
    }

    #[test]
    fn nothing_opens_with_one_bit_changed_anywhere() {
        let (key, aad) = ([9u8; KEY_LEN], *b"place");
        let mut sealed = *b"some plain bytes";
        let tag = Xaes256Gcm::new(&key).seal_in_place(NONCE, &aad, &mut sealed);
        let parts: [&[u8]; 5] = [&key, NONCE, &aad, &sealed, &tag];
        let open = |parts: &[Vec<u8>]| {
            let xaes = Xaes256Gcm::new(parts[0].as_slice().try_into().unwrap());
            let (nonce, tag) =
                (parts[1].as_slice().try_into().unwrap(), parts[4].as_slice().try_into().unwrap());
            xaes.open_in_place(nonce, &parts[2], &mut parts[3].clone(), tag)
        };
        let good: Vec<Vec<u8>> = parts.iter().map(|p| p.to_vec()).collect();
        assert_eq!(open(&good), Ok(()));
        for part in 0..parts.len() {
            for bit in 0..parts[part].len() * 8 {
                let mut bad = good.clone();
                bad[part][bit / 8] ^= 1 << (bit % 8);
                assert_eq!(open(&bad), Err(BrokenSeal), "part {part}, bit {bit}");
            }
        }
    }

    #[test]
    fn a_buffer_that_does_not_open_is_left_as_it_was() {
        let mut buffer = from_hex("00112233").unwrap();
        let xaes = Xaes256Gcm::new(&[1; KEY_LEN]);
        assert_eq!(xaes.open_in_place(NONCE, b"", &mut buffer, &[0; TAG_LEN]), Err(BrokenSeal));
        assert_eq!(to_hex(&buffer), "00112233");
    }

    #[test]
    fn a_printed_key_shows_nothing() {
        assert_eq!(format!("{:?}", Xaes256Gcm::new(&[1; KEY_LEN])), "Xaes256Gcm(secret)");
    }
}
