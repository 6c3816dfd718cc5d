//! `gwstore setting`.

use std::net::IpAddr;

use clap::{Args, Subcommand};
use ghostwire_store::command::{Precondition, SettingCommand};
use ghostwire_store::domain::{DerpMap, NetworkSettings, Prefix, SettingDocument, SettingKind};
use ghostwire_store::{Error, ErrorKind};
use ghostwire_store_core::schema::Table;
use serde_json::{Map, Value};

use super::policy::Input;
use super::values::word;
use super::{Act, Delete, Edit, Everything, ListArgs, Plan, Plans, Scene};
use crate::failure::{Failure, Outcome};
use crate::headscale::hujson;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List the documents that were set; others have their defaults.
    #[command(visible_alias = "ls")]
    List(ListArgs<Everything>),
    /// Print a document in force, or one of its fields, as JSON.
    #[command(visible_alias = "show")]
    Get(Get),
    /// Replaces the fields that are given, such as ephemeral_cutoff_seconds=600; --file replaces all.
    #[command(aliases = ["edit", "create", "put", "update"])]
    Set(Edit<Set>),
    /// Delete a document, so that its default is in force.
    #[command(visible_alias = "delete", alias = "unset")]
    Reset(Delete<Reset>),
}

impl Verb {
    pub(super) fn act(&self) -> Act<'_> {
        match self {
            Self::List(list) => list.act(Table::Settings),
            Self::Get(get) => Act::GetSetting(get),
            Self::Set(edit) => edit.act(),
            Self::Reset(delete) => delete.act(),
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// network, dns or derp-map.
    #[arg(value_parser = word::<SettingKind>)]
    kind: SettingKind,
    /// One of its fields.
    field: Option<String>,
}

/// What is asked for.
pub(crate) fn get(args: &Get, scene: &Scene<'_>) -> Outcome<Value> {
    let document = Value::Object(in_force(args.kind, scene)?);
    let Some(field) = &args.field else { return Ok(document) };
    document.get(field).cloned().ok_or_else(|| {
        let error =
            Error::new(ErrorKind::NotFound, "the document has no such field, or it is not set");
        error.with("field", field).into()
    })
}

const DERP_MAP: &str = "a DERP map is JSON: an object with `regions` as `gwstore setting get derp-map` prints \
                        it, or Tailscale's with `Regions`; a YAML file of Headscale's has to be written as \
                        one of these";

fn in_force(kind: SettingKind, scene: &Scene<'_>) -> Outcome<Map<String, Value>> {
    let settings = scene.state.settings();
    let document = match kind {
        SettingKind::Network => serde_json::to_value(settings.network()),
        SettingKind::Dns => serde_json::to_value(settings.dns()),
        SettingKind::DerpMap => serde_json::to_value(settings.derp_map()),
    };
    match document {
        Ok(Value::Object(document)) => Ok(document),
        _ => Err(Error::new(ErrorKind::Unexpected, "a settings document is no JSON object").into()),
    }
}

#[derive(Debug, Args)]
pub(crate) struct Set {
    /// network, dns or derp-map.
    #[arg(value_parser = word::<SettingKind>)]
    kind: SettingKind,
    /// Fields and their values, as JSON or as plain text, of lists with commas; null leaves a field out.
    #[arg(value_name = "FIELD=VALUE", value_parser = field_and_value,
        required_unless_present = "document")]
    fields: Vec<(String, Value)>,
    /// The whole document as JSON: a file, or `-` for standard input. A DERP map may have Tailscale's form,
    /// and comments.
    #[arg(short = 'f', long = "file", value_name = "FILE", conflicts_with = "fields")]
    document: Option<std::path::PathBuf>,
}

fn field_and_value(text: &str) -> Result<(String, Value), String> {
    let (field, value) = text.split_once('=').ok_or("write it as field=value")?;
    if field.is_empty() || value.is_empty() {
        return Err("neither field nor value may be empty".to_owned());
    }
    let plain = |_| Value::from(value);
    Ok((field.to_owned(), serde_json::from_str(value).unwrap_or_else(plain)))
}

/// A list, which may be given as plain text.
fn listed(value: &Value) -> Value {
    match value {
        Value::String(text) => {
            let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
            words.map(Value::from).collect()
        }
        other => other.clone(),
    }
}

impl Plans for Set {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let wrong = |error: serde_json::Error| {
            let message = "this is no settings document of that kind";
            let error = Error::invalid(message).with("kind", self.kind).because(error);
            Failure::from(match self.kind {
                SettingKind::DerpMap => error.with("help", DERP_MAP),
                _ => error,
            })
        };
        let read = |fields: Value| {
            let document = Map::from_iter([(self.kind.name().to_owned(), fields)]);
            serde_json::from_value::<SettingDocument>(document.into())
        };
        let mut notes = Vec::new();
        let document = match &self.document {
            Some(file) => {
                let text = Input::of(file).read()?;
                let json = hujson::to_json(&text).unwrap_or(text);
                let fields: Value = serde_json::from_str(&json).map_err(wrong)?;
                if self.kind == SettingKind::DerpMap && DerpMap::is_tailscale(&fields) {
                    let (map, remarks) = DerpMap::from_tailscale(fields)?;
                    notes = remarks;
                    Ok(SettingDocument::DerpMap(map))
                } else {
                    read(fields)
                }
            }
            None => {
                let in_force = in_force(self.kind, scene)?;
                let (mut plain, mut as_lists) = (in_force.clone(), in_force.clone());
                for (name, value) in &self.fields {
                    let present = in_force.get(name);
                    let is_list = present.is_some_and(Value::is_array);
                    let given = if is_list { listed(value) } else { value.clone() };
                    // A list that is empty may be left out of what is in force.
                    let perhaps = if present.is_none() { listed(value) } else { given.clone() };
                    plain.insert(name.clone(), given);
                    as_lists.insert(name.clone(), perhaps);
                }
                read(plain.into()).or_else(|error| read(as_lists.into()).map_err(|_| error))
            }
        };
        let document = document.map_err(wrong)?;
        if let SettingDocument::Network(network) = &document {
            notes.extend(left_outside(network, scene));
        }
        let plan = Plan { notes, ..on(self.kind, scene) };
        Ok(plan.then(SettingCommand::Put { document, expected: None }))
    }
}

/// Nodes keep the addresses that they have.
fn left_outside(network: &NetworkSettings, scene: &Scene<'_>) -> Option<String> {
    let is_outside = |address: Option<IpAddr>, prefix: Option<Prefix>| {
        address.is_some_and(|address| prefix.is_none_or(|prefix| !prefix.contains(address)))
    };
    let outside = scene.state.nodes().iter().filter(|node| {
        is_outside(node.ipv4.map(Into::into), network.ipv4)
            || is_outside(node.ipv6.map(Into::into), network.ipv6)
    });
    let count = outside.count();
    (count > 0).then(|| {
        format!("nodes outside of the network's prefixes: {count}; nodes keep the addresses that they have")
    })
}

fn on(kind: SettingKind, scene: &Scene<'_>) -> Plan {
    let revision = scene.state.settings().get(kind).map(|setting| setting.revision);
    Plan {
        requires: vec![Precondition::SettingRevision(kind, revision)],
        revisions: vec![revision.map_or(0, |revision| revision.get())],
        ..Plan::default()
    }
}

#[derive(Debug, Args)]
pub(crate) struct Reset {
    /// network, dns or derp-map.
    #[arg(value_parser = word::<SettingKind>)]
    kind: SettingKind,
}

impl Plans for Reset {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        Ok(on(self.kind, scene).then(SettingCommand::Reset { kind: self.kind }))
    }
}
