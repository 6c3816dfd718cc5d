//! Whether a network can be moved from one database to another at all.

use crate::backend::Head;
use crate::block::Serial;
use crate::error::{Error, ErrorKind, Result};
use crate::position::Position;

/// Refuses two databases between which no migration can begin.
///
/// # Errors
/// `Restricted` for one and the same database, under whatever name, and for a target that is not empty;
/// `SchemaMismatch` if either is of another schema than the other; `Unsupported` for a source to which nothing was
/// written yet.
pub fn check_start(source: &Head, target: &Head) -> Result<()> {
    check_heads(source, target)?;
    let is_empty = target.position == Position::ZERO && target.serial == Serial::ZERO;
    if !is_empty || target.role.is_some() || target.filling {
        return Err(Error::new(
            ErrorKind::Restricted,
            "the target is not empty; name an empty one, or discard what is there",
        )
        .with("target", target.side)
        .with("record", target.record())
        .with("position", target.position));
    }
    if source.position == Position::ZERO {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "nothing was written to the source yet: open the target instead",
        ));
    }
    Ok(())
}

/// What must hold of both sides whatever the stage.
pub(super) fn check_heads(first: &Head, second: &Head) -> Result<()> {
    if first.side == second.side {
        return Err(Error::new(
            ErrorKind::Restricted,
            "source and target are the same database; name another target",
        )
        .with("side", first.side));
    }
    if first.schema != second.schema {
        let (found, supported) = (first.schema.version, second.schema.version);
        return Err(Error::new(
            ErrorKind::SchemaMismatch { found, supported },
            "both sides of a migration have one schema; open the older one once with this program",
        )
        .with("first", found)
        .with("second", supported));
    }
    Ok(())
}
