//! What reads bytes of the other end, for the fuzz targets.

use bytes::BytesMut;
use ghostwire_store_core::backend::Row;
use ghostwire_store_core::block::EncodedBlock;

use crate::protocol::{
    Decoder, HEADER, MAX_REQUEST, Request, SelectedRow, Wire, WireError, header,
};

/// Reads a stream of frames, as either end would.
pub fn frames(mut bytes: &[u8]) {
    while let Some((head, rest)) = bytes.split_first_chunk::<HEADER>() {
        let Ok((_, length)) = header(*head) else { return };
        let Some((payload, rest)) = rest.split_at_checked(length) else { return };
        message(payload);
        bytes = rest;
    }
}

/// Reads a payload as each thing that one may be. What is read goes out as it came in.
pub fn message(payload: &[u8]) {
    if let Ok(request) = Request::parse(payload)
        && let Ok(encoded) = request.encode()
        && encoded.len() <= MAX_REQUEST
    {
        assert_eq!(Request::parse(&encoded).ok(), Some(request));
    }
    if let Ok(error) = serde_json::from_slice::<WireError>(payload) {
        let _ = ghostwire_store_core::Error::from(error).to_string();
    }
    decoded::<Row>(payload);
    decoded::<EncodedBlock>(payload);
    decoded::<SelectedRow>(payload);
}

/// However the bytes are cut into frames, the same comes out.
fn decoded<T: Wire + PartialEq + std::fmt::Debug>(payload: &[u8]) {
    let whole = Decoder::<T>::default().push(payload);
    let mut decoder = Decoder::<T>::default();
    let parts = payload.chunks(7).try_fold(Vec::new(), |mut all, part| {
        all.append(&mut decoder.push(part)?);
        Ok::<_, ghostwire_store_core::Error>(all)
    });
    if let (Ok(whole), Ok(parts)) = (whole, parts) {
        assert_eq!(whole, parts);
        let mut bytes = BytesMut::new();
        whole.iter().for_each(|item| item.put(&mut bytes));
        assert_eq!(payload.get(..bytes.len()), Some(&bytes[..]));
    }
}
