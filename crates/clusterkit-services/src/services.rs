//! The state machine of a node: hands each request to its service.

use bytes::Bytes;
use clusterkit_data::{Entry, Question, StateMachine, Transaction, View};
use clusterkit_storage::state_store::StateError;

use crate::header::{self, RequestError};
use crate::kv;
use crate::namespace::Namespace;

/// All services of a node as one state machine.
///
/// A request that is malformed, of an unknown version or for an unknown service changes nothing and is answered by a
/// [`RequestError`], on all replicas of one version alike.
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Services;

impl Services {
    /// All services.
    #[must_use]
    pub fn new() -> Self {
        Self
    }
}

impl StateMachine for Services {
    fn apply(&self, entry: &Entry<'_>, state: &mut Transaction<'_>) -> Result<Bytes, StateError> {
        match read::<kv::Command>(entry.command) {
            Ok((namespace, command)) => Ok(kv::apply(&namespace, &command, entry, state)?.encode()),
            Err(error) => Ok(header::write_error(error)),
        }
    }

    fn query(&self, question: &Question<'_>, state: &View<'_>) -> Result<Bytes, StateError> {
        match read::<kv::Question>(question.question) {
            Ok((namespace, asked)) => Ok(kv::query(&namespace, &asked, question.now, state)?.encode()),
            Err(error) => Ok(header::write_error(error)),
        }
    }
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8]) -> Result<(Namespace, T), RequestError> {
    header::read_request(header::SERVICE_KV, bytes)
}
