//! An open store, on backends that do what they are told. One program, since each takes as long to build as all of it.

mod ending;
mod following;
mod health;
mod layers;
mod netmap;
mod observe;
mod opening;
mod seated;
mod series;
mod upkeep;
mod writer;
