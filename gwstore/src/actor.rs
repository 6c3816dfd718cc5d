//! Whom the audit trail names for what this program does.

use ghostwire_store::domain::ActorName;

use crate::permissions::this_user;

/// Whoever calls, as the environment tells, or else the user's number, as under cron. That proves nothing: who may write to the store may write any
/// line into it.
pub(crate) fn actor() -> ActorName {
    let variables = ["SUDO_USER", "USER", "LOGNAME"].into_iter();
    let user = variables.filter_map(|name| std::env::var(name).ok()).find(|user| !user.is_empty());
    let number = || this_user().map(|number| format!("uid-{number}"));
    let name = format!("cli:{}", user.or_else(number).as_deref().unwrap_or("somebody"));
    ActorName::from_outside(name).unwrap_or_else(|_| ActorName::system())
}
