//! `gwstore attest`.

use ghostwire_store::config::Config;
use ghostwire_store_core::backend::Attestation;
use serde_json::json;

use crate::cli::AttestArgs;
use crate::failure::{Failure, Outcome};
use crate::live::{self, Found};
use crate::output::{Shell, shown};
use crate::output_file::Target;
use crate::session::Reading;

/// Signs the digest of the state, and writes that to a file or to standard output.
pub(super) async fn run(config: &Config, args: &AttestArgs, shell: &mut Shell<'_>) -> Outcome {
    if args.file.as_os_str() == "-" {
        if args.force {
            let error = ghostwire_store::Error::invalid(
                "--force replaces a file, and standard output is none",
            );
            return Err(Failure::usage(error.during("attest")));
        }
        let attestation = attested(config, shell).await?;
        if shell.json {
            return shell
                .object(&json!({ "text": attestation.text, "attested": object(&attestation) }));
        }
        return Ok(shell.out.write_all(attestation.text.as_bytes())?);
    }
    let target = Target::check(&args.file, args.force, Some(config));
    let target = target.map_err(|error| error.during("attest"))?;
    let attestation = attested(config, shell).await?;
    target.fill(attestation.text.as_bytes()).map_err(|error| error.during("attest"))?;
    if shell.json {
        return shell.object(&json!({ "path": args.file, "attested": object(&attestation) }));
    }
    shell.say(format_args!(
        "Signed the state at serial {} to {}, by {}",
        attestation.state.serial,
        shown(&args.file),
        attestation.signer
    ))?;
    shell.say(
        "`gwstore verify-attestation` checks it. Whoever does needs the fingerprint from elsewhere.",
    )
}

async fn attested(config: &Config, shell: &mut Shell<'_>) -> Outcome<Attestation> {
    if let Found::Served(client) = live::find(config, shell).await? {
        return Ok(client.attest().await?);
    }
    let reading = Reading::open(config, shell).await?;
    let attestation = reading.store.attest().await;
    reading.close().await?;
    Ok(attestation?)
}

fn object(attestation: &Attestation) -> serde_json::Value {
    let Attestation { state, signer, .. } = attestation;
    json!({
        "epoch": state.epoch,
        "position": state.position,
        "serial": state.serial,
        "block": state.hash.to_string(),
        "time": state.time,
        "digest": state.digest,
        "signer": signer,
    })
}
