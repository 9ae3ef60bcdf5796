//! The topology as a stream of changes.
//!
//! Nothing runs and nothing is queued for a client: its stream computes the next message when the
//! connection has room for one, as the difference between what the client was sent last and the
//! newest version. So a slow client costs one version and gets larger deltas.

use std::sync::Arc;

use clusterkit_core::id::TopologyVersion;
use clusterkit_core::topology::Topology;
use clusterkit_wire::grpc::cluster::v1;
use clusterkit_wire::grpc::cluster::v1::topology_update::Update;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::refusal::Refusal;
use super::streams::OpenStream;
use crate::handle::TopologyWatch;

/// What one client follows.
pub(super) struct Follower {
    /// Where the versions come from.
    pub(super) watch: TopologyWatch,
    /// Fires when the node stops.
    pub(super) stop: CancellationToken,
    /// The version that the client says it has, until it was looked at.
    pub(super) known: Option<TopologyVersion>,
    /// Its place among the streams.
    pub(super) _open: OpenStream,
}

impl Follower {
    /// The whole topology, unless the client has it, and then every change until the node stops.
    pub(super) fn updates(self) -> BoxStream<'static, Result<v1::TopologyUpdate, Status>> {
        let follower = Some(Position { follower: self, sent: None });
        stream::unfold(follower, |position| async {
            let mut position = position?;
            match position.next().await {
                Some(update) => Some((Ok(v1::TopologyUpdate { update: Some(update) }), Some(position))),
                None => Some((Err(Refusal::Stopping.into()), None)),
            }
        })
        .boxed()
    }

    /// The newest version, once it is at least `version`; `None` once the node stops.
    async fn reach(&mut self, version: TopologyVersion) -> Option<Arc<Topology>> {
        tokio::select! {
            biased;
            () = self.stop.cancelled() => None,
            found = self.watch.wait_for(|topology| topology.version >= version) => found,
        }
    }
}

/// A client and what it was sent last.
struct Position {
    follower: Follower,
    sent: Option<Arc<Topology>>,
}

impl Position {
    async fn next(&mut self) -> Option<Update> {
        if let Some(known) = self.follower.known.take() {
            let base = self.follower.reach(known).await?;
            self.sent = (base.version == known).then_some(base);
        }
        let version = self.sent.as_ref().map_or(TopologyVersion::default(), |sent| sent.version.next());
        let newest = self.follower.reach(version).await?;
        let update = match &self.sent {
            Some(sent) => Update::Delta(v1::TopologyDelta::between(sent, &newest)),
            None => Update::Topology(newest.as_ref().into()),
        };
        self.sent = Some(newest);
        Some(update)
    }
}

#[cfg(test)]
mod tests {
    use clusterkit_core::id::{ClusterId, RouteVersion};
    use clusterkit_core::topology::{Cluster, ClusterConfig};
    use futures_util::FutureExt;
    use tokio::sync::watch;
    use tonic::Code;

    use super::super::streams::Streams;
    use super::*;

    /// Version `version` of a cluster whose replication factor is `version` too.
    fn topology(version: u64) -> Arc<Topology> {
        let config =
            ClusterConfig { replication_factor: u32::try_from(version).unwrap(), ..ClusterConfig::default() };
        Arc::new(Topology {
            version: TopologyVersion(version),
            route_version: RouteVersion(1),
            cluster: Some(Arc::new(Cluster { id: ClusterId(7), name: "blue".to_owned(), config })),
            ..Topology::default()
        })
    }

    struct World {
        topology: watch::Sender<Arc<Topology>>,
        stop: CancellationToken,
        updates: BoxStream<'static, Result<v1::TopologyUpdate, Status>>,
    }

    impl World {
        fn new(known: Option<u64>) -> Self {
            let (topology, stop) = (watch::Sender::new(topology(5)), CancellationToken::new());
            let follower = Follower {
                watch: TopologyWatch(topology.subscribe()),
                stop: stop.clone(),
                known: known.map(TopologyVersion),
                _open: Streams::new(1).open().unwrap(),
            };
            Self { topology, stop, updates: follower.updates() }
        }

        fn reach(&self, version: u64) {
            self.topology.send_replace(topology(version));
        }

        /// What the stream has to say right now: a whole version, or from where to where a delta
        /// leads.
        fn check(&mut self, expect: Expect) {
            let found = match self.updates.next().now_or_never() {
                None => Expect::Nothing,
                Some(None) => Expect::End,
                Some(Some(Err(status))) => Expect::Refused(status.code()),
                Some(Some(Ok(update))) => match update.update.unwrap() {
                    Update::Topology(whole) => Expect::Whole(whole.version),
                    Update::Delta(delta) => {
                        let copies = delta.cluster.unwrap().replication_factor;
                        assert_eq!(u64::from(copies), delta.to_version);
                        Expect::Delta(delta.from_version, delta.to_version)
                    }
                },
            };
            assert_eq!(found, expect);
        }
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Expect {
        Delta(u64, u64),
        End,
        Nothing,
        Refused(Code),
        Whole(u64),
    }

    #[test]
    fn whole_topology_comes_first_and_then_every_change() {
        let mut world = World::new(None);
        world.check(Expect::Whole(5));
        world.check(Expect::Nothing);
        world.reach(6);
        world.check(Expect::Delta(5, 6));
        world.reach(7);
        world.check(Expect::Delta(6, 7));
        world.check(Expect::Nothing);
    }

    #[test]
    fn slow_client_gets_what_it_missed_as_one_delta() {
        let mut world = World::new(None);
        world.check(Expect::Whole(5));
        for version in 6..=9 {
            world.reach(version);
        }
        world.check(Expect::Delta(5, 9));
        world.check(Expect::Nothing);
    }

    #[test]
    fn client_that_has_the_version_gets_the_next_change_only() {
        let mut world = World::new(Some(5));
        world.check(Expect::Nothing);
        world.reach(6);
        world.check(Expect::Delta(5, 6));
    }

    #[test]
    fn client_that_has_an_older_version_gets_the_whole() {
        let mut world = World::new(Some(4));
        world.check(Expect::Whole(5));
        world.check(Expect::Nothing);
    }

    #[test]
    fn client_that_is_ahead_is_never_taken_back() {
        let mut world = World::new(Some(7));
        world.check(Expect::Nothing);
        world.reach(6);
        world.check(Expect::Nothing);
        world.reach(8);
        world.check(Expect::Whole(8));
    }

    #[test]
    fn node_that_catches_up_with_its_client_goes_on_from_there() {
        let mut world = World::new(Some(7));
        world.check(Expect::Nothing);
        world.reach(7);
        world.check(Expect::Nothing);
        world.reach(8);
        world.check(Expect::Delta(7, 8));
    }

    #[test]
    fn stopping_node_ends_its_streams_with_a_word() {
        let mut world = World::new(None);
        world.check(Expect::Whole(5));
        world.stop.cancel();
        world.check(Expect::Refused(Code::Unavailable));
        world.check(Expect::End);
    }
}
