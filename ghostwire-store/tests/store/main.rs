//! Stores as programs open them. One program, since each takes as long to build as all of it; those beside it need a
//! process of their own.

#[path = "../world/mod.rs"]
mod world;

mod admin;
mod compact;
mod every_backend;
mod http;
mod jobs;
mod keys;
mod live_keys;
mod migration;
mod moving;
mod named_stores;
