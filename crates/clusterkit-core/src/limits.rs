//! Every bound of this crate, in one place, with the relations between them checked.

/// Bytes of a node id.
pub const NODE_ID_BYTES_MAX: usize = 64;
/// Bytes of a cluster name.
pub const CLUSTER_NAME_BYTES_MAX: usize = 64;
/// Nodes of one cluster.
pub const NODES_MAX: usize = 1_024;
/// Partitions of one cluster: one for each slot of the key hash.
pub const PARTITIONS_MAX: u32 = crate::hash::SLOT_COUNT;
/// Replicas of one partition.
pub const REPLICATION_FACTOR_MAX: u32 = 15;
/// Nodes that vote in the control plane at once.
pub const VOTERS_MAX: usize = 5;
/// Nodes that `expect` may name.
pub const EXPECT_MAX: u32 = 64;
/// Replicas that one registration names as damaged.
pub const DAMAGED_REPLICAS_MAX: usize = 1_024;
/// Metadata entries of one node.
pub const METADATA_ENTRIES_MAX: usize = 64;
/// Bytes of one metadata key or value, of a zone and of an address.
pub const TEXT_BYTES_MAX: usize = 256;
/// A node's weight: 1 to this.
pub const WEIGHT_MAX: u32 = 1_000;
/// Commands of one round of the controller.
pub const COMMANDS_PER_ROUND_MAX: usize = 256;
/// Commands of one entry of the control-plane log.
pub const COMMANDS_PER_ENTRY_MAX: usize = 512;
/// Bytes of the commands of one such entry. The largest is that of the founders of the largest
/// cluster, with all the metadata they may have; a test holds that it fits.
pub const ENTRY_BYTES_MAX: usize = 4 * 1024 * 1024;

const _: () = assert!(EXPECT_MAX as usize <= NODES_MAX);
const _: () = assert!(VOTERS_MAX % 2 == 1);
const _: () = assert!((REPLICATION_FACTOR_MAX as usize) < NODES_MAX);
const _: () = assert!(COMMANDS_PER_ROUND_MAX <= COMMANDS_PER_ENTRY_MAX);
