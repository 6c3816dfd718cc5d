//! Documents as they were written: policies and settings.

use ghostwire_store::config::Config;
use ghostwire_store_core::schema::Table;

use crate::excerpt::Wanted;
use crate::failure::Outcome;
use crate::nouns::{self, Check, GetPolicy, GetSetting, Scene};
use crate::output::{Shell, printable};
use crate::session::Reading;

pub(super) async fn get_policy(
    config: &Config,
    args: &GetPolicy,
    shell: &mut Shell<'_>,
) -> Outcome {
    let document = read(config, Table::Policies, shell, |scene| nouns::policy(args, scene)).await?;
    // Byte for byte: it may be put in force again.
    Ok(shell.out.write_all(document.as_str().as_bytes())?)
}

pub(super) async fn get_setting(
    config: &Config,
    args: &GetSetting,
    shell: &mut Shell<'_>,
) -> Outcome {
    let value = read(config, Table::Settings, shell, |scene| nouns::setting(args, scene)).await?;
    shell.object(&value)
}

async fn read<T>(
    config: &Config,
    table: Table,
    shell: &mut Shell<'_>,
    get: impl Fn(&Scene<'_>) -> Outcome<T>,
) -> Outcome<T> {
    let reading = Reading::open_for(config, &Wanted::Table(table), shell).await?;
    let got = {
        let view = reading.store.view();
        get(&Scene::of(&view))
    };
    reading.close().await?;
    got
}

/// Looks at a policy, and at no store.
pub(super) fn check_policy(args: &Check, shell: &mut Shell<'_>) -> Outcome {
    let document = args.input.checked()?;
    for unknown in nouns::unknown_keys(document.as_str()) {
        shell.caution(printable(&unknown));
    }
    let bytes = document.as_str().len();
    if document.as_str().trim().is_empty() {
        return shell.say("It is empty, which denies everything.");
    }
    shell.say(format_args!(
        "It is HuJSON with an object at its top ({bytes} bytes). Its rules were not looked at; the control \
         plane reads them."
    ))
}
