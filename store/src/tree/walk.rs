//! Reads directories: lookups, listings from any place, whole walks.
use super::*;
/// provisional
pub fn visit(
    _: &dyn ChunkSource,
    _: &Node,
    _: &mut dyn FnMut(&[u8], &Node) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    todo!()
}
