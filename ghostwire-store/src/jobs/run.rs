//! Doing the jobs: the shell around the schedule.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ghostwire_store_core::Store;
use ghostwire_store_core::domain::{Clock, InstanceId, SystemClock, Timestamp};
use ghostwire_store_core::error::Result;
use tokio::sync::watch;
use tracing::Instrument;

use super::schedule::Schedule;
use super::{Duty, Job, Plan, Records, whose_turn};
use crate::retention::apply_retention;

/// A timer is set for no longer: what goes on while the machine sleeps is looked at again.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// One run of a job.
#[derive(Debug, Clone)]
pub struct JobRun {
    /// Which one.
    pub job: Job,
    /// When it ended.
    pub at: Timestamp,
    /// How long it took.
    pub took: Duration,
    /// How many entities or rows it was about, where that is known; or why it failed.
    pub outcome: Result<Option<u64>>,
}

/// Does the jobs of a store.
pub struct Jobs {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    plan: watch::Sender<Plan>,
    records: Records,
    observer: Box<dyn Fn(&JobRun) + Send + Sync>,
    /// Which instance does them; without one whoever has them does.
    instance: Option<watch::Sender<Option<InstanceId>>>,
    duty_observer: Box<dyn Fn(Duty) + Send + Sync>,
    /// What was told of it last.
    told: Mutex<Option<Duty>>,
}

impl fmt::Debug for Jobs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jobs").field("plan", &*self.plan.borrow()).finish_non_exhaustive()
    }
}

impl Jobs {
    /// By the system's clock.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, plan: Plan) -> Self {
        Self {
            store,
            clock: Arc::new(SystemClock),
            plan: watch::Sender::new(plan),
            records: Records::new(),
            observer: Box::new(|_| {}),
            instance: None,
            duty_observer: Box::new(|_| {}),
            told: Mutex::new(None),
        }
    }

    /// Another clock, for tests and simulations.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Tells this of each run.
    #[must_use]
    pub fn observer(mut self, observer: impl Fn(&JobRun) + Send + Sync + 'static) -> Self {
        self.observer = Box::new(observer);
        self
    }

    /// Does them as this instance, so only while no other that lives began before; see [`whose_turn`]. Without
    /// one they are done whoever else does them.
    ///
    /// ```no_run
    /// # async fn example(store: std::sync::Arc<dyn ghostwire_store::Store>) -> ghostwire_store::Result<()> {
    /// use ghostwire_store::jobs::{Job, Jobs, Plan};
    ///
    /// let instance = store.instances().begin("control-1".parse()?).await?;
    /// let jobs = Jobs::new(store.clone(), Plan::default()).instance(instance.id);
    /// assert_eq!(jobs.run_in_turn(Job::Sweep).await, Some(true));
    /// store.instances().end(instance.id).await?;
    /// assert_eq!(jobs.run_in_turn(Job::Sweep).await, None);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn instance(self, id: InstanceId) -> Self {
        self.following_instance(&watch::Sender::new(Some(id)))
    }

    /// As [`instance`](Self::instance), of a process that begins anew when its instance is over, under another
    /// id. While there is none, nothing is done.
    #[must_use]
    pub fn following_instance(mut self, instance: &watch::Sender<Option<InstanceId>>) -> Self {
        self.instance = Some(instance.clone());
        self
    }

    /// Tells this when it is first known who does them, and each time that changes. Never without an instance.
    #[must_use]
    pub fn duty_observer(mut self, observer: impl Fn(Duty) + Send + Sync + 'static) -> Self {
        self.duty_observer = Box::new(observer);
        self
    }

    /// What came of them so far.
    #[must_use]
    pub fn records(&self) -> Records {
        self.records.clone()
    }

    /// Follows this plan instead, which may change while they are done.
    #[must_use]
    pub fn following(mut self, plan: &watch::Sender<Plan>) -> Self {
        self.plan = plan.clone();
        self
    }

    /// Does each job when it is due and this instance's turn, for ever, one at a time. Dropping the future ends
    /// that: what a job had begun to write is stored or not, as with any write that is not waited for.
    pub async fn run(self) {
        let mut plan = self.plan.subscribe();
        let mut schedule = Schedule::new(&plan.borrow_and_update(), self.clock.elapsed());
        self.note_plan();
        loop {
            let next = schedule.next(self.clock.elapsed());
            let wait = next.map_or(LONGEST_WAIT, |(_, wait)| wait.min(LONGEST_WAIT));
            if let Some((job, Duration::ZERO)) = next {
                match self.run_in_turn(job).await {
                    Some(succeeded) => schedule.ended(job, self.clock.elapsed(), succeeded),
                    None => schedule.skipped(job, self.clock.elapsed()),
                }
                continue;
            }
            tokio::select! {
                // It cannot fail: `self` has the sender.
                _ = plan.changed() => {
                    schedule.follow(&plan.borrow_and_update(), self.clock.elapsed());
                    self.note_plan();
                }
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    fn note_plan(&self) {
        let plan = self.plan.borrow().clone();
        Job::ALL.into_iter().for_each(|job| self.records.planned(job, plan.every(job)));
    }

    /// Does a job now if it is this instance's turn, and tells whether it succeeded; `None` if it is not. Where
    /// that cannot be told, since the store does not answer or its clock jumped ahead, the job has failed.
    pub async fn run_in_turn(&self, job: Job) -> Option<bool> {
        let begun = Instant::now();
        match self.duty().await {
            Ok(Duty::Here) => Some(self.run_one(job).await),
            Ok(Duty::Elsewhere(_) | Duty::Over) => {
                self.records.skipped(job, self.clock.now());
                None
            }
            Err(error) => Some(self.ended(job, begun, Err(error))),
        }
    }

    /// Who does them, by what is stored now.
    async fn duty(&self) -> Result<Duty> {
        let Some(instance) = &self.instance else { return Ok(Duty::Here) };
        let own = *instance.borrow();
        let found = match own {
            Some(own) => {
                let view = self.store.fresh_view().await?;
                // Others may have written later than this machine's clock says.
                let now = self.store.clock().now()?.max(view.time());
                whose_turn(view.instances().iter(), now, own)
            }
            None => Duty::Over,
        };
        self.tell(found);
        Ok(found)
    }

    fn tell(&self, found: Duty) {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner).replace(found);
        if told == Some(found) {
            return;
        }
        match found {
            Duty::Here => tracing::info!(name: "jobs_here", "this instance does the jobs"),
            Duty::Elsewhere(first) => tracing::info!(
                name: "jobs_elsewhere",
                instance = %first,
                "another instance, which began before, does the jobs"
            ),
            Duty::Over => tracing::warn!(
                name: "jobs_over",
                "this instance has not begun, or is over: it does no jobs until it begins"
            ),
        }
        (self.duty_observer)(found);
    }

    /// Does a job now, whoever's turn it is, and tells whether it succeeded.
    pub async fn run_one(&self, job: Job) -> bool {
        let plan = self.plan.borrow().clone();
        self.records.begun(job, self.clock.now());
        let begun = Instant::now();
        let span = tracing::debug_span!("job", job = job.name());
        let outcome = perform(job, self.store.as_ref(), &plan).instrument(span).await;
        self.ended(job, begun, outcome)
    }

    /// Notes and tells what came of a run, and gives whether it succeeded.
    fn ended(&self, job: Job, begun: Instant, outcome: Result<Option<u64>>) -> bool {
        let run = JobRun { job, at: self.clock.now(), took: begun.elapsed(), outcome };
        self.records.ended(&run);
        (self.observer)(&run);
        match &run.outcome {
            Ok(items) => {
                tracing::debug!(job = job.name(), items, took = ?run.took, "a job is done");
            }
            Err(error) => {
                tracing::warn!(job = job.name(), %error, "a job failed; it is tried again by itself");
            }
        }
        run.outcome.is_ok()
    }
}

/// Gives how much there was to do, where that is known.
async fn perform(job: Job, store: &dyn Store, plan: &Plan) -> Result<Option<u64>> {
    match job {
        Job::Reap => Ok(Some(store.nodes().reap_ephemeral().await?.len() as u64)),
        Job::Sweep => sweep(store, plan.keep_expired).await.map(Some),
        Job::Retention => apply_retention(store, &plan.series).await.map(|_| None),
        Job::Checkpoint => {
            let dirty = store.info().dirty_rows;
            store.checkpoint().await?;
            Ok(Some(dirty))
        }
    }
}

async fn sweep(store: &dyn Store, keep_expired: Duration) -> Result<u64> {
    let before = store.clock().now()?.saturating_sub(keep_expired);
    let mut swept = store.sessions().sweep().await?;
    swept += store.sign_ins().sweep().await?;
    swept += store.api_keys().sweep_expired(before).await?;
    swept += store.preauth_keys().sweep_expired(before).await?;
    Ok(swept)
}
