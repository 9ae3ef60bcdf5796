//! One call on its way from the caller to the link, and who waits for its answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use clusterkit_core::id::NodeId;
use clusterkit_wire::frame::{CallId, kind as frame_kind};
use clusterkit_wire::hello::Class;
use clusterkit_wire::limits::FRAME_HEADER_BYTES;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::{CallError, Target};

/// What is to be sent, and to whom.
#[derive(Clone)]
pub(super) struct Parcel {
    pub(super) kind: u8,
    pub(super) body: Bytes,
    expected: Option<NodeId>,
}

impl Parcel {
    pub(super) fn new(to: &Target, class: Class, kind: u8, body: Bytes) -> Result<Self, CallError> {
        assert!(kind < frame_kind::TRANSPORT_FIRST, "kind {kind:#x} belongs to the transport");
        let (bytes, bytes_max) = (FRAME_HEADER_BYTES + body.len(), class.frame_bytes_max());
        if bytes > bytes_max {
            return Err(CallError::TooLarge { bytes, bytes_max });
        }
        Ok(Self { kind, body, expected: to.node.clone() })
    }

    /// The permits that its body takes from a semaphore that counts bytes.
    pub(super) fn body_permits(&self) -> u32 {
        permits(&self.body)
    }
}

/// The permits that `body` takes from a semaphore that counts bytes. A body fits a frame, and a
/// frame fits the semaphore.
pub(super) fn permits(body: &Bytes) -> u32 {
    u32::try_from(body.len()).unwrap_or(u32::MAX)
}

/// How an attempt to call through one link ended.
pub(super) enum Attempt<T> {
    Done(Result<T, CallError>),
    /// Nothing was sent, and the link is no more: try with a new one.
    LinkEnded,
}

/// Decides once whether a call is sent: either the link takes it to send it, or its caller takes it
/// back, and then nothing was sent.
#[derive(Default)]
pub(super) struct Claim(AtomicBool);

impl Claim {
    /// Whether the one who asks comes first.
    pub(super) fn win(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// A call in a link's queue. Dropping it unsent tells its caller to try with another link.
pub(super) struct Call {
    pub(super) parcel: Parcel,
    pub(super) claim: Arc<Claim>,
    /// Who waits for the answer; nobody waits for one that only tells.
    pub(super) answer: Option<Answer>,
    /// The bytes it takes in the link's queue.
    pub(super) room: OwnedSemaphorePermit,
}

pub(super) type Answer = oneshot::Sender<Result<Bytes, CallError>>;

impl Call {
    /// Ends the call before it was sent.
    pub(super) fn fail(self, error: CallError) {
        if let Some(answer) = self.answer {
            // The caller may have given up.
            let _ = answer.send(Err(error));
        }
    }

    /// Takes the call to send it to `node`. `None` when it is for another node, which its caller is
    /// told, or when its caller took it back.
    pub(super) fn take_for(self, node: &NodeId) -> Option<Self> {
        match &self.parcel.expected {
            Some(expected) if expected != node => {
                let error = CallError::WrongNode { expected: expected.clone(), found: node.clone() };
                self.fail(error);
                None
            }
            _ => self.claim.win().then_some(self),
        }
    }
}

/// The calls of one connection that were sent and not yet answered.
///
/// An entry whose caller gave up stays until its answer comes or the connection ends: the other node
/// is still at work on it, and so it counts as in flight.
#[derive(Default)]
pub(super) struct Waiting {
    calls: Mutex<BTreeMap<CallId, (Answer, OwnedSemaphorePermit)>>,
}

impl Waiting {
    fn calls(&self) -> MutexGuard<'_, BTreeMap<CallId, (Answer, OwnedSemaphorePermit)>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn insert(&self, id: CallId, answer: Answer, in_flight: OwnedSemaphorePermit) {
        self.calls().insert(id, (answer, in_flight));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.calls().is_empty()
    }

    /// Gives its answer to the call, if it is one of these.
    pub(super) fn resolve(&self, id: CallId, result: Result<Bytes, CallError>) {
        let waiting = self.calls().remove(&id);
        if let Some((answer, _)) = waiting {
            // The caller may have given up.
            let _ = answer.send(result);
        }
    }

    /// Drops all: their callers learn that the connection is lost.
    pub(super) fn lose_all(&self) {
        let lost = std::mem::take(&mut *self.calls());
        drop(lost);
    }
}
