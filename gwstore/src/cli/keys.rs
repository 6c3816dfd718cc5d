//! `gwstore keys`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use ghostwire_store::keys::crypto::root::Place;

/// Nobody may have the store open for `reseal` and `verify`; the others work beside.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make the keyring of a store that is still to be made; `gwstore init` makes both.
    Init,
    /// List the keys' versions and the recipients.
    List(UnlockArgs),
    /// Make identities.
    #[command(subcommand)]
    Identity(IdentityCommand),
    /// Seal with a new data key from now on, or hash with a new hash key.
    Rotate(RotateArgs),
    /// Seal everything under the newest data key, which an open store does by itself. Broken off, it goes on
    /// where it was.
    Reseal(UnlockArgs),
    /// Destroy a version of the data key that nothing is sealed under any more.
    Destroy(DestroyArgs),
    /// Let somebody else open the keyring, such as an escrow holder.
    AddRecipient(AddRecipientArgs),
    /// Let somebody no longer open the keyring, and rotate as after a leak.
    RemoveRecipient(RemoveRecipientArgs),
    /// Print the line age1pq1… of a recipient.
    ExportRecipient(ExportRecipientArgs),
    /// Print the public keys that check what the store signs.
    ExportSigner(UnlockArgs),
    /// Unlock the keyring with another root secret from now on.
    ChangeRoot(ChangeRootArgs),
    /// Check that the keyring opens and is its store's.
    Verify(UnlockArgs),
}

#[derive(Debug, Subcommand)]
pub(crate) enum IdentityCommand {
    /// Draw an identity, write it to a file, and print its recipient. It can be a root secret.
    New {
        /// The file, which is not there yet, and which only its owner may read.
        file: PathBuf,
    },
}

#[derive(Debug, Default, Args)]
pub(crate) struct UnlockArgs {
    /// Open the keyring with the identity in this file instead of the root secret.
    #[arg(long, value_name = "FILE")]
    pub(crate) identity: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct RotateArgs {
    /// The key that hashes credentials.
    #[arg(long, conflicts_with_all = ["leaked", "wait"])]
    pub(crate) hash_key: bool,
    /// Somebody may know the data key: the keys of inventory, pin and signatures are replaced, too.
    #[arg(long)]
    pub(crate) leaked: bool,
    /// Only if this version of the data key seals, as `list` numbers it: so that it can be repeated when it is
    /// not known how it ended.
    #[arg(long, value_name = "VERSION", conflicts_with = "hash_key")]
    pub(crate) from: Option<u32>,
    /// Seal everything under the new key before this ends.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
}

#[derive(Debug, Args)]
pub(crate) struct DestroyArgs {
    /// As `list` numbers it.
    #[arg(id = "key_version", value_name = "VERSION")]
    pub(crate) version: u32,
    /// Do it without asking.
    #[arg(long)]
    pub(crate) yes: bool,
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
}

#[derive(Debug, Args)]
pub(crate) struct RemoveRecipientArgs {
    /// By which `list` names it.
    pub(crate) fingerprint: String,
    /// Seal everything under the new key before this ends.
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
}

#[derive(Debug, Args)]
pub(crate) struct AddRecipientArgs {
    /// The line age1pq1…, or a file that has it.
    pub(crate) recipient: String,
    /// What it is for, up to 64 bytes.
    #[arg(long)]
    pub(crate) label: Option<String>,
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
}

#[derive(Debug, Args)]
pub(crate) struct ExportRecipientArgs {
    /// By which `list` names it [default: that of the root secret].
    pub(crate) fingerprint: Option<String>,
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
}

/// The configuration has to name the new place afterwards.
#[derive(Debug, Args)]
pub(crate) struct ChangeRootArgs {
    #[command(flatten)]
    pub(crate) root: NewRootArgs,
    #[command(flatten)]
    pub(crate) unlock: UnlockArgs,
}

/// Where the new root secret is.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct NewRootArgs {
    /// The file of the new identity.
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// The environment variable that holds the new identity.
    #[arg(long, value_name = "NAME")]
    pub(crate) variable: Option<String>,
    /// The systemd credential that holds the new identity.
    #[arg(long, value_name = "NAME")]
    pub(crate) credential: Option<String>,
    /// The file of the new passphrase.
    #[arg(long, value_name = "FILE")]
    pub(crate) passphrase_file: Option<PathBuf>,
}

impl NewRootArgs {
    pub(crate) fn place(&self) -> Option<Place> {
        let passphrase = self.passphrase_file.clone().map(Place::PassphraseFile);
        let file = self.file.clone().map(Place::File);
        let variable = self.variable.clone().map(Place::Variable);
        file.or(variable).or(self.credential.clone().map(Place::Credential)).or(passphrase)
    }
}
