//! Keys and values over HTTP: the routes below `/v1/kv`, and those of another product that are kept.

mod answer;
mod batch;
mod change;
mod entry;
mod failure;
mod limits;
mod scan;
mod seeds;
mod session;
mod sweep;
mod text;
mod watch;
mod wish;

use std::sync::Arc;

use axum::response::Response;
use clusterkit::http::{Code, Endpoint};
use clusterkit::{ClusterKit, PartitionId};
use clusterkit_services::kv::{KvError, KvStore};
use tokio::sync::Semaphore;

pub(crate) use self::sweep::sweep;
pub(crate) use self::text::{base64, from_base64};

use self::limits::WATCHES_MAX;
use self::wish::{Flag, Origin};

/// What every write may fail with.
const WRITE_CODES: &[Code] = &[
    Code::CrossSite,
    Code::Internal,
    Code::InvalidValue,
    Code::NodeStopped,
    Code::NotAllReplicas,
    Code::NotEnoughReplicas,
    Code::NotFormed,
    Code::NotLeader,
    Code::OutcomeUnknown,
    Code::Overloaded,
    Code::SessionExpired,
    Code::TooLarge,
    Code::Unavailable,
    Code::UnknownField,
];
/// What every read may fail with.
const READ_CODES: &[Code] = &[
    Code::Internal,
    Code::InvalidValue,
    Code::MissingParameter,
    Code::NodeStopped,
    Code::NotFormed,
    Code::NotLeader,
    Code::Overloaded,
    Code::TooLarge,
    Code::Unavailable,
    Code::UnknownField,
];

/// All routes.
pub(crate) fn endpoints() -> Vec<Endpoint<KvApi>> {
    let mut endpoints = scan::endpoints();
    endpoints.extend(batch::endpoints());
    endpoints.extend(watch::endpoints());
    endpoints.extend(session::endpoints());
    endpoints.extend(entry::endpoints());
    endpoints.extend(change::endpoints());
    endpoints.extend(seeds::endpoints());
    endpoints
}

/// What the handlers share.
#[derive(Debug, Clone)]
pub(crate) struct KvApi {
    store: KvStore,
    ck: ClusterKit,
    watches: Arc<Semaphore>,
}

impl KvApi {
    pub(crate) fn new(store: KvStore, ck: ClusterKit) -> Self {
        Self { store, ck, watches: Arc::new(Semaphore::new(WATCHES_MAX)) }
    }

    /// The partition of a key, for those who only want to tell of it.
    fn partition(&self, key: &[u8]) -> Option<PartitionId> {
        self.store.partition(key).ok()
    }

    /// What a request on `key` is answered that failed.
    fn failed(&self, error: &KvError, key: &[u8], way: &Way) -> Response {
        failure::answer(&self.ck, error, self.partition(key), way.redirect.then_some(&way.origin))
    }
}

/// Whether a request is passed on, sent away, or neither, where another node has to answer it.
struct Way {
    origin: Origin,
    redirect: bool,
}

impl Way {
    fn new(origin: Origin, redirect: Option<Flag>) -> Self {
        Self { origin, redirect: redirect.is_some_and(|Flag(redirect)| redirect) }
    }

    fn forwards(&self) -> bool {
        !self.redirect && !self.origin.is_direct
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clusterkit::http::openapi_with;

    use super::*;

    #[test]
    fn the_description_is_the_one_in_the_repository() {
        let described = openapi_with(endpoints());
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi-server.json");
        if std::env::var_os("BLESS").is_some() {
            std::fs::write(&file, &described).expect("the file can be written");
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            golden == described,
            "docs/openapi-server.json is not up to date: run this test with BLESS=1"
        );
    }

    #[test]
    fn only_who_asks_for_it_is_sent_away() {
        let way =
            |is_direct, redirect| Way::new(Origin { is_direct, target: String::new() }, redirect).forwards();
        assert!(way(false, None));
        assert!(way(false, Some(Flag(false))));
        assert!(!way(false, Some(Flag(true))));
        assert!(!way(true, None));
    }
}
