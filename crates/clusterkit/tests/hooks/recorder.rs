//! Handlers that write down what they are asked, and do as they are told.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use clusterkit::PartitionId;
use clusterkit::hooks::{
    Activate, ActivateCause, CatchUp, Decline, PartitionHandler, Position, Prepare, Release, Seal, SealCause,
    Stage, StageResult,
};
use tokio::sync::watch;

/// What a hook does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    Agree,
    /// Waits until the rule is another one.
    Hang,
    Refuse,
}

/// What all nodes were asked, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Recorders {
    shared: Arc<Mutex<Book>>,
}

#[derive(Debug, Default)]
struct Book {
    calls: Vec<(u32, Call)>,
    answers: Vec<(u32, Stage)>,
    changed: watch::Sender<()>,
    rules: BTreeMap<(u32, Stage), watch::Sender<Rule>>,
    /// What nodes say of their copies at an election; `None` never comes.
    positions: BTreeMap<u32, Option<Position>>,
}

#[derive(Debug, Clone)]
enum Call {
    Prepare,
    CatchUp,
    Seal(SealCause),
    Activate(ActivateCause),
    Release,
}

impl Call {
    fn stage(&self) -> Stage {
        match self {
            Self::Prepare => Stage::Prepare,
            Self::CatchUp => Stage::CatchUp,
            Self::Seal(_) => Stage::Seal,
            Self::Activate(_) => Stage::Activate,
            Self::Release => Stage::Release,
        }
    }
}

impl Recorders {
    pub(crate) fn of(&self, number: u32) -> Recorder {
        Recorder { number, recorders: self.clone() }
    }

    /// From now on the hook does so.
    pub(crate) fn rule(&self, number: u32, stage: Stage, rule: Rule) {
        self.rules(number, stage).send_replace(rule);
    }

    /// From now on the node says so of its copy at an election; of `None` it never hears the end. Nodes
    /// that are to be asked need one when they start.
    pub(crate) fn position(&self, number: u32, position: Option<Position>) {
        self.book().positions.insert(number, position);
    }

    pub(crate) fn stages(&self, number: u32) -> Vec<Stage> {
        self.calls(number).iter().map(Call::stage).collect()
    }

    pub(crate) fn story(&self) -> Vec<(u32, Stage)> {
        self.book().calls.iter().map(|(number, call)| (*number, call.stage())).collect()
    }

    pub(crate) fn causes(&self, number: u32) -> Vec<ActivateCause> {
        let calls = self.calls(number).into_iter();
        calls.filter_map(|call| if let Call::Activate(cause) = call { Some(cause) } else { None }).collect()
    }

    pub(crate) fn seal_causes(&self, number: u32) -> Vec<SealCause> {
        let calls = self.calls(number).into_iter();
        calls.filter_map(|call| if let Call::Seal(cause) = call { Some(cause) } else { None }).collect()
    }

    /// Waits until the hook was called anywhere, and says where.
    pub(crate) async fn called(&self, stage: Stage) -> u32 {
        let place =
            |book: &Book| book.calls.iter().find(|(_, call)| call.stage() == stage).map(|(who, _)| *who);
        self.until(|book| place(book).is_some()).await;
        place(&self.book()).expect("it was just there")
    }

    /// Waits until the hook has agreed.
    pub(crate) async fn answered(&self, number: u32, stage: Stage) {
        self.until(|book| book.answers.contains(&(number, stage))).await;
    }

    async fn until(&self, wanted: impl Fn(&Book) -> bool) {
        let mut changes = self.book().changed.subscribe();
        while !wanted(&self.book()) {
            changes.changed().await.expect("the book is open");
        }
    }

    pub(crate) fn forget(&self, number: u32) {
        let mut book = self.book();
        book.calls.retain(|(who, _)| *who != number);
        book.answers.retain(|(who, _)| *who != number);
    }

    fn calls(&self, number: u32) -> Vec<Call> {
        let book = self.book();
        book.calls.iter().filter(|(who, _)| *who == number).map(|(_, call)| call.clone()).collect()
    }

    fn note(&self, change: impl FnOnce(&mut Book)) {
        let mut book = self.book();
        change(&mut book);
        book.changed.send_replace(());
    }

    fn rules(&self, number: u32, stage: Stage) -> watch::Sender<Rule> {
        self.book().rules.entry((number, stage)).or_insert_with(|| watch::Sender::new(Rule::Agree)).clone()
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        self.shared.lock().expect("no test panics with it")
    }
}

/// The handler of one node.
#[derive(Debug, Clone)]
pub(crate) struct Recorder {
    number: u32,
    recorders: Recorders,
}

impl Recorder {
    async fn answer(&self, call: Call) -> StageResult {
        let mut rule = self.recorders.rules(self.number, call.stage()).subscribe();
        let stage = call.stage();
        self.recorders.note(|book| book.calls.push((self.number, call)));
        let decided = rule.wait_for(|rule| *rule != Rule::Hang).await;
        match decided.as_deref() {
            Ok(Rule::Agree) => {
                self.recorders.note(|book| book.answers.push((self.number, stage)));
                Ok(())
            }
            _ => Err(Decline::refuse("it was told to refuse")),
        }
    }
}

impl Recorder {
    /// What a hook looks up by its topology is never older than what it is called for.
    fn check_topology(&self, stage: &CatchUp) {
        let record = stage.context.topology().partition(stage.partition).expect("the partition is known");
        assert!(record.version >= stage.version, "{record:?} for version {}", stage.version);
        let replica = record.replica(&stage.context.node().id).expect("this node holds it");
        assert_eq!(replica.uid, stage.uid);
        assert!(record.in_sync.contains(&stage.leader.id));
    }
}

impl PartitionHandler for Recorder {
    async fn prepare(&self, _: Prepare) -> StageResult {
        self.answer(Call::Prepare).await
    }

    async fn catch_up(&self, stage: CatchUp) -> StageResult {
        self.check_topology(&stage);
        self.answer(Call::CatchUp).await
    }

    async fn seal(&self, stage: Seal) -> StageResult {
        self.answer(Call::Seal(stage.cause)).await
    }

    async fn activate(&self, stage: Activate) -> StageResult {
        self.answer(Call::Activate(stage.cause)).await
    }

    fn reports_position(&self) -> bool {
        self.recorders.book().positions.contains_key(&self.number)
    }

    async fn position(&self, _: PartitionId) -> Option<Position> {
        let position = self.recorders.book().positions.get(&self.number).copied()?;
        match position {
            Some(position) => Some(position),
            None => std::future::pending().await,
        }
    }

    async fn release(&self, _: Release) -> StageResult {
        self.answer(Call::Release).await
    }
}
