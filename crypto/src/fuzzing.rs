//! What is behind a seal that anybody can make, for the fuzz targets.

/// Decodes a keyring's content, which anybody can seal to a public key, and encodes it again if it
/// is one.
pub fn content(bytes: &[u8]) -> Option<Vec<u8>> {
    let content = crate::keyring::decode_content(bytes)?;
    content.encode().ok().map(|bytes| bytes.to_vec())
}
