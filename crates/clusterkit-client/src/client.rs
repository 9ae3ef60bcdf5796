//! What users hold.

use std::fmt;
use std::sync::Arc;

use clusterkit_core::id::PartitionId;

use crate::error::Error;
use crate::kv::Kv;
use crate::net::Shared;
use crate::options::Options;

/// A connection to a cluster, cheap to clone: clones share everything.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
}

impl Client {
    /// Learns the topology from the first of `seeds` that answers, and keeps it current from then on.
    ///
    /// Seeds are public addresses of nodes, as in `10.0.0.1:8080` or `http://10.0.0.1:8080`. One that answers is
    /// enough; the others are for when it does not. Seeds are asked until the deadline of `options`, also while the
    /// cluster forms.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidArgument`] if no seed is given, or one is no address; [`Error::Unavailable`] if none answers
    /// with a topology; [`Error::Protocol`] if one answers with something else.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn connect<S: Into<String>>(
        seeds: impl IntoIterator<Item = S>,
        options: Options,
    ) -> Result<Self, Error> {
        let seeds = seeds.into_iter().map(Into::into).collect();
        Ok(Self { shared: Shared::connect(seeds, options).await? })
    }

    /// The keys and values of the default namespace.
    #[must_use]
    pub fn kv(&self) -> Kv {
        Kv::new(self.clone())
    }

    /// The version of the topology that requests are routed by.
    #[must_use]
    pub fn route_version(&self) -> u64 {
        self.shared.cache.routes().version
    }

    /// The partition of a key. None if this client does not know how the cluster hashes keys: requests then go to any
    /// node, which passes them on.
    #[must_use]
    pub fn partition_of(&self, key: &[u8]) -> Option<PartitionId> {
        self.shared.cache.routes().partition_of(key)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("route_version", &self.route_version()).finish_non_exhaustive()
    }
}
