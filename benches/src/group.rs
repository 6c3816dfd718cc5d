//! A group of commands, from the queue to the encoded block, as the writer carries it out.

use ghostwire_store::Result;
use ghostwire_store::block::{BlockBuilder, ChangeKind};
use ghostwire_store::command::{Command, Image};
use ghostwire_store::domain::{ActorName, AuditEntry, AuditId, BlockId, Text};
use ghostwire_store::state::{Change, State};

use ghostwire_store_bench_workload::data::key_bytes;

use crate::World;

/// Encodes the row of a node or a presence; groups have no others.
pub fn encode(builder: &mut BlockBuilder, kind: ChangeKind, image: &Image) {
    match image {
        Image::Node(node) => builder.put(kind, node.as_ref()),
        Image::Presence(presence) => builder.put(kind, presence.as_ref()),
        _ => {}
    }
}

/// Decides and carries out all commands on a copy of what is published, and encodes and hashes
/// their block. Gives the new state.
///
/// # Errors
/// Those of the commands.
pub fn apply(world: &World, published: &State, commands: &[Command]) -> Result<State> {
    let mut working = published.clone();
    let mut builder = BlockBuilder::default();
    let actor = ActorName::system();
    for (index, command) in commands.iter().enumerate() {
        let mut decision = world.decide(&working, command)?;
        for note in std::mem::take(&mut decision.audit) {
            builder.audit(AuditEntry {
                id: AuditId::time_ordered(world.now, key_bytes(9, index as u64)),
                at: world.now,
                actor: actor.clone(),
                action: Text::new(note.action)?,
                entity: note.entity,
                subject: Text::new(note.subject)?,
            });
        }
        let kinds = working.carry_out(&mut decision);
        for (change, kind) in decision.changes.into_iter().zip(kinds) {
            if let Change::Put(image) = change {
                encode(&mut builder, kind, &image);
            }
        }
    }
    let serial = published.serial().next();
    let id = BlockId::time_ordered(world.now, key_bytes(8, serial.get()));
    let closed = builder.finish(serial, id, published.hash(), world.now)?;
    working.advance(serial, closed.block.hash, world.now);
    std::hint::black_box(closed);
    Ok(working)
}
