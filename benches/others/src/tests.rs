use super::*;
use ghostwire_store_bench_workload::machine::scratch;
use ghostwire_store_bench_workload::transcript::transcript;

#[tokio::test(flavor = "multi_thread")]
async fn every_subject_stores_and_answers_the_same() -> Result<()> {
    let mut expected = None;
    for candidate in candidates() {
        let directory = scratch(&std::env::temp_dir())?;
        let subject = candidate.open(directory.path().to_owned()).await?;
        let found = transcript(subject.as_ref())
            .await
            .map_err(|error| format!("{}: {error}", candidate.about.name))?;
        for ((read, answer), (_, known)) in found.iter().zip(expected.get_or_insert(found.clone()))
        {
            assert_eq!(answer, known, "{}: {read}", candidate.about.name);
        }
        subject.close().await?;
    }
    Ok(())
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
