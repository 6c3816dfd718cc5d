//! The configuration: one table per environment in a flag file, variables and a command line.
//!
//! Each value is looked for in this order, and the last one found holds:
//!
//! 1. the built-in default,
//! 2. the file's table `defaults`,
//! 3. the file's table of the environment,
//! 4. the variable `GHOSTWIRE_STORE__SECTION__KEY`,
//! 5. the command line.
//!
//! [`load`] reads the file and leaves the rest to [`resolve`], which is a pure function. A key that
//! is not known is an error wherever it stands, and so is a secret: those come from files and
//! variables that the configuration only names. Relative paths resolve against the directory of the
//! flag file, wherever they were given, and without a flag file against the working directory.
//!
//! An environment may have several stores, each with a name; [`Config::for_store`] chooses another
//! than the one that the configuration does.
//! `docs/configuration.md` has all keys and examples.

mod assemble;
mod document;
mod hint;
mod keys;
mod layer;
mod lookup;
mod names;
mod origin;
mod place;
mod postgres;
mod source;
mod stores;
mod types;
mod value;
mod yaml;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use ghostwire_store_core::error::{Error, ErrorKind, Result};

pub use self::document::known_keys_markdown;
pub use self::names::{
    BackendKind, LogFormat, LogLevelName, MigrationStage, PinMode, PostgresDurability, PostgresTls,
    Role, SocketMode, SwitchState, ZqliteEngine,
};
pub use self::origin::{Explained, Origin, Origins};
pub use self::postgres::PostgresOptions;
pub use self::source::{FlagFile, MAX_FILE_BYTES};
pub use self::types::{
    AdminOptions, BackendChoice, ClockOptions, Config, DEFAULT_ENVIRONMENT, DEFAULT_STORE,
    HttpOptions, JobOptions, LibsqlOptions, LogOptions, Migration, NamedStore, Roles, RootOptions,
    SeriesOptions, ServeOptions, Switch, TelemetryOptions, WriterOptions, ZqliteOptions,
};
#[doc(inline)]
pub use ghostwire_store_core::options::Materialize;

/// Every environment variable that starts so is a configuration key.
pub const VARIABLE_PREFIX: &str = "GHOSTWIRE_STORE__";

/// Nothing else may start so: it would be a key with an underscore too few, and ignored.
const RESERVED_PREFIX: &str = "GHOSTWIRE_STORE_";

/// The variable that chooses the environment.
pub const ENVIRONMENT_VARIABLE: &str = "GHOSTWIRE_STORE__ENVIRONMENT";

const ENVIRONMENT_KEY: &str = "environment";

/// What to load; the default is the built-in configuration with the variables on top.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadRequest {
    /// The flag file. `None` reads no file; none is searched for.
    pub path: Option<PathBuf>,
    /// The environment; `None` leaves it to the variable, and without that to
    /// [`DEFAULT_ENVIRONMENT`].
    pub environment: Option<String>,
    /// The backend of the store that is opened, whatever its name, from the command line.
    pub backend: Option<String>,
    /// Key paths, for example `writer.max_group`, and values from the command line.
    pub overrides: Vec<(String, String)>,
}

/// Reads the flag file that the request names and resolves the configuration.
///
/// `variables` are those of the process, for example from [`process_variables`].
///
/// # Errors
/// Those of [`FlagFile::read`] and of [`resolve`].
pub fn load(request: &LoadRequest, variables: &BTreeMap<String, String>) -> Result<Config> {
    let file = request
        .path
        .as_deref()
        .map(FlagFile::read)
        .transpose()
        .map_err(|error| error.during("config.load"))?;
    resolve(file.as_ref(), request, variables)
}

/// Resolves the configuration from what is handed in; `request.path` is not looked at.
///
/// # Errors
/// `NotFound` for an environment that the file does not have, or that is chosen without a file;
/// `Unsupported` for what this version
/// cannot do yet, else `InvalidArgument`; each names the key, its source and what is allowed.
pub fn resolve(
    file: Option<&FlagFile>,
    request: &LoadRequest,
    variables: &BTreeMap<String, String>,
) -> Result<Config> {
    resolve_unnamed(file, request, variables).map_err(|error| error.during("config.load"))
}

fn resolve_unnamed(
    file: Option<&FlagFile>,
    request: &LoadRequest,
    variables: &BTreeMap<String, String>,
) -> Result<Config> {
    let (environment, chosen_by) = choose_environment(request, variables)?;
    let mut layer = match file {
        Some(file) => layer::Environments::read(&file.parse()?, &file.path)?.choose(
            &environment,
            &chosen_by,
            &file.path,
        )?,
        None if chosen_by == Origin::Default => layer::Layer::default(),
        // Else the defaults would be taken for what that environment says.
        None => return Err(no_flag_file(&environment, &chosen_by)),
    };
    layer.declare_default();
    let from_variables = layer::from_variables(variables, &layer)?;
    let from_overrides = layer::from_overrides(&request.overrides, &layer)?;
    layer.merge(from_variables);
    layer.merge(from_overrides);
    layer.refuse_both_forms()?;
    layer.refuse_unnamed()?;
    if let Some(backend) = &request.backend {
        layer.set_backend(&layer.chosen_store()?, backend)?;
    }
    layer.refuse_not_chosen()?;
    assemble::assemble((environment, chosen_by), layer, file.map(|file| file.path.as_path()))
}

fn no_flag_file(environment: &str, chosen_by: &Origin) -> Error {
    Error::new(
        ErrorKind::NotFound,
        "an environment is chosen, and there is no flag file that says what holds in it: name the \
         file, or choose no environment to run on the defaults",
    )
    .with("environment", environment)
    .with("source", chosen_by)
}

fn choose_environment(
    request: &LoadRequest,
    variables: &BTreeMap<String, String>,
) -> Result<(String, Origin)> {
    let overridden = request.overrides.iter().rev().find(|(key, _)| key == ENVIRONMENT_KEY);
    let (name, origin) =
        if let Some(name) = request.environment.as_ref().or(overridden.map(|(_, name)| name)) {
            (name.as_str(), Origin::CommandLine)
        } else if let Some(name) = variables.get(ENVIRONMENT_VARIABLE) {
            (name.as_str(), Origin::Variable(ENVIRONMENT_VARIABLE.to_owned()))
        } else {
            (DEFAULT_ENVIRONMENT, Origin::Default)
        };
    if value::is_name(name) {
        Ok((name.to_owned(), origin))
    } else {
        Err(Error::invalid("an environment cannot have this name")
            .with("allowed", value::Kind::Name)
            .with("source", origin))
    }
}

/// The variables of this process that are configuration keys, or look like misspelt ones.
///
/// # Errors
/// `InvalidArgument` if one of them is not Unicode. (`std::env::vars` would panic, also over a
/// variable that is none of ours.)
pub fn process_variables() -> Result<BTreeMap<String, String>> {
    own_variables(std::env::vars_os())
}

fn own_variables(
    all: impl Iterator<Item = (OsString, OsString)>,
) -> Result<BTreeMap<String, String>> {
    all.filter(|(name, _)| name.as_encoded_bytes().starts_with(RESERVED_PREFIX.as_bytes()))
        .map(|(name, value)| {
            let shown = name.to_string_lossy().into_owned();
            name.into_string().and_then(|name| Ok((name, value.into_string()?))).map_err(|_| {
                Error::invalid("the variable is not valid Unicode")
                    .with("source", Origin::Variable(shown))
                    .during("config.load")
            })
        })
        .collect()
}
