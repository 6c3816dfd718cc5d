//! The whole suite: every subject runs each case once a round, in turns.

mod opening;
mod others;
mod plan;
mod reach;

use std::path::Path;
use std::sync::Arc;

use ghostwire_store_bench_workload::machine;
use ghostwire_store_bench_workload::results::{
    ALL_ON_POSTGRES, Case, Measured, ON_POSTGRES, OfSubject, Results, Run, Settings,
};
use ghostwire_store_bench_workload::subject::{About, Candidate, Result};
use ghostwire_store_bench_workload::{
    Content, Operation, Session, nearest, needs_a_fresh_subject, run_once,
};

use crate::ALLOCATOR;
#[cfg(feature = "postgres")]
use crate::postgres as server;
pub use opening::run_child;
use others::Others;
pub use plan::{Effort, Request};
use plan::{Planned, Sizes, Who, keys_for, plan};
use server::Server;

/// How a server is named.
const HOW_TO_NAME_ONE: &str =
    "name one on this machine by --postgres or GHOSTWIRE_TEST_POSTGRES_URL";

/// How far the suite is: what it does now, how many steps are done, and of how many.
pub type Watcher<'w> = &'w mut dyn FnMut(&str, u64, u64);

/// Somebody who takes part.
#[derive(Debug, Clone)]
enum Participant {
    Here(Candidate),
    Elsewhere(Others, About),
}

impl Participant {
    fn about(&self) -> &About {
        match self {
            Self::Here(candidate) => &candidate.about,
            Self::Elsewhere(_, about) => about,
        }
    }
}

/// A server on which some of the subjects are; none in a build that has no such subjects.
#[cfg(not(feature = "postgres"))]
mod server {
    use std::path::Path;
    use std::sync::Arc;

    use ghostwire_store_bench_workload::results::{OfFollowing, OfProcesses};
    use ghostwire_store_bench_workload::subject::{Candidate, Result};

    pub(super) enum Server {}

    impl Server {
        pub(super) async fn start(_: &str) -> Result<Arc<Self>> {
            Err("this build has no subjects on PostgreSQL; build it with the Cargo feature `postgres`".into())
        }

        pub(super) async fn end(&self) -> Result<()> {
            match *self {}
        }
    }

    pub(super) fn candidates(server: &Server) -> Vec<Candidate> {
        match *server {}
    }

    pub(super) async fn measure(
        server: &Server,
        _: (usize, u64),
        _: (usize, f64),
        _: &Path,
    ) -> Result<Vec<OfProcesses>> {
        match *server {}
    }

    pub(super) async fn measure_following(
        server: &Server,
        _: usize,
        _: &Path,
    ) -> Result<OfFollowing> {
        match *server {}
    }
}

/// Who could take part.
async fn participants(request: &Request, server: Option<&Arc<Server>>) -> Result<Vec<Participant>> {
    let mut all: Vec<_> = crate::candidates().into_iter().map(Participant::Here).collect();
    if let Some(server) = server {
        all.extend(server::candidates(server).into_iter().map(Participant::Here));
    }
    if let Some(program) = &request.others {
        let others = Others::new(program.clone());
        let listed = others.list().await?;
        all.extend(listed.into_iter().map(|one| Participant::Elsewhere(others.clone(), one)));
    }
    for name in &request.subjects {
        let known: Vec<&str> = all.iter().map(|one| one.about().name.as_str()).collect();
        if !known.contains(&name.as_str()) {
            if server.is_none() && ALL_ON_POSTGRES.contains(&name.as_str()) {
                return Err(
                    format!("the subject {name:?} takes a server: {HOW_TO_NAME_ONE}").into()
                );
            }
            let meant = nearest(name, known.iter().copied()).unwrap_or_default();
            return Err(format!(
                "there is no subject {name:?}; did you mean {meant:?}? Known: {}",
                known.join(", ")
            )
            .into());
        }
    }
    all.retain(|one| request.subjects.is_empty() || request.subjects.contains(&one.about().name));
    Ok(all)
}

/// Measures everything that is asked for.
pub async fn run(request: &Request, watcher: Watcher<'_>) -> Result<Results> {
    let Some(url) = &request.postgres else { return run_all(request, None, watcher).await };
    let server = Server::start(url).await?;
    let results = run_all(request, Some(&server), watcher).await;
    // What it has made goes, however that ended.
    server.end().await?;
    results
}

async fn run_all(
    request: &Request,
    server: Option<&Arc<Server>>,
    watcher: Watcher<'_>,
) -> Result<Results> {
    let participants = participants(request, server).await?;
    let sizes = Sizes::of(request);
    let plan = plan(request);
    let scratch = machine::scratch(&request.directory)
        .map_err(|error| format!("{}: {error}", request.directory.display()))?;
    let machine = machine::examine(scratch.path(), ALLOCATOR, 500)?;
    let opens = request.operations.is_empty() || request.operations.contains(&Operation::Open);
    let openings = if opens { sizes.openings.len() as u64 } else { 0 };
    // Several processes, and two stores.
    let of_several = if server.is_some() && has_several_writers(request) { 2 } else { 0 };
    let mut steps = Steps { watcher, done: 0, all: plan.len() as u64 + openings + of_several };
    let mut tables = Vec::new();
    // Cases of one content follow each other, and use the same open subjects.
    for cases in plan.chunk_by(|a, b| a.case.content == b.case.content && a.who == b.who) {
        let group =
            Group { participants: &participants, rounds: sizes.rounds, scratch: scratch.path() };
        tables.extend(group.run(cases, &mut steps).await?);
    }
    let mut opened = Vec::new();
    if opens {
        for &nodes in &sizes.openings {
            steps.next(&format!("open with {nodes} nodes"));
            for participant in &participants {
                if let Participant::Here(candidate) = participant
                    && Who::Distinct.includes(&candidate.about)
                    && !candidate.about.is_on_a_server()
                {
                    let opening = opening::measure(candidate, nodes, sizes.rounds, scratch.path());
                    opened.push(opening.await?);
                }
            }
        }
    }
    let (processes, following) = match server {
        Some(server) if has_several_writers(request) => {
            steps.next("several processes on one database");
            let spans = (sizes.rounds, sizes.process_seconds);
            let of = server::measure(server, sizes.in_processes, spans, scratch.path()).await?;
            steps.next("following: acknowledged here to visible there");
            let follows = server::measure_following(server, sizes.rounds, scratch.path()).await?;
            (of, Some(follows))
        }
        _ => (Vec::new(), None),
    };
    let settings = Settings {
        effort: request.effort.name().to_owned(),
        rounds: sizes.rounds,
        seconds: sizes.seconds,
    };
    let reach = reach::reach((&tables, &opened, &processes), sizes.growth);
    Ok(Results { machine, settings, tables, openings: opened, processes, following, reach })
}

fn has_several_writers(request: &Request) -> bool {
    let of_store = request.subjects.is_empty() || request.subjects.iter().any(|s| s == ON_POSTGRES);
    of_store
        && (request.operations.is_empty() || request.operations.contains(&Operation::Heartbeat))
}

struct Steps<'w> {
    watcher: Watcher<'w>,
    done: u64,
    all: u64,
}

impl Steps<'_> {
    fn next(&mut self, what: &str) {
        (self.watcher)(what, self.done, self.all);
        self.done += 1;
    }
}

/// Cases of one content.
struct Group<'g> {
    participants: &'g [Participant],
    rounds: usize,
    scratch: &'g Path,
}

impl Group<'_> {
    async fn run(&self, cases: &[Planned], steps: &mut Steps<'_>) -> Result<Vec<Measured>> {
        let mut sessions: Vec<Option<Session>> = self.participants.iter().map(|_| None).collect();
        let mut tables = Vec::new();
        for planned in cases {
            steps.next(&planned.case.title());
            let measured = self.measure(planned, &mut sessions).await?;
            // Of those who were asked for, nobody may take part.
            if !measured.subjects.is_empty() {
                tables.push(measured);
            }
        }
        for session in sessions.into_iter().flatten() {
            session.end().await?;
        }
        Ok(tables)
    }

    async fn measure(
        &self,
        planned: &Planned,
        sessions: &mut [Option<Session>],
    ) -> Result<Measured> {
        let case = &planned.case;
        let of = |one: &Participant| OfSubject {
            about: one.about().clone(),
            runs: Vec::new(),
            left_out: planned.who.leaves_out(one.about()).map(str::to_owned),
        };
        let mut subjects: Vec<OfSubject> = self.participants.iter().map(of).collect();
        // What one changes for good cannot be repeated on it.
        let is_changed_for_good = planned.shares_subject && case.operation == Operation::Register;
        let rounds = if is_changed_for_good { 1 } else { self.rounds };
        for _ in 0..rounds {
            let everybody = self.participants.iter().zip(sessions.iter_mut()).zip(&mut subjects);
            for ((participant, session), subject) in everybody {
                if !planned.who.includes(participant.about()) {
                    continue;
                }
                let run = self.once(planned, participant, session).await.map_err(|error| {
                    format!("{}, {}: {error}", subject.about.name, case.title())
                })?;
                subject.runs.push(run);
            }
        }
        subjects.retain(|subject| !subject.runs.is_empty() || subject.left_out.is_some());
        Ok(Measured { case: case.clone(), subjects })
    }

    async fn once(
        &self,
        planned: &Planned,
        participant: &Participant,
        session: &mut Option<Session>,
    ) -> Result<Run> {
        let case = &planned.case;
        let is_fresh = needs_a_fresh_subject(case.operation) && !planned.shares_subject;
        let case = if is_fresh { supplied(case, participant.about()) } else { case.clone() };
        match participant {
            Participant::Elsewhere(others, about) => {
                others.run(&about.name, &case, self.scratch).await
            }
            Participant::Here(candidate) if is_fresh => {
                run_once(candidate, &case, self.scratch).await
            }
            Participant::Here(candidate) => {
                if session.is_none() {
                    *session = Some(Session::open(candidate, case.content, self.scratch).await?);
                }
                let session = session.as_ref().ok_or("the subject is not open")?;
                session.run(&case).await
            }
        }
    }
}

/// With as many pre-auth keys as a run can use up.
fn supplied(case: &Case, about: &About) -> Case {
    let preauth_keys = match case.operation {
        Operation::Register | Operation::ReadsWhileWriting => keys_for(case, about.shares_commits),
        _ => 0,
    };
    Case { content: Content { preauth_keys, ..case.content }, ..case.clone() }
}
