//! `gwstore migrate`.

use clap::{Args, Subcommand};
use ghostwire_store::domain::SideId;

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum MigrateCommand {
    /// Say what would be done, and whether it can begin. Nothing changes.
    Plan,
    /// Begin to copy the store to the one that migration.target names.
    Start(MigrateArgs),
    /// Tell where the migration stands.
    Status(MigrateArgs),
    /// Serve from the target; the source follows, so that there is a way back.
    Advance,
    /// Serve from the source again.
    Back,
    /// Give the target up while the source is served.
    Abort(MigrateConfirmed),
    /// Leave the source for good: there is no way back.
    Finish(MigrateFinish),
    /// Have one store be the network without the other one, which is lost.
    GoOn(MigrateGoOn),
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MigrateFinish {
    /// Then overwrite and remove the files of the source, with the backups and copies beside it. A disk may keep what
    /// was overwritten.
    #[arg(long)]
    pub(crate) shred_source: bool,
    /// Do not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MigrateGoOn {
    /// The side that is lost, as the error or `migrate status` names it. It must not be written any more by anybody.
    #[arg(long, value_name = "SIDE")]
    pub(crate) the_other_side_is_down: SideId,
    /// Do not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MigrateArgs {
    /// Wait until the target is a copy.
    #[arg(long)]
    pub(crate) wait: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct MigrateConfirmed {
    /// Do not ask.
    #[arg(long, short)]
    pub(crate) yes: bool,
}
