#![no_main]

use std::collections::BTreeMap;

use ghostwire_store::config::{FlagFile, LoadRequest, resolve};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, String)| {
    let (yaml, text) = input;
    let path = if yaml { "flags.yaml" } else { "flags.toml" };
    let file = FlagFile { path: path.into(), text };
    let _ = resolve(Some(&file), &LoadRequest::default(), &BTreeMap::new());
});
