//! A thread for each worker.

use std::io;
use std::sync::Arc;
use std::thread::{self, Builder, JoinHandle};

use clusterkit_storage::disk::DiskLock;
use clusterkit_storage::shared_log::PendingUpkeep;
use tracing::warn;

use super::limits::{CHECKPOINT_PAUSE, ERRANDS_MAX};
use super::log_worker::ReadErrand;
use super::open::Workers;
use super::queue::Queue;
use super::shared::Shared;
use super::{
    Errand, LogInput, LogQueue, LogWorker, Maintenance, Snapshots, StateInput, StateQueue, StateWorker,
    StorageError,
};

/// The storage of a node at work. Dropping it ends the threads, which carry out what waits.
#[derive(Debug)]
pub(crate) struct Running {
    /// What waits for the log.
    pub(crate) log: LogQueue,
    /// What waits for the states.
    pub(crate) states: StateQueue,
    /// States on their way.
    pub(crate) snapshots: Snapshots,
    errands: ErrandQueues,
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    servants: Vec<JoinHandle<()>>,
    _lock: DiskLock,
}

/// What waits for the threads that work for the log worker.
#[derive(Debug, Clone)]
struct ErrandQueues {
    reads: Arc<Queue<ReadErrand>>,
    upkeep: Arc<Queue<PendingUpkeep>>,
    checkpoints: Arc<Queue<()>>,
}

impl Running {
    pub(super) fn start(workers: Workers) -> io::Result<Self> {
        let Workers { log, states, maintenance, snapshots, shared, lock } = workers;
        let queue = LogQueue(Queue::new());
        let queues = StateQueue(std::array::from_fn(|_| Queue::new()));
        let errands = ErrandQueues { reads: Queue::new(), upkeep: Queue::new(), checkpoints: Queue::new() };
        let mut running = Self {
            log: queue.clone(),
            states: queues.clone(),
            snapshots,
            errands: errands.clone(),
            shared: Arc::clone(&shared),
            workers: Vec::new(),
            servants: Vec::new(),
            _lock: lock,
        };
        let errands_of_log = errands.clone();
        let (shared_of_log, queue_of_log) = (Arc::clone(&shared), queue.clone());
        running.spawn("log", move || run_log(log, &queue_of_log, &errands_of_log, &shared_of_log))?;
        for (state, inputs) in states.into_iter().zip(queues.0) {
            running.spawn("states", move || run_state(state, &inputs))?;
        }
        let (reads, shared) = (errands.reads, Arc::clone(&shared));
        running.spawn_servant("log-reads", move || run_reads(&reads, &shared))?;
        let (upkeep, answers) = (errands.upkeep, queue.clone());
        running.spawn_servant("log-upkeep", move || run_upkeep(&upkeep, &answers))?;
        running.spawn_servant("maintenance", move || {
            run_maintenance(maintenance, &errands.checkpoints, &queue);
        })?;
        Ok(running)
    }

    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = self.thread(name, run)?;
        self.workers.push(thread);
        Ok(())
    }

    fn spawn_servant(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let thread = self.thread(name, run)?;
        self.servants.push(thread);
        Ok(())
    }

    fn thread(&self, name: &str, run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
        let watch = Watch(Arc::clone(&self.shared));
        let run = move || {
            let _watch = watch;
            run();
        };
        Builder::new().name(format!("clusterkit-{name}")).spawn(run)
    }
}

impl Drop for Running {
    /// The log worker goes first, since it gives work to others.
    fn drop(&mut self) {
        self.log.0.close();
        self.states.0.iter().for_each(|queue| queue.close());
        join(&mut self.workers);
        self.errands.reads.close();
        self.errands.upkeep.close();
        self.errands.checkpoints.close();
        join(&mut self.servants);
    }
}

fn join(threads: &mut Vec<JoinHandle<()>>) {
    for thread in threads.drain(..) {
        // One that panicked has said so already.
        let _ = thread.join();
    }
}

/// Sees a thread that panics: then everything stops.
struct Watch(Arc<Shared>);

impl Drop for Watch {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.fail(StorageError::Panicked);
        }
    }
}

fn run_log(mut worker: LogWorker, queue: &LogQueue, errands: &ErrandQueues, shared: &Shared) {
    // A log that is new has its segments prepared before the first append.
    hand_out(worker.step(Vec::new()), queue, errands, shared);
    while let Some(inputs) = queue.0.wait(None) {
        hand_out(worker.step(inputs), queue, errands, shared);
    }
    if let Err(error) = worker.close() {
        warn!(error = &error as &dyn std::error::Error, "the log was not closed");
    }
}

fn hand_out(outputs: Vec<Errand>, queue: &LogQueue, errands: &ErrandQueues, shared: &Shared) {
    for errand in outputs {
        match errand {
            // One that waits is enough.
            Errand::Checkpoint => drop(errands.checkpoints.try_push((), 1)),
            Errand::Read(read) => {
                if let Err(read) = errands.reads.try_push(read, ERRANDS_MAX) {
                    read.run(shared);
                }
            }
            Errand::Upkeep(pending) => {
                if let Err(pending) = errands.upkeep.try_push(pending, ERRANDS_MAX) {
                    queue.push(LogInput::Upkept(pending.run()));
                }
            }
        }
    }
}

fn run_state(mut worker: StateWorker, inputs: &Queue<StateInput>) {
    while let Some(inputs) = inputs.wait(None) {
        worker.step(inputs);
    }
}

fn run_reads(reads: &Queue<ReadErrand>, shared: &Shared) {
    while let Some(reads) = reads.wait(None) {
        reads.into_iter().for_each(|read| read.run(shared));
    }
}

fn run_upkeep(upkeep: &Queue<PendingUpkeep>, answers: &LogQueue) {
    while let Some(upkeep) = upkeep.wait(None) {
        upkeep.into_iter().for_each(|pending| answers.push(LogInput::Upkept(pending.run())));
    }
}

fn run_maintenance(mut maintenance: Maintenance, checkpoints: &Queue<()>, answers: &LogQueue) {
    while checkpoints.wait(Some(CHECKPOINT_PAUSE)).is_some() {
        if let Some(durable) = maintenance.step() {
            answers.push(durable);
        }
    }
}
