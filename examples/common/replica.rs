//! The requests between the programs: a write of a copy, a read of a copy, a part of a whole copy.
//!
//! | request | who sends it |
//! | --- | --- |
//! | `POST /replica/write` | a leader, or a client that writes all copies by itself |
//! | `POST /replica/read` | a client that reads several copies |
//! | `POST /replica/copy` | a node that is to hold a partition |

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use clusterkit::core::id::{Incarnation, ReplicaUid};
use clusterkit::{ClusterKit, NodeId, PartitionId};
use serde::{Deserialize, Serialize};

use crate::http::{Ask, Http, HttpError};
use crate::limits::{ADOPTION_PATIENCE, COPY_KEYS_MAX, REQUEST_TIMEOUT};
use crate::store::{Copier, Entry, Page, Refused, Routed, Store};

/// A write of one copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Write {
    /// Where it belongs.
    pub partition: PartitionId,
    /// By which record it was sent here.
    pub routed: Routed,
    /// The key.
    pub key: String,
    /// What it shall have.
    pub entry: Entry,
}

/// A read of one copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Read {
    /// Where it belongs.
    pub partition: PartitionId,
    /// By which record it was sent here.
    pub routed: Routed,
    /// The key.
    pub key: String,
}

/// A part of a copy.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Copy {
    /// Of which partition.
    pub partition: PartitionId,
    /// The record that names the copier: the source adopts it first.
    pub routed: Routed,
    /// Who copies.
    pub node: NodeId,
    /// Under which placement.
    pub uid: ReplicaUid,
    /// In which run.
    pub incarnation: Incarnation,
    /// The last key that it has of this copy.
    pub after: Option<String>,
}

/// What a replica says of a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// There is no answer, or none that can be read: the outcome is unknown.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// It was refused, and nothing changed.
    #[error("the replica refused")]
    Refused(#[source] Refused),
}

/// The client's side.
impl Http {
    /// Writes one copy, on the node at `addr`.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub async fn write_copy(
        &self,
        addr: &str,
        write: &Write,
        patience: Duration,
    ) -> Result<(), ReplicaError> {
        self.ask_replica(&Ask::post(addr, "/replica/write", write)?, patience).await
    }

    /// Reads one copy, on the node at `addr`.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub async fn read_copy(
        &self,
        addr: &str,
        read: &Read,
        patience: Duration,
    ) -> Result<Option<Entry>, ReplicaError> {
        self.ask_replica(&Ask::post(addr, "/replica/read", read)?, patience).await
    }

    /// Takes a part of the copy on the node at `addr`.
    ///
    /// # Errors
    ///
    /// See [`ReplicaError`].
    pub async fn copy_page(&self, addr: &str, copy: &Copy) -> Result<Page, ReplicaError> {
        self.ask_replica(&Ask::post(addr, "/replica/copy", copy)?, REQUEST_TIMEOUT).await
    }

    async fn ask_replica<T: serde::de::DeserializeOwned>(
        &self,
        ask: &Ask,
        patience: Duration,
    ) -> Result<T, ReplicaError> {
        let reply = self.send(ask, patience).await?;
        if reply.status == StatusCode::CONFLICT {
            return Err(ReplicaError::Refused(reply.json()?));
        }
        Ok(reply.success()?)
    }
}

/// The node's side: routes to be merged into its own.
pub fn routes(ck: ClusterKit, store: Arc<Store>) -> Router {
    Router::new()
        .route("/replica/write", post(write))
        .route("/replica/read", post(read))
        .route("/replica/copy", post(copy))
        .with_state(Replica { ck, store })
}

#[derive(Clone)]
struct Replica {
    ck: ClusterKit,
    store: Arc<Store>,
}

async fn write(State(replica): State<Replica>, Json(write): Json<Write>) -> Response {
    answer(replica.store.write(write.partition, write.routed, &write.key, write.entry))
}

async fn read(State(replica): State<Replica>, Json(read): Json<Read>) -> Response {
    answer(replica.store.read(read.partition, read.routed, &read.key))
}

/// Serves a copy, once everything that is written here from now on goes to the copier too.
async fn copy(State(replica): State<Replica>, Json(copy): Json<Copy>) -> Response {
    let (partition, version) = (copy.partition, copy.routed.version);
    if replica.ck.adopted(partition, version, ADOPTION_PATIENCE).await.is_err() {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    let Some(copier) = copier(&replica.ck, &copy) else {
        return answer::<Page>(Err(Refused::NotHeld));
    };
    answer(replica.store.copy(partition, copy.routed, copier, copy.after.as_deref(), COPY_KEYS_MAX))
}

/// The copier, as this node's topology knows it; `None` when it is to hold nothing any more.
fn copier(ck: &ClusterKit, copy: &Copy) -> Option<Copier> {
    let record = ck.partition_info(copy.partition)?;
    let replica = record.replica(&copy.node).filter(|replica| replica.uid == copy.uid)?;
    let (node, uid, incarnation) = (copy.node.clone(), copy.uid, copy.incarnation);
    Some(Copier { node, uid, incarnation, lapses: replica.lapses })
}

fn answer<T: Serialize>(outcome: Result<T, Refused>) -> Response {
    match outcome {
        Ok(done) => Json(done).into_response(),
        Err(refused) => (StatusCode::CONFLICT, Json(refused)).into_response(),
    }
}
