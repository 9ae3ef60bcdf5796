//! Snapshots on their way between nodes, piece by piece.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clusterkit::ClusterKit;
use clusterkit::messages::Lane;
use clusterkit_core::id::NodeId;
use clusterkit_core::replica::{ReplicaKey, SnapshotHeader};
use clusterkit_core::time::Instant;
use tokio::sync::oneshot;
use tokio::task::spawn_blocking;

use crate::engine::Input;
use crate::limits::{
    SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_CHUNK_BYTES, SNAPSHOT_PIECE_TIMEOUT, SNAPSHOT_SILENCE_MAX,
    SNAPSHOTS_MAX,
};
use crate::shared::Shared;
use crate::storage::{Receiver, SnapshotReader};
use crate::wire::{self, Request, Response, WireDigest};

/// Sends the state of a replica to a follower; whether it arrives is seen by what the follower says next.
pub(crate) async fn send(shared: &Arc<Shared>, node: &ClusterKit, key: ReplicaKey, to: &NodeId) {
    if let Err(why) = try_send(shared, node, key, to).await {
        tracing::info!(target: "clusterkit::data", partition = %key.partition, %to, why, "a snapshot did not arrive");
    }
}

async fn try_send(
    shared: &Arc<Shared>,
    node: &ClusterKit,
    key: ReplicaKey,
    to: &NodeId,
) -> Result<(), &'static str> {
    let snapshots = shared.snapshots().ok_or("nothing is opened yet")?;
    let opened = spawn_blocking(move || snapshots.open_snapshot(key)).await;
    let opened = opened.map_err(|_| "it could not be opened")?.map_err(|_| "it could not be read")?;
    let (end, mut reader) = opened.ok_or("there is no state")?;
    let digest = WireDigest::from(reader.digest());
    let (reply, header) = oneshot::channel();
    shared.tell(Input::SnapshotHeader { key, to: to.clone(), end, reply }).await;
    let header = header.await.ok().flatten().ok_or("nobody waits for it any more")?;
    let transfer = shared.incoming.transfer_next();
    let line = Line { shared, node, to };
    line.ask(&Request::SnapshotBegin { transfer, header, digest }).await?;
    for number in 0.. {
        let (entries, rest) = next_piece(reader).await?;
        reader = rest;
        let Some(entries) = entries else { break };
        let bytes: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        line.ask(&Request::SnapshotPiece { transfer, number, entries }).await?;
        line.pause(bytes).await;
    }
    line.ask(&Request::SnapshotEnd { transfer }).await
}

type Piece = Option<Vec<(Bytes, Bytes)>>;

async fn next_piece(mut reader: SnapshotReader) -> Result<(Piece, SnapshotReader), &'static str> {
    let read =
        spawn_blocking(move || reader.next_chunk(SNAPSHOT_CHUNK_BYTES).map(|piece| (piece, reader))).await;
    read.map_err(|_| "it could not be read")?.map_err(|_| "it is damaged")
}

struct Line<'a> {
    shared: &'a Arc<Shared>,
    node: &'a ClusterKit,
    to: &'a NodeId,
}

impl Line<'_> {
    async fn ask(&self, request: &Request) -> Result<(), &'static str> {
        let body = wire::encode(request);
        let answer = self.node.request(self.to, Lane::Bulk, body, SNAPSHOT_PIECE_TIMEOUT).await;
        let answer = answer.map_err(|_| "the other node does not answer")?;
        match wire::decode(&answer) {
            Some(Response::Snapshot(true)) => Ok(()),
            _ => Err("the other node does not want it"),
        }
    }

    /// What a piece may take, so that clients have their share of disks and network.
    async fn pause(&self, bytes: usize) {
        let micros = bytes as u64 * 1_000_000 / SNAPSHOT_BYTES_PER_SECOND;
        let clock = &self.shared.clock;
        clock.sleep_until(clock.now() + Duration::from_micros(micros)).await;
    }
}

/// Snapshots that come in.
///
/// Invariant: at most [`SNAPSHOTS_MAX`], one for each replica.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    state: Mutex<IncomingState>,
}

#[derive(Debug, Default)]
struct IncomingState {
    transfer_last: u64,
    receiving: BTreeMap<ReplicaKey, Receiving>,
}

#[derive(Debug)]
struct Receiving {
    from: NodeId,
    transfer: u64,
    header: SnapshotHeader,
    digest: WireDigest,
    /// Away while a piece is being stored.
    receiver: Option<Receiver>,
    number_next: u64,
    bytes: u64,
    heard_at: Instant,
}

impl Incoming {
    fn state(&self) -> MutexGuard<'_, IncomingState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn transfer_next(&self) -> u64 {
        let mut state = self.state();
        state.transfer_last += 1;
        state.transfer_last
    }

    /// Bytes that came so far for a replica.
    pub(crate) fn bytes(&self, key: ReplicaKey) -> u64 {
        self.state().receiving.get(&key).map_or(0, |receiving| receiving.bytes)
    }

    /// Answers a request about a snapshot: whether it, or its piece, is of use.
    pub(crate) async fn handle(&self, shared: &Arc<Shared>, from: NodeId, request: Request) -> bool {
        match request {
            Request::SnapshotBegin { transfer, header, digest } => {
                self.begin(shared, (from, transfer), header, digest).await
            }
            Request::SnapshotPiece { transfer, number, entries } => {
                self.piece(shared, (&from, transfer), number, entries).await
            }
            Request::SnapshotEnd { transfer } => self.end(shared, (&from, transfer)).await,
            _ => false,
        }
    }

    async fn begin(
        &self,
        shared: &Arc<Shared>,
        (from, transfer): (NodeId, u64),
        header: SnapshotHeader,
        digest: WireDigest,
    ) -> bool {
        let key = ReplicaKey { partition: header.partition, uid: header.uid };
        let now = shared.clock.now();
        {
            let mut state = self.state();
            state.receiving.retain(|other, receiving| {
                *other != key && now.since(receiving.heard_at) < SNAPSHOT_SILENCE_MAX
            });
            if state.receiving.len() >= SNAPSHOTS_MAX {
                return false;
            }
        }
        let Some(snapshots) = shared.snapshots() else { return false };
        let opened = spawn_blocking(move || snapshots.begin_install(key)).await;
        let Ok(Ok(receiver)) = opened else { return false };
        let receiving = Receiving {
            from,
            transfer,
            header,
            digest,
            receiver: Some(receiver),
            number_next: 0,
            bytes: 0,
            heard_at: now,
        };
        self.state().receiving.insert(key, receiving);
        true
    }

    async fn piece(
        &self,
        shared: &Arc<Shared>,
        transfer: (&NodeId, u64),
        number: u64,
        entries: Vec<(Bytes, Bytes)>,
    ) -> bool {
        let Some((key, mut receiver)) = self.take_receiver(shared, transfer, number) else { return false };
        let bytes: usize = entries.iter().map(|(key, value)| key.len() + value.len()).sum();
        let stored = spawn_blocking(move || receiver.push(&entries).map(|()| receiver)).await;
        let Ok(Ok(receiver)) = stored else {
            self.state().receiving.remove(&key);
            return false;
        };
        let mut state = self.state();
        let is_it = |receiving: &&mut Receiving| receiving.is(transfer);
        let Some(receiving) = state.receiving.get_mut(&key).filter(is_it) else { return false };
        receiving.receiver = Some(receiver);
        receiving.bytes += bytes as u64;
        true
    }

    /// The one that the next piece is for, if `number` is its next.
    fn take_receiver(
        &self,
        shared: &Shared,
        transfer: (&NodeId, u64),
        number: u64,
    ) -> Option<(ReplicaKey, Receiver)> {
        let mut state = self.state();
        let (key, receiving) = state.receiving.iter_mut().find(|(_, receiving)| receiving.is(transfer))?;
        if receiving.number_next != number {
            return None;
        }
        receiving.number_next += 1;
        receiving.heard_at = shared.clock.now();
        Some((*key, receiving.receiver.take()?))
    }

    async fn end(&self, shared: &Arc<Shared>, transfer: (&NodeId, u64)) -> bool {
        let ended = {
            let mut state = self.state();
            let key =
                state.receiving.iter().find(|(_, receiving)| receiving.is(transfer)).map(|(key, _)| *key);
            key.and_then(|key| state.receiving.remove(&key))
        };
        let Some(Receiving { header, digest, receiver: Some(receiver), .. }) = ended else { return false };
        if !receiver.ready(digest.into()) {
            return false;
        }
        let (reply, installs) = oneshot::channel();
        let (key, end) = (ReplicaKey { partition: header.partition, uid: header.uid }, header.end);
        shared.tell(Input::SnapshotReceived { header, reply }).await;
        let installs = installs.await.unwrap_or(false);
        if let Some(snapshots) = shared.snapshots().filter(|_| !installs) {
            snapshots.discard(key, end);
        }
        installs
    }
}

impl Receiving {
    fn is(&self, (from, transfer): (&NodeId, u64)) -> bool {
        self.from == *from && self.transfer == transfer
    }
}
