#![no_main]

use ghostwire_store_zqlite_native::message::{MAX_MESSAGE, Request, Response, length_of};
use libfuzzer_sys::fuzz_target;

// Whatever is accepted is what would be written.
fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some(length)) = length_of(bytes) {
        assert!((1..=MAX_MESSAGE).contains(&length));
    }
    let mut again = Vec::new();
    if let Ok((number, request)) = Request::decode(bytes) {
        request.encode(number, &mut again);
        assert_eq!(again.get(4..), Some(bytes));
    }
    again.clear();
    if let Ok((number, response)) = Response::decode(bytes) {
        response.encode(number, &mut again);
        assert_eq!(again.get(4..), Some(bytes));
    }
});
