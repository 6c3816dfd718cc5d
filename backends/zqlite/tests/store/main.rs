//! What the backend promises, whole and damaged. One program, since each takes as long to build as all of it.

#[path = "../common/mod.rs"]
mod common;
#[path = "../../../../crypto/tests/python/mod.rs"]
mod python;

mod backend;
mod damage;
mod forged;
mod pins;
mod pins_of_stores;
mod positions;
mod reseal;
mod rotation_pinned;
mod sealed;
mod second_reader;
mod signed;
