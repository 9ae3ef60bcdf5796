//! Names and numbers that identify things, each a type of its own.

use alloc::string::String;
use alloc::sync::Arc;
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::limits::NODE_ID_BYTES_MAX;

/// The name of a node, chosen by its operator and unique in a cluster.
///
/// One to 64 characters of `[A-Za-z0-9._-]`, beginning with a letter or digit, so that it can
/// stand in a path, a metric label or a DNS name without quoting. Cloning is cheap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// Checks `name` and makes it a node id.
    pub fn new(name: &str) -> Result<Self, InvalidNodeId> {
        if name.is_empty() {
            return Err(InvalidNodeId::Empty);
        }
        if name.len() > NODE_ID_BYTES_MAX {
            return Err(InvalidNodeId::TooLong { bytes: name.len() });
        }
        if !name.as_bytes()[0].is_ascii_alphanumeric() {
            return Err(InvalidNodeId::FirstCharacter);
        }
        match name.chars().find(|&c| !is_name_character(c)) {
            Some(character) => Err(InvalidNodeId::Character { character }),
            None => Ok(Self(Arc::from(name))),
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_name_character(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '.' | '_' | '-')
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(name: &str) -> Result<Self, InvalidNodeId> {
        Self::new(name)
    }
}

impl TryFrom<String> for NodeId {
    type Error = InvalidNodeId;

    fn try_from(name: String) -> Result<Self, InvalidNodeId> {
        Self::new(&name)
    }
}

impl From<NodeId> for String {
    fn from(id: NodeId) -> Self {
        Self::from(id.as_str())
    }
}

/// The text cannot be a node id. Nothing changed; choose another name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidNodeId {
    /// A character outside `[A-Za-z0-9._-]`.
    #[error("a node id has letters, digits, '.', '_' and '-' only, not {character:?}")]
    Character {
        /// The first character that is not allowed.
        character: char,
    },
    /// No character at all.
    #[error("a node id cannot be empty")]
    Empty,
    /// It begins with a sign.
    #[error("a node id begins with a letter or a digit")]
    FirstCharacter,
    /// More than [`NODE_ID_BYTES_MAX`] bytes.
    #[error("a node id has at most {NODE_ID_BYTES_MAX} characters, this one has {bytes}")]
    TooLong {
        /// How long the text was.
        bytes: usize,
    },
}

/// The number of a partition: `0..partition_count`.
///
/// Shown as `partition-5`; reading accepts `5` and `partition-5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PartitionId(pub u32);

impl PartitionId {
    /// The position of this partition in a table that has one row a partition.
    #[must_use]
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition-{}", self.0)
    }
}

impl FromStr for PartitionId {
    type Err = InvalidPartitionId;

    fn from_str(text: &str) -> Result<Self, InvalidPartitionId> {
        let digits = text.strip_prefix("partition-").unwrap_or(text);
        digits.parse().map(Self).map_err(|_| InvalidPartitionId)
    }
}

/// The text is no partition id. Write the number, or `partition-` and the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a partition is named by its number, as in 5 or partition-5")]
pub struct InvalidPartitionId;

macro_rules! counter {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// The value after this one.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0 + 1)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

counter!(
    /// Who leads a partition: grows with every change of its leader, and is the fencing token that
    /// an outside store compares.
    Epoch
);
counter!(
    /// How often a partition's record changed; every change of it is a compare-and-set on this.
    PartitionVersion
);
counter!(
    /// How often the topology changed.
    TopologyVersion
);
counter!(
    /// How often the part of the topology that routing needs (leaders, replicas, addresses)
    /// changed. Clients see it as the `ETag`.
    RouteVersion
);
counter!(
    /// How often a node registered. An acknowledgement of an earlier incarnation counts for
    /// nothing.
    Incarnation
);
counter!(
    /// One placement of one partition on one node. A replica that is removed and added again has
    /// another uid, so that progress of the old one cannot be taken for its own.
    ReplicaUid
);

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub u64);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:016x}", self.0)
            }
        }

        impl FromStr for $name {
            type Err = core::num::ParseIntError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                u64::from_str_radix(text, 16).map(Self)
            }
        }
    };
}

random_id!(
    /// A cluster, from the vote that formed it. Every hello between nodes carries it, so that two
    /// clusters never merge. Shown as 16 hexadecimal digits.
    ClusterId
);
random_id!(
    /// One run of a node's process, drawn at random at its start, so that a registration that is
    /// sent twice is known as one.
    BootId
);
random_id!(
    /// A data directory, drawn at random when it is made. A node that lost its disk comes back with
    /// another store id, and so never passes for one that still has its data.
    StoreId
);

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    #[test]
    fn node_id_accepts_names_that_need_no_quoting() {
        for name in ["a", "node-1", "10.0.0.1", "A_b.c-d", &"x".repeat(64)] {
            assert_eq!(NodeId::new(name).map(|id| id.to_string()), Ok(name.to_string()));
        }
    }

    #[test]
    fn node_id_refuses_what_cannot_stand_in_a_path() {
        let check = |name: &str, expect| assert_eq!(NodeId::new(name), Err(expect));
        check("", InvalidNodeId::Empty);
        check("-a", InvalidNodeId::FirstCharacter);
        check("a/b", InvalidNodeId::Character { character: '/' });
        check("a b", InvalidNodeId::Character { character: ' ' });
        check(&"x".repeat(65), InvalidNodeId::TooLong { bytes: 65 });
    }

    #[test]
    fn partition_id_is_read_by_number_and_by_name() {
        let check = |text: &str, expect| assert_eq!(text.parse::<PartitionId>(), expect);
        check("5", Ok(PartitionId(5)));
        check("partition-5", Ok(PartitionId(5)));
        check("partition-", Err(InvalidPartitionId));
        check("-5", Err(InvalidPartitionId));
        assert_eq!(PartitionId(5).to_string(), "partition-5");
    }

    #[test]
    fn random_ids_are_read_back_as_shown() {
        let id = StoreId(0x00ab_cdef);
        assert_eq!(id.to_string(), "0000000000abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
    }
}
