//! `gwstore dns`.

use clap::{Args, Subcommand, ValueEnum};
use ghostwire_store::admin::select::Condition;
use ghostwire_store::command::{DnsCommand, EntityRecord};
use ghostwire_store::domain::{
    DnsName, DnsRecordId, DnsRecordKind, DnsRecordPatch, NewDnsRecord, Text,
};
use ghostwire_store_core::schema::Table;

use super::values::{given, record_kind, word};
use super::{
    Act, Chosen, Delete, Edit, ListArgs, Named, Plan, Plans, Scene, Selection, ShowArgs, Target,
    given_ones, patch, random, update,
};
use crate::failure::Outcome;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List records.
    #[command(visible_alias = "ls")]
    List(ListArgs<DnsSelection>),
    /// Show all that is known of a record.
    #[command(visible_alias = "get")]
    Show(ShowArgs),
    /// Adds a record to those that the name has; `dns put` replaces them.
    #[command(visible_alias = "add")]
    Create(Edit<Create>),
    /// Replaces what a name has of one kind by these values; `dns create` adds to it.
    #[command(visible_alias = "set")]
    Put(Edit<Put>),
    /// Change a record's value or time to live.
    #[command(alias = "update")]
    Edit(Edit<Change>),
    /// Delete records; by --name and --kind whatever a name has of a kind.
    #[command(aliases = ["rm", "remove"])]
    Delete(Delete<Removal>),
}

impl Verb {
    pub(super) fn act(&self) -> Act<'_> {
        match self {
            Self::List(list) => list.act(Table::DnsRecords),
            Self::Show(show) => Act::Show(Table::DnsRecords, show),
            Self::Create(edit) => edit.act(),
            Self::Put(edit) => edit.act(),
            Self::Edit(edit) => edit.act(),
            Self::Delete(delete) => delete.act(),
        }
    }
}

/// The records that are meant by options.
#[derive(Debug, Args)]
pub(crate) struct DnsSelection {
    /// Of this name.
    #[arg(long)]
    name: Option<DnsName>,
    /// Of this kind: A, AAAA, CNAME, TXT, MX, PTR, SRV.
    #[arg(long, visible_alias = "type", value_parser = word::<DnsRecordKind>)]
    kind: Option<DnsRecordKind>,
}

impl Selection for DnsSelection {
    fn is_given(&self) -> bool {
        self.name.is_some() || self.kind.is_some()
    }

    fn names(&self) -> Option<Named<'_>> {
        let name = self.name.as_ref()?;
        Some(Named::new("--name", name, move |record| match record {
            EntityRecord::DnsRecord(record) => record.name == *name,
            _ => false,
        }))
    }

    fn conditions(&self, _: &Scene<'_>) -> Outcome<Vec<Condition>> {
        Ok(given_ones([
            self.name.clone().map(Condition::DnsName),
            self.kind.map(Condition::DnsKind),
        ]))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The name that it answers for.
    name: DnsName,
    /// A, AAAA, CNAME, TXT, MX, PTR or SRV.
    #[arg(value_parser = record_kind)]
    kind: DnsRecordKind,
    /// Its data, as in a zone file: an address, `10 mail.example.com`.
    #[arg(value_parser = given::<Text<1024>>)]
    value: Text<1024>,
    /// Seconds for which a resolver may keep it.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
}

impl Plans for Create {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let id = DnsRecordId::time_ordered(scene.now, random()?);
        let Self { name, kind, value, ttl } = self;
        let record =
            NewDnsRecord { name: name.clone(), kind: *kind, value: value.clone(), ttl: *ttl };
        Ok(Plan::of(DnsCommand::Create { id, record }))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// The name that they answer for.
    name: DnsName,
    /// A, AAAA, CNAME, TXT, MX, PTR or SRV.
    #[arg(value_parser = record_kind)]
    kind: DnsRecordKind,
    /// The data of each record, as in a zone file.
    #[arg(value_parser = given::<Text<1024>>, required = true)]
    values: Vec<Text<1024>>,
    /// Seconds for which a resolver may keep them.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
}

impl Plans for Put {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let with_id = |value: &Text<1024>| {
            Ok((DnsRecordId::time_ordered(scene.now, random()?), value.clone()))
        };
        let set = scene.state.dns_records().set(&self.name, self.kind);
        let command = DnsCommand::Put {
            name: self.name.clone(),
            kind: self.kind,
            values: self.values.iter().map(with_id).collect::<Outcome<_>>()?,
            ttl: self.ttl,
            expected: Some(set.fingerprint),
        };
        Ok(Plan { set: Some(set.fingerprint), ..Plan::of(command) })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Clearable {
    Ttl,
}

#[derive(Debug, Args)]
pub(crate) struct Change {
    #[command(flatten)]
    of: Target,
    /// New data.
    #[arg(long, value_parser = given::<Text<1024>>)]
    value: Option<Text<1024>>,
    /// Seconds for which a resolver may keep it.
    #[arg(long, value_name = "SECONDS")]
    ttl: Option<u32>,
    /// Leave it without these.
    #[arg(long, value_name = "FIELDS", value_delimiter = ',')]
    clear: Vec<Clearable>,
}

impl Plans for Change {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let record = self.of.find(Table::DnsRecords, scene)?;
        let EntityRecord::DnsRecord(found) = &record else { return Err(super::unlike(&record)) };
        let changes = DnsRecordPatch {
            value: update(self.value.as_ref()),
            ttl: patch(self.ttl.as_ref(), self.clear.contains(&Clearable::Ttl))?,
        };
        super::require_change(changes != DnsRecordPatch::default())?;
        let command = DnsCommand::Update { id: found.id, patch: changes, expected: None };
        Ok(Plan::on(&record, scene).then(command))
    }
}

#[derive(Debug, Args)]
pub(crate) struct Removal {
    #[command(flatten)]
    chosen: Chosen<DnsSelection>,
}

impl Plans for Removal {
    fn plan(&self, scene: &Scene<'_>) -> Outcome<Plan> {
        let records = self.chosen.find(Table::DnsRecords, scene)?;
        Ok(Plan::each(&records, scene, |record| match record {
            EntityRecord::DnsRecord(record) => Some(DnsCommand::Delete { id: record.id }),
            _ => None,
        }))
    }
}
