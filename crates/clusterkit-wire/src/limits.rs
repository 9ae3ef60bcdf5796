//! Every bound of this crate, in one place, with the relations between them checked.

use clusterkit_core::limits::{CLUSTER_NAME_BYTES_MAX, NODE_ID_BYTES_MAX, TEXT_BYTES_MAX};

const MIB: usize = 1024 * 1024;

/// Bytes of a frame's header: everything before its body.
pub const FRAME_HEADER_BYTES: usize = 36;
/// Bytes of one frame on a control connection. A snapshot of the control plane goes in one piece.
pub const FRAME_BYTES_MAX_CONTROL: usize = 16 * MIB;
/// Bytes of one frame on a data connection: a batch of writes and the largest value beside it.
pub const FRAME_BYTES_MAX_DATA: usize = 16 * MIB;
/// Bytes of one frame on a bulk connection, which carries snapshots of partitions.
pub const FRAME_BYTES_MAX_BULK: usize = 64 * MIB;
/// Bytes of a hello, a welcome or a refusal with the header of its frame. A stranger makes a node
/// hold no more than this.
pub const HELLO_BYTES_MAX: usize = 4 * 1024;

/// The texts of an identity: three addresses or names, and what names the node and its cluster.
const IDENTITY_TEXT_BYTES_MAX: usize = 3 * TEXT_BYTES_MAX + NODE_ID_BYTES_MAX + CLUSTER_NAME_BYTES_MAX;

const _: () = assert!(FRAME_HEADER_BYTES + 2 * IDENTITY_TEXT_BYTES_MAX < HELLO_BYTES_MAX);
const _: () = assert!(HELLO_BYTES_MAX < FRAME_BYTES_MAX_CONTROL);
const _: () = assert!(FRAME_BYTES_MAX_CONTROL <= FRAME_BYTES_MAX_BULK);
const _: () = assert!(FRAME_BYTES_MAX_DATA <= FRAME_BYTES_MAX_BULK);
const _: () = assert!(FRAME_BYTES_MAX_BULK <= u32::MAX as usize);
