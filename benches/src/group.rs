//! A group of commands, from the queue to the encoded block.

use ghostwire_store::Result;
use ghostwire_store::command::Command;
use ghostwire_store::domain::BlockId;
use ghostwire_store_core::block::BlockBuilder;
use ghostwire_store_core::state::State;

use ghostwire_store_bench_workload::data::key_bytes;

use crate::StateFixture;

/// Executes all commands on a copy of what is published, as the writer does, and hashes their block.
/// Gives the new state.
pub fn apply(fixture: &StateFixture, published: &State, commands: &[Command]) -> Result<State> {
    let mut working = published.clone();
    let mut builder = BlockBuilder::default();
    for command in commands {
        working.execute(command, &fixture.context(), &mut builder)?;
    }
    let serial = published.serial().next();
    let id = BlockId::time_ordered(fixture.now, key_bytes(8, serial.get()));
    let closed = builder.finish(serial, id, published.hash(), fixture.now)?;
    working.advance(serial, closed.block.hash, fixture.now);
    std::hint::black_box(closed);
    Ok(working)
}
