//! What a deletion removes, in the portable form, so that an import brings it back.

use ghostwire_store::Result;
use ghostwire_store::command::EntityRecord;
use ghostwire_store::config::Config;
use ghostwire_store::domain::Route;
use ghostwire_store::portable::{ORDER, Writer};

use super::trial::{Change, Trial};
use crate::commands::export::signing_key;
use crate::output::Shell;
use crate::output_file::Target;

/// Writes what goes. Gives how many entities that are.
pub(super) async fn write(
    trial: &Trial,
    target: Target,
    config: &Config,
    shell: &mut Shell<'_>,
) -> Result<u64> {
    let file = target.begin()?;
    let mut writer = match signing_key(config, shell).await {
        Some(key) => Writer::authenticated(file, key)?,
        None => Writer::new(file)?,
    };
    for table in ORDER {
        let gone = trial.changes.iter().filter_map(Change::gone);
        for record in gone.filter(|record| record.table() == table) {
            writer.image(&restorable(record, trial))?;
        }
    }
    let (file, summary) = writer.finish(None)?;
    file.finish()?;
    Ok(summary.total())
}

/// The entity as it can be brought back: of two routes for a prefix one is primary, and the traffic of one
/// that goes may be taken over by another.
fn restorable(record: &EntityRecord, trial: &Trial) -> EntityRecord {
    match record {
        EntityRecord::Route(route) if route.primary && is_taken_over(route, trial) => {
            Route { primary: false, ..Route::clone(route) }.into()
        }
        other => other.clone(),
    }
}

fn is_taken_over(route: &Route, trial: &Trial) -> bool {
    trial.after.routes().iter().any(|other| other.primary && other.prefix == route.prefix)
}
