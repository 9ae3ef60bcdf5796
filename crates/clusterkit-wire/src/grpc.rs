//! The public gRPC interface: messages, clients and servers generated from `proto/`, and the way
//! from core's types to them.
//!
//! The schema is the promise; what is here follows from it. Nodes speak frames among themselves:
//! these messages are for clients alone.

mod apply;
mod convert;

use clusterkit_core::limits::{
    METADATA_ENTRIES_MAX, NODE_ID_BYTES_MAX, NODES_MAX, PARTITIONS_MAX, REPLICATION_FACTOR_MAX,
    TEXT_BYTES_MAX,
};

pub use self::apply::ApplyError;

/// The cluster: topology, nodes, partitions, routes, status.
pub mod cluster {
    /// Package `clusterkit.cluster.v1`. The comments of the schema are the documentation.
    #[allow(
        clippy::all,
        clippy::implicit_clone,
        clippy::large_futures,
        clippy::needless_pass_by_value,
        clippy::semicolon_if_nothing_returned,
        clippy::uninlined_format_args,
        missing_debug_implementations,
        missing_docs,
        unreachable_pub
    )]
    pub mod v1 {
        tonic::include_proto!("clusterkit.cluster.v1");
    }
}

/// The compiled schema, without comments: what a reflection service or a generic client reads.
pub const FILE_DESCRIPTOR_SET: &[u8] = tonic::include_file_descriptor_set!("clusterkit");

/// The most bytes that a topology takes, whole or as a delta. A client of a cluster with thousands
/// of partitions allows its decoder this much: the usual bound of 4 MiB is soon too small there.
pub const TOPOLOGY_BYTES_MAX: usize = 128 << 20;

/// The most bytes around a text: the field's key and the text's length.
const AROUND_TEXT: usize = 4;
/// The most bytes of all numbers of one record, with their keys.
const NUMBERS_BYTES_MAX: usize = 96;
const NAME_BYTES_MAX: usize = NODE_ID_BYTES_MAX + AROUND_TEXT;
const TEXT_FIELD_BYTES_MAX: usize = TEXT_BYTES_MAX + AROUND_TEXT;
/// A name, two addresses, a zone, a release and the metadata.
const NODE_BYTES_MAX: usize = NAME_BYTES_MAX
    + 4 * TEXT_FIELD_BYTES_MAX
    + METADATA_ENTRIES_MAX * (2 * TEXT_FIELD_BYTES_MAX + AROUND_TEXT)
    + NUMBERS_BYTES_MAX;
/// Three names for each copy, two numbers with the first, and five names beside them.
const PARTITION_BYTES_MAX: usize =
    REPLICATION_FACTOR_MAX as usize * (3 * NAME_BYTES_MAX + 28) + 5 * NAME_BYTES_MAX + NUMBERS_BYTES_MAX;

const _: () = assert!(
    NODES_MAX * NODE_BYTES_MAX + PARTITIONS_MAX as usize * PARTITION_BYTES_MAX + (1 << 20)
        <= TOPOLOGY_BYTES_MAX
);

#[cfg(test)]
mod tests;
