//! Who made a point (section 14 of the format): the admission that stands in it. Signatures are not verified here.

use super::fields::{Fields, Read, must};

const BYTES_LIMIT: usize = 8 << 10;
const HOSTS_LIMIT: u8 = 16;

/// What a point says of the machine that signed it.
#[derive(Debug, PartialEq, Eq)]
pub struct Writer {
    pub id: [u8; 16],
    pub owner: [u8; 32],
    pub admitted: i64,
    pub machine: String,
    pub hosts: Vec<String>,
}

impl Writer {
    /// Reads the admission of a point that is signed.
    pub fn read(admission: &[u8], signature: &[u8]) -> Read<Option<Self>> {
        if signature.is_empty() {
            return Ok(None);
        }
        must(signature.len() == 64, "a signature has 64 bytes")?;
        must(admission.len() <= BYTES_LIMIT, "an admission has at most 8 KiB")?;
        let mut fields = Fields::new(admission);
        must(fields.u8()? == 1, "an admission has version 1")?;
        let (owner, key) = (fields.array()?, fields.array::<32>()?);
        let (admitted, machine) = (fields.i64()?, name(&mut fields)?);
        let count = fields.u8()?;
        must(count <= HOSTS_LIMIT, "an admission is for 16 hosts at most")?;
        let hosts = (0..count).map(|_| name(&mut fields)).collect::<Read<_>>()?;
        fields.take(64)?;
        fields.end()?;
        let hash = blake3::hash(&[&b"holdfast writer"[..], &key].concat());
        let id = hash.as_bytes()[..16].try_into().unwrap();
        Ok(Some(Self { id, owner, admitted, machine, hosts }))
    }
}

fn name(fields: &mut Fields<'_>) -> Read<String> {
    let name = String::from_utf8_lossy(fields.bytes8()?).into_owned();
    let is_plain = !name.contains(|c: char| c.is_control() || c == '\u{fffd}');
    must(is_plain, "names are UTF-8 without control characters")?;
    Ok(name)
}
