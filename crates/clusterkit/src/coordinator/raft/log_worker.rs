//! The one place that touches the control plane's files: a worker with a bounded queue.
//!
//! Everything that must be durable in order (votes, appends, truncations) goes through one queue,
//! so that the order on disk is the order in which it was asked for. Appends that wait together
//! share one sync. After the first failed write or sync the worker answers every request with an
//! error and the node stops, for the reason that [`LogFailure`] keeps.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_storage::checked::{read_checked, write_checked};
use clusterkit_storage::disk::{Disk, DiskLock};
use clusterkit_storage::record_log::RecordLog;
use openraft::storage::IOFlushed;
use tokio::sync::{mpsc, oneshot, watch};

use super::files::{PURGED_FILE, SNAPSHOT_FILE, VOTE_FILE};
use super::types::TypeConfig;

/// Requests that may wait for the worker. More make the caller wait.
const QUEUE_MAX: usize = 256;
/// Appends that share one sync.
const BATCH_MAX: usize = 64;

/// Where the worker runs.
#[derive(Debug, Clone)]
pub(crate) enum IoMode {
    /// On a thread of its own: a sync never holds up the runtime.
    Thread,
    /// As a task: for disks that never block, so that virtual time stands still meanwhile, but for
    /// what a sync is said to take.
    #[cfg_attr(not(feature = "testing"), expect(dead_code, reason = "only the test kit's disk never blocks"))]
    Task {
        /// How long a sync takes just now.
        sync_time: watch::Receiver<Duration>,
    },
}

impl IoMode {
    /// As a task, for disks whose syncs take no time.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn task() -> Self {
        Self::Task { sync_time: watch::channel(Duration::ZERO).1 }
    }
}

/// Sends requests to the worker.
#[derive(Debug, Clone)]
pub(crate) struct LogWorkerHandle {
    requests: mpsc::Sender<Request>,
    failure: LogFailure,
    ended: watch::Receiver<()>,
}

/// The first failure of the worker, once there is one. It outlives the worker.
pub(super) type LogFailure = Arc<OnceLock<Arc<io::Error>>>;

type Reply<T> = oneshot::Sender<io::Result<T>>;

enum Request {
    /// Nothing comes after this.
    End,
    Append {
        first: u64,
        records: Vec<Bytes>,
        flushed: IOFlushed<TypeConfig>,
    },
    Purge {
        marker: Bytes,
        index: u64,
        reply: Reply<()>,
    },
    ReadSnapshot {
        reply: Reply<Option<Bytes>>,
    },
    SaveSnapshot {
        bytes: Bytes,
        reply: Reply<()>,
    },
    SaveVote {
        bytes: Bytes,
        reply: Reply<()>,
    },
    Truncate {
        last: Option<u64>,
        reply: Reply<()>,
    },
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Request")
    }
}

impl LogWorkerHandle {
    /// Starts the worker; it ends when it is [told to](Self::end), or when the last handle is dropped.
    pub(super) fn start(worker: LogWorker, mode: IoMode) -> io::Result<Self> {
        let (requests, queue) = mpsc::channel(QUEUE_MAX);
        let (failure, ended) = (Arc::clone(&worker.failure), worker.ended.subscribe());
        match mode {
            IoMode::Thread => {
                let thread = std::thread::Builder::new().name("clusterkit-raft-log".to_owned());
                thread.spawn(move || worker.run_blocking(queue))?;
            }
            IoMode::Task { sync_time } => {
                tokio::spawn(worker.run(queue, sync_time));
            }
        }
        Ok(Self { requests, failure, ended })
    }

    /// Where it is kept what broke the worker.
    pub(super) fn failure(&self) -> LogFailure {
        Arc::clone(&self.failure)
    }

    /// Queues records; `flushed` is told once they are durable, in the order of the calls.
    pub(super) async fn append(
        &self,
        first: u64,
        records: Vec<Bytes>,
        flushed: IOFlushed<TypeConfig>,
    ) -> io::Result<()> {
        self.send(Request::Append { first, records, flushed }).await
    }

    pub(super) async fn save_vote(&self, bytes: Bytes) -> io::Result<()> {
        self.ask(|reply| Request::SaveVote { bytes, reply }).await
    }

    pub(super) async fn truncate(&self, last: Option<u64>) -> io::Result<()> {
        self.ask(|reply| Request::Truncate { last, reply }).await
    }

    pub(super) async fn purge(&self, index: u64, marker: Bytes) -> io::Result<()> {
        self.ask(|reply| Request::Purge { marker, index, reply }).await
    }

    pub(super) async fn save_snapshot(&self, bytes: Bytes) -> io::Result<()> {
        self.ask(|reply| Request::SaveSnapshot { bytes, reply }).await
    }

    pub(super) async fn read_snapshot(&self) -> io::Result<Option<Bytes>> {
        self.ask(|reply| Request::ReadSnapshot { reply }).await
    }

    /// Has the worker end once it has done what it was asked before, and waits until it has: from then
    /// on nothing is written, and the files are closed. What it is asked later fails. Giving up the wait
    /// calls nothing off.
    pub(super) async fn end(&self) {
        let requests = self.requests.clone();
        // A queue that is full takes it when the disk goes on.
        tokio::spawn(async move { requests.send(Request::End).await });
        // Nobody ever sends: the wait is for the sender's end.
        while self.ended.clone().changed().await.is_ok() {}
    }

    async fn ask<T>(&self, request: impl FnOnce(Reply<T>) -> Request) -> io::Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(request(reply)).await?;
        answer.await.map_err(|_| stopped())?
    }

    async fn send(&self, request: Request) -> io::Result<()> {
        self.requests.send(request).await.map_err(|_| stopped())
    }
}

fn stopped() -> io::Error {
    io::Error::other("the log worker has stopped")
}

/// The worker and its files.
pub(super) struct LogWorker {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    log: RecordLog,
    failure: LogFailure,
    is_ending: bool,
    /// What keeps others away from the files.
    _lock: Option<Arc<DiskLock>>,
    /// Dropped with the worker, and after its files.
    ended: watch::Sender<()>,
}

impl LogWorker {
    pub(super) fn new(disk: Arc<dyn Disk>, dir: PathBuf, log: RecordLog) -> Self {
        let (failure, ended) = (LogFailure::default(), watch::Sender::new(()));
        Self { disk, dir, log, failure, is_ending: false, _lock: None, ended }
    }

    /// Holds `lock` until it ends.
    pub(super) fn holding(self, lock: Arc<DiskLock>) -> Self {
        Self { _lock: Some(lock), ..self }
    }

    fn run_blocking(mut self, mut queue: mpsc::Receiver<Request>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while !self.is_ending && queue.blocking_recv_many(&mut batch, BATCH_MAX) > 0 {
            self.serve(&mut batch);
        }
    }

    async fn run(mut self, mut queue: mpsc::Receiver<Request>, sync_time: watch::Receiver<Duration>) {
        let mut batch = Vec::with_capacity(BATCH_MAX);
        while !self.is_ending && queue.recv_many(&mut batch, BATCH_MAX).await > 0 {
            let time = *sync_time.borrow() * syncs_of(&batch);
            if !time.is_zero() {
                tokio::time::sleep(time).await;
            }
            self.serve(&mut batch);
        }
    }

    /// Serves requests in order; neighbouring appends share a sync.
    fn serve(&mut self, batch: &mut Vec<Request>) {
        let mut unsynced = Vec::new();
        for request in batch.drain(..) {
            match request {
                Request::Append { first, records, flushed } => {
                    let outcome = self.write(first, &records);
                    unsynced.push((outcome, flushed));
                }
                other => {
                    self.flush(&mut unsynced);
                    self.serve_one(other);
                }
            }
        }
        self.flush(&mut unsynced);
    }

    fn flush(&mut self, unsynced: &mut Vec<(io::Result<()>, IOFlushed<TypeConfig>)>) {
        if unsynced.is_empty() {
            return;
        }
        // Whether it failed is asked for each of those who share it.
        drop(self.guard(|worker| worker.log.sync().map_err(io::Error::other)));
        for (written, flushed) in unsynced.drain(..) {
            flushed.io_completed(written.and_then(|()| self.check_whole()));
        }
    }

    /// That nothing has failed yet.
    fn check_whole(&self) -> io::Result<()> {
        self.failure.get().map_or(Ok(()), |failure| Err(share_error(failure)))
    }

    fn serve_one(&mut self, request: Request) {
        match request {
            Request::Append { .. } => unreachable!("appends are served together"),
            Request::End => self.is_ending = true,
            Request::Purge { marker, index, reply } => {
                answer(reply, self.guard(|worker| worker.purge(&marker, index)));
            }
            Request::ReadSnapshot { reply } => answer(reply, self.guard(|worker| worker.read(SNAPSHOT_FILE))),
            Request::SaveSnapshot { bytes, reply } => {
                answer(reply, self.guard(|worker| worker.save(SNAPSHOT_FILE, &bytes)));
            }
            Request::SaveVote { bytes, reply } => {
                answer(reply, self.guard(|worker| worker.save(VOTE_FILE, &bytes)));
            }
            Request::Truncate { last, reply } => answer(reply, self.guard(|worker| worker.truncate(last))),
        }
    }

    /// Runs `action` unless an earlier one failed: after a failed sync nobody knows what is on the
    /// disk, so nothing more is promised.
    fn guard<T>(&mut self, action: impl FnOnce(&mut Self) -> io::Result<T>) -> io::Result<T> {
        self.check_whole()?;
        action(self).map_err(|error| {
            tracing::error!(target: "clusterkit::storage", %error, "the control-plane log failed; this node stops");
            share_error(self.failure.get_or_init(|| Arc::new(error)))
        })
    }

    /// An entry lies at its own index, or the log is another one than Raft believes.
    fn write(&mut self, first: u64, records: &[Bytes]) -> io::Result<()> {
        self.guard(|worker| {
            let next = worker.log.next_index();
            if next != first {
                return Err(io::Error::other(format!("entry {first} was to be written at {next}")));
            }
            worker.log.append(records).map(drop).map_err(io::Error::other)
        })
    }

    fn truncate(&mut self, last: Option<u64>) -> io::Result<()> {
        let first_gone = last.map_or(0, |last| last + 1).max(self.log.first_index());
        self.log.truncate_from(first_gone).map_err(io::Error::other)
    }

    /// The marker goes first: records below a purge that were not deleted are skipped at the next
    /// start, whereas a log without its marker would have a hole at its beginning.
    fn purge(&mut self, marker: &Bytes, index: u64) -> io::Result<()> {
        self.save(PURGED_FILE, marker)?;
        if self.log.last_index().is_none_or(|last| last <= index) {
            return self.log.reset_to(index + 1).map_err(io::Error::other);
        }
        self.log.purge_to(index + 1).map_err(io::Error::other)
    }

    fn save(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        write_checked(self.disk.as_ref(), &self.dir.join(name), bytes).map_err(io::Error::other)
    }

    fn read(&self, name: &str) -> io::Result<Option<Bytes>> {
        read_checked(self.disk.as_ref(), &self.dir.join(name)).map_err(io::Error::other)
    }
}

/// How many syncs the requests take, one after the other: neighbouring appends share one, and a file
/// that is replaced takes one for itself and one for its name.
fn syncs_of(batch: &[Request]) -> u32 {
    let is_append = |request: &Request| matches!(request, Request::Append { .. });
    let runs = batch.chunk_by(|one, next| is_append(one) && is_append(next));
    let syncs = runs.map(|run| match run[0] {
        Request::Append { .. } => 1,
        Request::End | Request::ReadSnapshot { .. } => 0,
        Request::Purge { .. }
        | Request::SaveSnapshot { .. }
        | Request::SaveVote { .. }
        | Request::Truncate { .. } => 2,
    });
    syncs.sum()
}

fn answer<T>(reply: Reply<T>, outcome: io::Result<T>) {
    // Nobody waits any more when the caller was cancelled; what was done stays done.
    drop(reply.send(outcome));
}

/// The same error for one more of those who wait.
fn share_error(error: &Arc<io::Error>) -> io::Error {
    io::Error::new(error.kind(), Arc::clone(error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clusterkit_core::id::StoreId;
    use clusterkit_storage::disk::SimDisk;

    use super::*;
    use crate::coordinator::raft::files::RaftFiles;

    fn records(count: u64) -> Vec<Bytes> {
        (0..count).map(|number| Bytes::from(number.to_le_bytes().to_vec())).collect()
    }

    fn open(disk: &SimDisk) -> LogWorker {
        let files =
            RaftFiles::open_or_create(Arc::new(disk.clone()), Path::new("/raft"), StoreId(7)).unwrap();
        LogWorker::new(files.disk, files.dir, files.log)
    }

    #[test]
    fn an_entry_is_never_written_at_another_index() {
        let disk = SimDisk::new();
        let mut worker = open(&disk);
        worker.write(0, &records(2)).unwrap();
        let error = worker.write(5, &records(1)).unwrap_err();
        assert_eq!(error.to_string(), "entry 5 was to be written at 2");
        assert!(worker.write(2, &records(1)).is_err(), "nothing more is promised after that");
    }
}
