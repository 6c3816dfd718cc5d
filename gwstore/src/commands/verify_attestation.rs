//! `gwstore verify-attestation`: needs neither the store nor a key of it.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use ghostwire_store::config::Config;
use ghostwire_store::domain::{SideId, Timestamp};
use ghostwire_store::keys::crypto::signature::{
    Attestation, Attested, PublicKeys, SignerId, Verified,
};
use ghostwire_store::{Error, ErrorKind};
use ghostwire_store_core::block::{BlockHash, Serial};
use ghostwire_store_core::digest::state_digest;
use serde_json::{Value, json};

use crate::cli::VerifyAttestationArgs;
use crate::failure::{Ending, Failure, Outcome, input_error};
use crate::output::Shell;
use crate::session::Reading;

const OPERATION: &str = "verify-attestation";
/// More than any attestation has.
const LONGEST: u64 = 256 * 1024;

/// Checks the signature, and says what was signed.
pub(super) fn offline(args: &VerifyAttestationArgs, shell: &mut Shell<'_>) -> Outcome {
    let (attestation, known) = read(args)?;
    let verified = verified(&attestation, known)?;
    report(&verified, known, None, shell)
}

/// Does so, and asks the configured store whether it is, or was, in that state.
pub(super) async fn beside_store(
    config: &Config,
    args: &VerifyAttestationArgs,
    shell: &mut Shell<'_>,
) -> Outcome {
    let (attestation, known) = read(args)?;
    let verified = verified(&attestation, known)?;
    let reading = Reading::open(config, shell).await?;
    let compared = compare(&reading, verified.attested).await;
    reading.close().await?;
    let compared = compared?;
    report(&verified, known, Some(compared), shell)?;
    match compared {
        Compared::Gone => Err(Failure::Told(Ending::Partly)),
        Compared::Same | Compared::Follows => Ok(()),
    }
}

fn read(args: &VerifyAttestationArgs) -> Outcome<(Attestation, SignerId)> {
    let known = known_signer(&args.public_key)?;
    let text = match args.file.as_os_str() == "-" {
        true => read_text(None, io::stdin().lock())?,
        false => read_file("the attestation cannot be read", &args.file)?,
    };
    let attestation = text.parse::<Attestation>().map_err(|error| {
        Error::corrupt("this is no attestation, or not all of one")
            .with("path", args.file.display())
            .because(error)
            .during(OPERATION)
    })?;
    Ok((attestation, known))
}

/// A fingerprint, or a file with one or with public keys.
fn known_signer(text: &str) -> Outcome<SignerId> {
    if let Ok(known) = text.parse() {
        return Ok(known);
    }
    let path = Path::new(text);
    let content = read_file(
        "this is no fingerprint of 64 hexadecimal digits, and no file that can be read",
        path,
    )?;
    let line = content.trim();
    let keys = || line.parse::<PublicKeys>().map(|keys| keys.id());
    line.parse().or_else(|_| keys()).map_err(|error| {
        Error::invalid("the file has neither a fingerprint nor public keys of a signer")
            .with("path", path.display())
            .with("help", "`gwstore keys export-signer` prints such a line")
            .because(error)
            .during(OPERATION)
            .into()
    })
}

fn read_file(what: &'static str, path: &Path) -> Outcome<String> {
    let failed = |error| Failure::from(input_error(what, Some(path), error).during(OPERATION));
    let file = File::open(path).map_err(failed)?;
    read_text(Some(path), file)
}

fn read_text(path: Option<&Path>, from: impl io::Read) -> Outcome<String> {
    let mut text = String::new();
    let read = from.take(LONGEST + 1).read_to_string(&mut text);
    read.map_err(|error| {
        input_error("this cannot be read as text", path, error).during(OPERATION)
    })?;
    Ok(text)
}

fn verified(attestation: &Attestation, known: SignerId) -> Outcome<Verified<'_>> {
    attestation.verify(known).map_err(|error| {
        let error =
            Error::new(ErrorKind::Crypto, "the attestation is not signed by whom it should be")
                .with("signer", attestation.signer())
                .with("expected", known)
                .because(error)
                .during(OPERATION);
        Failure::As(Ending::Found, error)
    })
}

/// How the configured store stands to what was signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compared {
    /// It is in that state.
    Same,
    /// It was, and went on from there.
    Follows,
    /// The block that would tell is not kept any more.
    Gone,
}

impl Compared {
    fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Follows => "follows",
            Self::Gone => "unknown",
        }
    }

    fn sentence(self) -> &'static str {
        match self {
            Self::Same => "The store is in that state.",
            Self::Follows => "The store was in that state, and went on from there.",
            Self::Gone => {
                "The store went on, and the block that would tell from where is not kept any more."
            }
        }
    }
}

async fn compare(reading: &Reading, attested: &Attested) -> Outcome<Compared> {
    let view = reading.store.view();
    let found = |what: &'static str| {
        let error = Error::corrupt(what)
            .with("attested_serial", attested.serial)
            .with("serial", view.serial())
            .during(OPERATION);
        Failure::As(Ending::Found, error)
    };
    if reading.head.side.as_bytes() != &attested.store {
        return Err(found("the attestation is of another store"));
    }
    let serial = Serial::new(attested.serial);
    let hash = BlockHash::from_bytes(attested.block_hash);
    if serial > view.serial() {
        return Err(found("the store is older than what was signed of it: it was put back"));
    }
    if serial == view.serial() {
        return match (hash == view.hash(), state_digest(&view).as_bytes() == &attested.digest) {
            (true, true) => Ok(Compared::Same),
            (true, false) => {
                Err(found("the store has the block that was signed, and another state"))
            }
            (false, _) => Err(found("the store has another history than the one that was signed")),
        };
    }
    match reading.backend.blocks(serial, 1).await {
        Ok(blocks) if blocks.first().is_some_and(|block| block.previous == hash) => {
            Ok(Compared::Follows)
        }
        Ok(_) => Err(found("the store has another history than the one that was signed")),
        Err(error) if matches!(error.kind(), ErrorKind::Compacted { .. }) => Ok(Compared::Gone),
        Err(error) => Err(error.into()),
    }
}

fn report(
    verified: &Verified<'_>,
    known: SignerId,
    compared: Option<Compared>,
    shell: &mut Shell<'_>,
) -> Outcome {
    let Verified { attested, signer, successions } = verified;
    let time = i64::try_from(attested.time).ok();
    let time = time.and_then(|time| Timestamp::from_micros(time).ok());
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    let side = SideId::from_bytes(attested.store).to_string();
    if shell.json {
        return shell.object(&json!({
            "valid": true,
            "side": side,
            "epoch": attested.epoch,
            "position": attested.commit,
            "serial": attested.serial,
            "block": hex(&attested.block_hash),
            "time": time,
            "digest": hex(&attested.digest),
            "signer": signer.to_string(),
            "successions": successions,
            "store": compared.map_or(Value::Null, |compared| compared.name().into()),
        }));
    }
    shell.say("The attestation is signed by whom it should be.")?;
    shell.pairs(&[
        ("side id", side),
        ("epoch", attested.epoch.to_string()),
        ("position", attested.commit.to_string()),
        ("serial", attested.serial.to_string()),
        ("block", hex(&attested.block_hash)),
        ("time", time.map_or_else(|| "unknown".to_owned(), |time| time.to_string())),
        ("state", hex(&attested.digest)),
        ("signer", signer.to_string()),
    ])?;
    if *successions > 0 {
        shell.caution(format_args!(
            "the keys that you know, {known}, were replaced {} since, each time signed by those before. If that \
             was since they leaked, ask for the new fingerprint instead: who has the old ones can name \
             successors of his own",
            if *successions == 1 { "once".to_owned() } else { format!("{successions} times") },
        ));
    }
    compared.map_or(Ok(()), |compared| shell.say(compared.sentence()))
}
