//! Carries out what core's [`Stages`] decides: calls hooks, opens and closes leases, writes notes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use clusterkit_core::handoff::{Action, Call, Outcome, Stage, Stages, Token};
use clusterkit_core::id::{Epoch, NodeId, PartitionId, PartitionVersion};
use clusterkit_core::topology::{Node, Partition, Topology};
use clusterkit_wire::hello::Class;
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

use super::message::{self, Adopted, kind};
use super::notes::ReplicaNotes;
use super::shared::{Shared, StageView};
use crate::error::DataDirError;
use crate::hooks::{self, AnyHandler, Context, Decline, ProgressCell, StageResult};
use crate::lease::LeaseLost;
use crate::transport::Target;

/// Ends of calls, drained leases and the like that may wait; their senders wait with them.
pub(super) const INBOX_MAX: usize = 1_024;
/// Stages under way that are shown anew with every change of one; more are shown with each heartbeat.
const SHOWN_AT_ONCE_MAX: usize = 256;
/// How long a holder may take to say that it knows of a new replica.
const ADOPTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How soon a copy is tried again whose leader does not know of it yet.
const ADOPTION_PAUSE: Duration = Duration::from_millis(100);

/// What reaches the task that owns the stages.
#[derive(Debug)]
pub(crate) enum StageInput {
    /// A hook ended.
    Outcome { token: Token, outcome: Outcome },
    /// The last permit of a closed lease is gone.
    Drained { partition: PartitionId, token: Token },
    /// The list of replicas was written, or not.
    Saved { token: Token, outcome: Result<(), DataDirError> },
    /// The node stops: seal what is led.
    Stop { sealed: oneshot::Sender<()> },
}

/// The stages of this node, and what runs of them.
pub(super) struct StageRunner {
    shared: Arc<Shared>,
    handler: Arc<dyn AnyHandler>,
    stages: Stages,
    notes: ReplicaNotes,
    calls: BTreeMap<Token, Running>,
    inbox: mpsc::Sender<StageInput>,
    topology: Arc<Topology>,
    stopping: Option<oneshot::Sender<()>>,
}

/// A hook that runs.
struct Running {
    cancelled: CancellationToken,
    said: Arc<ProgressCell>,
    task: AbortHandle,
}

impl StageRunner {
    pub(super) fn new(
        shared: Arc<Shared>,
        notes: ReplicaNotes,
        inbox: mpsc::Sender<StageInput>,
    ) -> Result<Self, DataDirError> {
        let (config, me) = (shared.settings.hooks.clone(), shared.node.clone());
        let stages = Stages::new(config, me, shared.incarnation(), notes.load()?);
        let handler = Arc::clone(&shared.settings.handler.handler);
        let (calls, topology) = (BTreeMap::new(), Arc::default());
        Ok(Self { shared, handler, stages, notes, calls, inbox, topology, stopping: None })
    }

    pub(super) fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Whether the node stops and nothing that it led is unsealed any more.
    pub(super) fn is_sealed_for_good(&self) -> bool {
        self.stages.is_stopping() && self.stages.is_sealed()
    }

    pub(super) fn handle_topology(&mut self, topology: Arc<Topology>) {
        self.topology = topology;
        self.stages.handle_topology(self.shared.now(), &self.topology);
        self.act();
        self.publish();
        self.shared.adopted.send_replace(Arc::clone(&self.topology));
    }

    pub(super) fn handle_timeout(&mut self) {
        // Whoever has got on since the last look is not late.
        self.hear_progress();
        self.stages.handle_timeout(self.shared.now());
        self.act();
    }

    /// Notes what hooks said of how far they are, and shows all of it.
    pub(super) fn handle_beat(&mut self) {
        self.hear_progress();
        self.show();
    }

    fn hear_progress(&mut self) {
        let now = self.shared.now();
        for (token, call) in &self.calls {
            if let Some(progress) = call.said.take() {
                self.stages.handle_progress(now, *token, progress);
            }
        }
    }

    /// Takes an input that is the stages' own; `Err` when the node cannot go on.
    pub(super) fn handle(&mut self, input: StageInput) -> Result<(), DataDirError> {
        let now = self.shared.now();
        match input {
            StageInput::Outcome { token, outcome } => {
                self.calls.remove(&token);
                self.stages.handle_outcome(now, token, outcome);
            }
            StageInput::Drained { partition, token } => self.stages.handle_drained(now, partition, token),
            StageInput::Saved { token, outcome } => {
                outcome?;
                self.stages.handle_saved(now, token);
            }
            StageInput::Stop { sealed } => {
                self.stopping = Some(sealed);
                self.stages.stop(now);
            }
        }
        self.act();
        Ok(())
    }

    fn act(&mut self) {
        while let Some(action) = self.stages.poll_action() {
            self.carry_out(action);
        }
        if self.stages.is_sealed()
            && let Some(sealed) = self.stopping.take()
        {
            // Whoever waited may have given up.
            sealed.send(()).ok();
        }
    }

    /// Shows what changed, as far as that is cheap: the rest follows with the next heartbeat.
    pub(super) fn publish(&self) {
        if self.shared.stages.borrow().statuses.len() <= SHOWN_AT_ONCE_MAX {
            return self.show();
        }
        let is_released = self.stages.is_released();
        self.shared.stages.send_if_modified(|known| {
            let changed = known.is_released != is_released;
            known.is_released = is_released;
            changed
        });
    }

    fn show(&self) {
        let view =
            StageView { statuses: self.stages.statuses().collect(), is_released: self.stages.is_released() };
        self.shared.stages.send_if_modified(|known| {
            let changed = *known != view;
            *known = view;
            changed
        });
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Abort { token } => self.abort(token),
            Action::Adopt { partition } => self.adopt(partition),
            Action::Cancel { token } => self.cancel(token),
            Action::CloseLease { token, partition, epoch } => self.close_lease(token, partition, epoch),
            Action::EndLease { partition, epoch } => self.end_lease(partition, epoch),
            Action::OpenLease { partition, epoch } => self.open_lease(partition, epoch),
            Action::Overran { partition, stage } => self.overran(partition, stage),
            Action::Run { token, call } => self.run(token, call),
            Action::Save { token, replicas } => self.save(token, replicas),
        }
    }

    fn abort(&mut self, token: Token) {
        if let Some(call) = self.calls.get(&token) {
            call.task.abort();
        }
    }

    fn cancel(&mut self, token: Token) {
        if let Some(call) = self.calls.get(&token) {
            call.cancelled.cancel();
        }
    }

    fn overran(&self, partition: PartitionId, stage: Stage) {
        self.shared.counters.overran(stage);
        if let Some((permits, since)) = self.shared.leases.gate(partition).outstanding() {
            let held = self.shared.now().since(since);
            tracing::warn!(target: "clusterkit::hooks", %partition, permits, ?held, "writes hold their permits and a handover up");
        }
        tracing::warn!(target: "clusterkit::hooks", %partition, %stage, "a hook is past its deadline");
    }

    fn save(&self, token: Token, replicas: Vec<(PartitionId, clusterkit_core::id::ReplicaUid)>) {
        let (notes, inbox) = (self.notes.clone(), self.inbox.clone());
        self.shared.tracker.spawn(async move {
            let outcome = notes.save(replicas).await;
            drop(inbox.send(StageInput::Saved { token, outcome }).await);
        });
    }
}

impl Drop for StageRunner {
    /// Hooks end with the node.
    fn drop(&mut self) {
        for call in self.calls.values() {
            call.cancelled.cancel();
            call.task.abort();
        }
    }
}

// Leases.
impl StageRunner {
    fn record(&self, partition: PartitionId) -> Option<&Partition> {
        self.topology.partition(partition)
    }

    fn open_lease(&self, partition: PartitionId, epoch: Epoch) {
        let Some(record) = self.record(partition) else { return };
        let gate = self.shared.leases.gate(partition);
        let (version, holders) = (record.version, holders(record));
        if gate.reopen(epoch) {
            gate.adopt(version, holders);
        } else {
            gate.open(epoch, version, holders);
        }
        self.shared.leases_changed.send_modify(|count| *count += 1);
    }

    fn adopt(&self, partition: PartitionId) {
        let Some(record) = self.record(partition) else { return };
        if self.shared.leases.gate(partition).adopt(record.version, holders(record)) {
            self.shared.leases_changed.send_modify(|count| *count += 1);
        }
    }

    fn close_lease(&self, token: Token, partition: PartitionId, epoch: Epoch) {
        let gate = self.shared.leases.gate(partition);
        gate.suspend(epoch);
        self.shared.leases_changed.send_modify(|count| *count += 1);
        let (inbox, stop) = (self.inbox.clone(), self.shared.stop.clone());
        self.shared.tracker.spawn(async move {
            tokio::select! {
                () = gate.drained() => drop(inbox.send(StageInput::Drained { partition, token }).await),
                () = stop.cancelled() => {}
            }
        });
    }

    /// Ends the lease of an epoch that is over, whether or not a newer one has begun. The newer one may
    /// be this node's own.
    fn end_lease(&self, partition: PartitionId, epoch: Epoch) {
        let gate = self.shared.leases.gate(partition);
        if gate.epoch() != Some(epoch) {
            return;
        }
        let newer = self.record(partition).map(|record| record.epoch).filter(|newer| *newer > epoch);
        gate.close(newer.map_or(LeaseLost::NotLeader, |epoch| LeaseLost::Superseded { epoch }));
        self.shared.leases_changed.send_modify(|count| *count += 1);
    }
}

/// Where a write belongs, the leader first.
fn holders(record: &Partition) -> Arc<[NodeId]> {
    record.holders().cloned().collect()
}

// Hooks.
impl StageRunner {
    fn run(&mut self, token: Token, call: Call) {
        let cancelled = CancellationToken::new();
        let Some(me) = self.topology.nodes.get(&self.shared.node).cloned() else {
            // Removed from the cluster: the node ends, and calls again when it is back.
            self.refuse_later(token);
            return;
        };
        let said = Arc::<ProgressCell>::default();
        let context = Context {
            cancelled: cancelled.clone(),
            said: Arc::clone(&said),
            deadline: deadline(&self.shared, call.stage()),
            node: me,
            topology: Arc::clone(&self.topology),
        };
        tracing::debug!(target: "clusterkit::hooks", partition = %call.partition(), stage = %call.stage(), "calling a hook");
        let asked = Asked { shared: Arc::clone(&self.shared), context };
        let handler = Arc::clone(&self.handler);
        let (stage, partition) = (call.stage(), call.partition());
        let hook = self.shared.tracker.spawn(asked.call(handler, call));
        self.calls.insert(token, Running { cancelled, said, task: hook.abort_handle() });
        let inbox = self.inbox.clone();
        self.shared.tracker.spawn(async move {
            let outcome = match hook.await {
                Ok(answer) => outcome_of(answer),
                Err(error) if error.is_panic() => {
                    Outcome::Refused("the hook panicked; the log says where".to_owned())
                }
                Err(_) => Outcome::Aborted,
            };
            if let Outcome::Refused(reason) = &outcome {
                tracing::warn!(target: "clusterkit::hooks", %partition, %stage, reason, "a hook refused");
            }
            drop(inbox.send(StageInput::Outcome { token, outcome }).await);
        });
    }

    fn refuse_later(&self, token: Token) {
        let inbox = self.inbox.clone();
        self.shared.tracker.spawn(async move {
            drop(inbox.send(StageInput::Outcome { token, outcome: Outcome::Aborted }).await);
        });
    }
}

fn deadline(shared: &Shared, stage: Stage) -> Duration {
    let config = &shared.settings.hooks;
    match stage {
        Stage::Prepare => config.prepare_deadline,
        Stage::CatchUp => config.catch_up_deadline,
        Stage::Seal => config.seal_deadline,
        Stage::Activate => config.activate_deadline,
        Stage::Release => config.release_deadline,
    }
}

fn outcome_of(answer: StageResult) -> Outcome {
    match answer {
        Ok(()) => Outcome::Done,
        Err(Decline::Defer(pause)) => Outcome::Deferred(pause),
        Err(Decline::Refuse(error)) => Outcome::Refused(text_of(error.as_ref())),
    }
}

/// Characters of a refusal that are shown and sent.
const REASON_CHARS_MAX: usize = 200;

/// An error with its causes, on one line.
fn text_of(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.chars()
        .map(|character| if character.is_control() { ' ' } else { character })
        .take(REASON_CHARS_MAX)
        .collect()
}

/// A call with everything it needs.
struct Asked {
    shared: Arc<Shared>,
    context: Context,
}

impl Asked {
    async fn call(self, handler: Arc<dyn AnyHandler>, call: Call) -> StageResult {
        match call {
            Call::Prepare { partition, uid } => {
                let record = self.context.topology.partition(partition);
                let in_sync = record.is_some_and(|record| record.is_electable(&self.shared.node));
                handler.prepare(hooks::Prepare { partition, uid, in_sync, context: self.context }).await
            }
            Call::CatchUp { partition, uid, epoch, leader, version, .. } => {
                let sources = self.sources(partition, version).await;
                let Some(leader) = sources.iter().find(|source| source.id == leader).cloned() else {
                    return Err(Decline::Defer(ADOPTION_PAUSE));
                };
                let context = self.context;
                let stage = hooks::CatchUp { partition, uid, epoch, leader, sources, version, context };
                handler.catch_up(stage).await
            }
            Call::Seal { partition, epoch, cause } => {
                handler.seal(hooks::Seal { partition, epoch, cause, context: self.context }).await
            }
            Call::Activate { partition, epoch, cause } => {
                handler.activate(hooks::Activate { partition, epoch, cause, context: self.context }).await
            }
            Call::Release { partition, uid } => {
                let leader =
                    self.context.topology.partition(partition).and_then(|record| record.leader.as_ref());
                let leader = leader.and_then(|leader| self.context.topology.nodes.get(leader)).cloned();
                handler.release(hooks::Release { partition, uid, leader, context: self.context }).await
            }
        }
    }

    /// The living holders that have adopted the record: what they acknowledge from now on comes to
    /// this replica too.
    async fn sources(&self, partition: PartitionId, version: PartitionVersion) -> Vec<Arc<Node>> {
        let holders = self.context.topology.partition(partition).into_iter().flat_map(Partition::holders);
        let others = holders.filter(|holder| **holder != self.shared.node);
        let others: Vec<_> =
            others.filter_map(|holder| self.context.topology.nodes.get(holder)).cloned().collect();
        let asked = others.into_iter().filter(|node| node.is_live()).map(|node| async move {
            let adopted = self.has_adopted(&node, partition, version).await;
            adopted.then_some(node)
        });
        futures_util::future::join_all(asked).await.into_iter().flatten().collect()
    }

    async fn has_adopted(&self, node: &Node, partition: PartitionId, version: PartitionVersion) -> bool {
        let target = Target { addr: node.node_addr.clone(), node: Some(node.id.clone()) };
        let body = message::encode(&Adopted { partition, version });
        let answer = self
            .shared
            .transport()
            .call(&target, Class::Control, kind::ADOPTED, body, ADOPTION_TIMEOUT)
            .await;
        answer.ok().and_then(|body| message::decode(&body).ok()).unwrap_or(false)
    }
}
