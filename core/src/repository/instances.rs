//! Instances.

use std::sync::Arc;

use async_trait::async_trait;

use super::unexpected;
use crate::command::InstanceCommand;
use crate::domain::{Instance, InstanceId, InstanceName};
use crate::error::{Error, ErrorKind, Result};
use crate::handle::StoreHandle;
use crate::state::Reply;

/// Instances: the processes of a control plane that run beside each other. A node's presence names the one
/// that holds its connection, so the end of one does not concern the nodes of the others.
///
/// ```
/// # ghostwire_store_memory::example(async |store| {
/// # use ghostwire_store::domain::{
/// #     Admission, MachineKey, NewUser, NodeKey, RegisterMethod, Registration, Update,
/// # };
/// # let alice = store.users().create(NewUser::local("alice".parse()?)).await?;
/// # let admission = Admission::User { user: alice.id, method: RegisterMethod::Cli };
/// # let (machine, key) = (MachineKey::from_bytes([1; 32])?, NodeKey::from_bytes([2; 32])?);
/// # let laptop = Registration::new(machine, key, "laptop".parse()?, admission);
/// # let node = store.nodes().register(laptop).await?.id;
/// // At the start. What a former process of this name held is disconnected.
/// let instance = store.instances().begin("control-1".parse()?).await?;
/// let store = store.as_instance(instance.id);
/// assert_eq!(store.presence().open(node, Update::Keep).await?.instance, Some(instance.id));
/// // Every few seconds; and who has not done so for 30 of them is lost.
/// store.instances().beat(instance.id).await?;
/// let unseen_for = std::time::Duration::from_secs(30);
/// assert_eq!(store.presence().disconnect_lost(unseen_for).await?, 0);
/// // At the end.
/// assert_eq!(store.instances().end(instance.id).await?, 1);
/// # Ok(()) }).unwrap();
/// ```
#[async_trait]
pub trait InstanceRepository: Send + Sync {
    /// A process begins, under a name that it also has after a restart. Gives the instance, with its new id.
    ///
    /// # Behavior
    /// - An instance of this name that is there is its former self, and over: the nodes that it held are
    ///   disconnected first, their absence begins now, and its id is known no longer. So two processes must not
    ///   have one name.
    /// - Beyond what one commit holds it goes on in the next one. If that fails on the way, repeat the call.
    ///
    /// # Errors
    /// Those of any write.
    async fn begin(&self, name: InstanceName) -> Result<Arc<Instance>>;

    /// It is there. Gives the instance as it is now.
    ///
    /// # Behavior
    /// - At most one row is written in [`Instance::BEAT_SECONDS`], however often this is called; other calls
    ///   write nothing. Nothing else counts as a sign of life.
    ///
    /// # Errors
    /// `NotFound` if it is over: it ended, began anew, or was declared lost; those of any write.
    async fn beat(&self, id: InstanceId) -> Result<Arc<Instance>>;

    /// It ends in good order: what it held is disconnected, and its id is known no longer. Gives how many
    /// nodes were online.
    ///
    /// # Errors
    /// `NotFound` if it is over already; those of any write.
    async fn end(&self, id: InstanceId) -> Result<u64>;

    /// An instance; `None` if there is none with this id. `view().instances()` has all of them.
    ///
    /// # Errors
    /// `Unavailable` after the store was closed.
    async fn get(&self, id: InstanceId) -> Result<Option<Arc<Instance>>>;
}

#[async_trait]
impl InstanceRepository for StoreHandle {
    async fn begin(&self, name: InstanceName) -> Result<Arc<Instance>> {
        let id = self.new_id(InstanceCommand::BEGIN, InstanceId::time_ordered)?;
        let make = |part| InstanceCommand::Begin { id, name: name.clone(), part }.into();
        let mut begun = None;
        let take = |reply| match reply {
            Reply::Instance(instance) => {
                begun = Some(instance);
                Ok(())
            }
            // What the former self held, part by part.
            Reply::Count(_) => Ok(()),
            other => Err(unexpected(&other)),
        };
        self.run_in_parts(make, take).await?;
        self.core.note_own_instance(id);
        begun.ok_or_else(|| {
            Error::new(ErrorKind::Unexpected, "an instance began without an answer")
                .during(InstanceCommand::BEGIN)
        })
    }

    async fn beat(&self, id: InstanceId) -> Result<Arc<Instance>> {
        let reply = self.run(InstanceCommand::Beat { id }).await?;
        self.core.note_own_instance(id);
        super::expect_reply!(reply, Instance)
    }

    async fn end(&self, id: InstanceId) -> Result<u64> {
        self.count_in_parts(|part| InstanceCommand::End { id, part }.into()).await
    }

    async fn get(&self, id: InstanceId) -> Result<Option<Arc<Instance>>> {
        Ok(self.open_view("instance.get")?.instances().get(id).cloned())
    }
}
