//! What several answers are made of.

use std::collections::BTreeMap;

use axum::Json;
use axum::response::{IntoResponse, Response};
use clusterkit_core::control::Applied;
use clusterkit_core::hash::{KeyHash, SLOT_COUNT};
use clusterkit_core::topology::{
    Cluster, Health, Move, Node, Overrun, Partition, RaftRole, Replica, StageAwaited, Topology,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::limits::{PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX};
use super::problem::{Code, Problem};

/// Keys whose partitions are told, so that a client can check its own hash.
const SAMPLE_KEYS: [&str; 3] = ["user:1", "{user:1}.cart", "123456789"];

/// Which cluster answers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Cluster)]
pub(super) struct ClusterDto {
    /// Its identity: 16 hexadecimal digits.
    pub(super) id: String,
    /// The name its operators gave it.
    pub(super) name: String,
}

impl From<&Cluster> for ClusterDto {
    fn from(cluster: &Cluster) -> Self {
        Self { id: cluster.id.to_string(), name: cluster.name.clone() }
    }
}

/// How a key becomes a partition: everything a client needs to route by itself.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HashConfig)]
pub(super) struct HashConfigDto {
    /// `crc16-slots`, `fnv1a32`, `md5-be32`, `sha256-be32` or `xxh3-64`.
    #[schema(value_type = String)]
    algorithm: &'static str,
    /// The number of partitions. It never changes.
    partition_count: u32,
    /// The number of slots, for `crc16-slots` only: partition = slot * partition_count / slot_count.
    slot_count: Option<u32>,
    /// Whether only what stands between the first `{` and the next `}` of a key is hashed.
    key_tags: bool,
    /// Some keys and their partitions, for clients to check themselves with.
    samples: Vec<HashSampleDto>,
}

/// A key and its partition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HashSample)]
pub(super) struct HashSampleDto {
    #[schema(value_type = String)]
    key: &'static str,
    partition: u32,
}

impl From<&Cluster> for HashConfigDto {
    fn from(cluster: &Cluster) -> Self {
        let (hash, partition_count) = (cluster.config.key_hash, cluster.config.partition_count);
        let sample = |key: &'static str| HashSampleDto {
            key,
            partition: hash.partition_of(key.as_bytes(), partition_count).0,
        };
        Self {
            algorithm: hash.as_str(),
            partition_count,
            slot_count: (hash == KeyHash::Crc16Slots).then_some(SLOT_COUNT),
            key_tags: true,
            samples: SAMPLE_KEYS.map(sample).into(),
        }
    }
}

/// A node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Node)]
pub(super) struct NodeDto {
    id: String,
    /// `joining`, `alive`, `suspect`, `dead`, `leaving` or `left`.
    #[schema(value_type = String)]
    status: &'static str,
    /// Where other nodes reach it.
    node_addr: String,
    /// Where clients reach it.
    public_addr: String,
    /// Its failure domain.
    zone: Option<String>,
    /// Its share of the partitions relative to the others.
    weight: u32,
    /// `voter` when it may vote in the control plane, else `learner`.
    #[schema(value_type = String)]
    role: &'static str,
    /// Whether partitions are placed on it.
    holds_data: bool,
    /// How often it registered.
    incarnation: u64,
    /// Its data directory: 16 hexadecimal digits.
    store: String,
    /// The release it runs.
    software: String,
    /// Whatever its operator wrote.
    metadata: BTreeMap<String, String>,
}

impl From<&Node> for NodeDto {
    fn from(node: &Node) -> Self {
        Self {
            id: node.id.to_string(),
            status: node.status().as_str(),
            node_addr: node.node_addr.clone(),
            public_addr: node.public_addr.clone(),
            zone: node.zone.clone(),
            weight: node.weight,
            role: match node.role {
                RaftRole::Learner => "learner",
                RaftRole::Voter => "voter",
            },
            holds_data: node.holds_data,
            incarnation: node.incarnation.0,
            store: node.store.to_string(),
            software: node.software.clone(),
            metadata: node.metadata.clone(),
        }
    }
}

/// A partition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Partition)]
pub(super) struct PartitionDto {
    id: u32,
    /// The id with a prefix, as in `partition-5`.
    name: String,
    /// Grows with every change of this record.
    version: u64,
    /// Grows with every change of the leader: the fencing token.
    epoch: u64,
    /// How that epoch began: `first`, `handover`, `membership`, `position` or `unclean`.
    #[schema(value_type = String)]
    origin: &'static str,
    /// The node that takes writes.
    leader: Option<String>,
    /// The nodes that hold it, oldest placement first.
    replicas: Vec<ReplicaDto>,
    /// The replicas that must hold an entry before it counts as committed.
    in_sync: Vec<String>,
    /// Below this many replicas in sync nothing is committed.
    min_in_sync: u32,
    /// The replica that the leader shall hand over to, while it does.
    transfer: Option<String>,
    /// The move of a replica that is under way.
    movement: Option<MovementDto>,
    /// The hook that is past its deadline, when one is.
    overrun: Option<HookDto>,
    /// `ok`, `under_replicated`, `below_min_in_sync` or `leaderless`.
    #[schema(value_type = String)]
    health: &'static str,
}

/// One copy of a partition.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Replica)]
pub(super) struct ReplicaDto {
    node: String,
    /// Which placement it is: a replica that was removed and added again has another.
    uid: u64,
    /// How often it fell out of the replicas in sync.
    lapses: u64,
}

/// A replica on its way.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Movement)]
pub(super) struct MovementDto {
    /// The node that gives its copy up; none when a copy is only added.
    source: Option<String>,
    /// The node that gets a copy.
    target: String,
    /// The hook that it waits for; none while nobody leads.
    awaits: Option<HookDto>,
}

impl MovementDto {
    pub(super) fn new(movement: &Move, awaits: Option<StageAwaited>) -> Self {
        Self {
            source: movement.source.as_ref().map(ToString::to_string),
            target: movement.target.to_string(),
            awaits: awaits.map(HookDto::from),
        }
    }
}

/// A hook of the program that embeds a node.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Hook)]
pub(super) struct HookDto {
    /// Where it runs.
    node: String,
    /// `prepare`, `catch_up`, `seal`, `activate` or `release`.
    #[schema(value_type = String)]
    stage: &'static str,
}

impl From<StageAwaited> for HookDto {
    fn from(awaited: StageAwaited) -> Self {
        Self { node: awaited.node.to_string(), stage: awaited.stage.as_str() }
    }
}

impl From<&Overrun> for HookDto {
    fn from(overrun: &Overrun) -> Self {
        Self { node: overrun.node.to_string(), stage: overrun.stage.as_str() }
    }
}

impl PartitionDto {
    pub(super) fn new(topology: &Topology, record: &Partition) -> Self {
        let replica = |replica: &Replica| ReplicaDto {
            node: replica.node.to_string(),
            uid: replica.uid.0,
            lapses: replica.lapses,
        };
        let movement = |movement| MovementDto::new(movement, record.move_awaits());
        Self {
            id: record.id.0,
            name: record.id.to_string(),
            version: record.version.0,
            epoch: record.epoch.0,
            origin: record.origin.as_str(),
            leader: record.leader.as_ref().map(ToString::to_string),
            replicas: record.replicas.iter().map(replica).collect(),
            in_sync: record.in_sync.iter().map(ToString::to_string).collect(),
            min_in_sync: record.min_in_sync,
            transfer: record.transfer.as_ref().map(ToString::to_string),
            movement: record.movement.as_ref().map(movement),
            overrun: record.overrun.as_ref().map(HookDto::from),
            health: topology.partition_health(record).as_str(),
        }
    }
}

/// How the cluster stands, as the node that answers sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub(super) struct HealthDto {
    /// `healthy`, `degraded` or `unavailable`.
    #[schema(value_type = String)]
    pub(super) state: &'static str,
    /// The state with its reasons, for people.
    pub(super) sentence: String,
    /// Why, worst first.
    pub(super) reasons: Vec<ReasonDto>,
}

/// One reason why the cluster is not healthy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Reason)]
pub(super) struct ReasonDto {
    /// For programs, as in `node_down`.
    #[schema(value_type = String)]
    code: &'static str,
    /// How bad it is: `degraded` or `unavailable`.
    #[schema(value_type = String)]
    severity: &'static str,
    /// For people.
    message: String,
}

impl From<&Health> for HealthDto {
    fn from(health: &Health) -> Self {
        let reason = |reason: &clusterkit_core::topology::HealthReason| ReasonDto {
            code: reason.code(),
            severity: reason.severity().as_str(),
            message: reason.to_string(),
        };
        Self {
            state: health.state.as_str(),
            sentence: sentence(health),
            reasons: health.reasons.iter().map(reason).collect(),
        }
    }
}

/// The state and its reasons in one line.
pub(super) fn sentence(health: &Health) -> String {
    let reasons: Vec<_> = health.reasons.iter().map(ToString::to_string).collect();
    match reasons.is_empty() {
        true => health.state.to_string(),
        false => format!("{}: {}", health.state, reasons.join("; ")),
    }
}

/// What came of a change.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Changed)]
pub(super) struct ChangedDto {
    /// Whether anything changed; `false` when it was so already.
    changed: bool,
}

impl From<Applied> for ChangedDto {
    fn from(applied: Applied) -> Self {
        Self { changed: applied != Applied::Unchanged }
    }
}

impl IntoResponse for ChangedDto {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct PageQuery {
    /// Items at most, 1 to 1,000.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Where the page before ended: its `next_cursor`.
    cursor: Option<String>,
}

/// A part of a list.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    items: Vec<T>,
    next_cursor: Option<String>,
}

impl PageQuery {
    /// The part of `rows` that is asked for. `cursor` gives the name of a row; rows come in the order
    /// of their names, and one that is gone meanwhile does not matter.
    pub(super) fn page<R, T, K: Ord>(
        &self,
        rows: impl Iterator<Item = R>,
        read: impl Fn(&str) -> Option<K>,
        key: impl Fn(&R) -> K,
        show: impl Fn(&R) -> (String, T),
    ) -> Result<Page<T>, Problem> {
        let limit = checked_limit(self.limit, PAGE_LIMIT_DEFAULT)?;
        let wrong =
            || Problem::new(Code::InvalidValue, "`cursor` must be the `next_cursor` of an earlier page");
        let after = self.cursor.as_deref().map(|cursor| read(cursor).ok_or_else(wrong)).transpose()?;
        let mut rest = rows.filter(|row| after.as_ref().is_none_or(|after| key(row) > *after));
        let shown: Vec<_> = rest.by_ref().take(limit).map(|row| show(&row)).collect();
        let next_cursor = shown.last().map(|(cursor, _)| cursor.clone()).filter(|_| rest.next().is_some());
        Ok(Page { items: shown.into_iter().map(|(_, item)| item).collect(), next_cursor })
    }
}

/// A limit of items that lies within its bounds.
pub(super) fn checked_limit(limit: Option<usize>, default: usize) -> Result<usize, Problem> {
    match limit.unwrap_or(default) {
        limit @ 1..=PAGE_LIMIT_MAX => Ok(limit),
        other => {
            let detail = format!("`limit` must be between 1 and {PAGE_LIMIT_MAX}, not {other}");
            Err(Problem::new(Code::InvalidValue, detail))
        }
    }
}

/// The two lists, by names of their own in the description.
macro_rules! page_docs {
    ($($(#[$doc:meta])* $name:ident($item:ty) as $shown:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Serialize, ToSchema)]
        #[schema(as = $shown)]
        pub(super) struct $name {
            /// In order.
            items: Vec<$item>,
            /// What `cursor` must be for the next page; none on the last one.
            next_cursor: Option<String>,
        }

        impl From<Page<$item>> for $name {
            fn from(page: Page<$item>) -> Self {
                Self { items: page.items, next_cursor: page.next_cursor }
            }
        }
    )*};
}

page_docs! {
    /// A page of nodes.
    NodePageDto(NodeDto) as NodePage;
    /// A page of partitions.
    PartitionPageDto(PartitionDto) as PartitionPage;
}

#[cfg(test)]
mod tests {
    use clusterkit_core::topology::{HealthReason, HealthState};

    use super::*;

    #[test]
    fn pages_follow_each_other_without_gap_or_overlap() {
        let page = |limit, cursor: Option<&str>| {
            let query = PageQuery { limit: Some(limit), cursor: cursor.map(ToOwned::to_owned) };
            let page =
                query.page(0..5_u32, |text| text.parse().ok(), |row| *row, |row| (row.to_string(), *row));
            page.map(|page| (page.items, page.next_cursor)).ok()
        };
        assert_eq!(page(2, None), Some((vec![0, 1], Some("1".to_owned()))));
        assert_eq!(page(2, Some("1")), Some((vec![2, 3], Some("3".to_owned()))));
        assert_eq!(page(2, Some("3")), Some((vec![4], None)));
        assert_eq!(page(5, None), Some((vec![0, 1, 2, 3, 4], None)));
        assert_eq!(page(0, None), None);
        assert_eq!(page(PAGE_LIMIT_MAX + 1, None), None);
        assert_eq!(page(1, Some("x")), None);
    }

    #[test]
    fn the_sentence_begins_with_the_state_and_gives_the_reasons() {
        let health = |state, reasons| sentence(&Health { state, reasons });
        assert_eq!(health(HealthState::Healthy, Vec::new()), "healthy");
        let reasons = vec![HealthReason::NoController, HealthReason::Leaderless { partitions: 2 }];
        let expect = "unavailable: no majority of the voters is in reach, nothing can be changed from here; \
                      2 partitions have no leader";
        assert_eq!(health(HealthState::Unavailable, reasons), expect);
    }
}
