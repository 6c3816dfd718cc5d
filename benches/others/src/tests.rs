use super::*;
use ghostwire_store_bench_workload::transcript::compare;

#[tokio::test(flavor = "multi_thread")]
async fn every_subject_stores_and_answers_the_same() -> Result<()> {
    compare(&candidates()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_one_line_of_json() -> Result<()> {
    for arguments in ["--operation register --preauth-keys 500", "--operation node-by-id --nodes 9"]
    {
        for candidate in candidates() {
            let line = format!(
                "x run --subject {} {arguments} --callers 2 --seconds 0.02",
                candidate.about.name
            );
            let cli = Cli::try_parse_from(line.split(' '))?;
            let said = said(cli.command).await?;
            let run: ghostwire_store_bench_workload::results::Run = serde_json::from_str(&said)?;
            assert!(run.count > 0, "{line}: {said}");
        }
    }
    Ok(())
}

#[test]
fn misspelt_names_are_corrected() {
    let refused = known("rusqlit").map(|found| found.about.name);
    assert!(refused.is_err_and(|error| error.to_string().contains("\"rusqlite\"")));
}
