//! The first words on a connection: who is there, and whether they may talk.
//!
//! Both sides begin with [`PREFACE`], so that a stranger is known by its first bytes. The dialling
//! node then sends a [`Hello`], and the answering node a [`Welcome`] or a [`Refused`]; each is the
//! body of one frame ([`kind`]) of at most [`HELLO_BYTES_MAX`].
//!
//! [`kind`]: crate::frame::kind
//! [`HELLO_BYTES_MAX`]: crate::limits::HELLO_BYTES_MAX
//!
//! Every version of ClusterKit reads version 1 of these three, so that two versions which share no
//! protocol can still tell each other so.

use std::ops::RangeInclusive;

use clusterkit_core::id::{ClusterId, Incarnation, NodeId, StoreId};
use clusterkit_core::limits::{CLUSTER_NAME_BYTES_MAX, TEXT_BYTES_MAX};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::limits::{FRAME_BYTES_MAX_BULK, FRAME_BYTES_MAX_CONTROL, FRAME_BYTES_MAX_DATA};
use crate::versioned::{self, DecodeError};

/// The first bytes on a connection between nodes, from either side.
pub const PREFACE: [u8; 8] = *b"\0CKNODE1";

/// The protocols between nodes that this version of ClusterKit speaks.
pub const PROTOCOLS: RangeInclusive<u16> = 1..=1;

/// The version of the three messages that this module writes.
const HELLO_VERSION: u8 = 1;

/// The protocol that two nodes speak with each other: the highest that both know.
#[must_use]
pub fn agree(ours: &RangeInclusive<u16>, theirs: &RangeInclusive<u16>) -> Option<u16> {
    let highest = *ours.end().min(theirs.end());
    (highest >= *ours.start().max(theirs.start())).then_some(highest)
}

/// What a connection carries. Two nodes have one connection for each class and direction, so that a
/// snapshot never stands before a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Class {
    /// Heartbeats, the control plane, moves: small and urgent.
    Control,
    /// Writes and reads of partitions.
    Data,
    /// Snapshots of partitions and what else is large and can wait.
    Bulk,
}

impl Class {
    /// Every class, each at its [`index`](Self::index).
    pub const ALL: [Self; 3] = [Self::Control, Self::Data, Self::Bulk];

    /// The place of this class in a table with one row for each.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The most bytes of one frame on a connection of this class.
    #[must_use]
    pub fn frame_bytes_max(self) -> usize {
        match self {
            Self::Control => FRAME_BYTES_MAX_CONTROL,
            Self::Data => FRAME_BYTES_MAX_DATA,
            Self::Bulk => FRAME_BYTES_MAX_BULK,
        }
    }
}

/// Who a node says it is. Nothing in it is proved: the transport below proves it where TLS is on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The cluster it belongs to; `None` before it formed or joined one.
    pub cluster: Option<ClusterId>,
    /// The name its operator gave the cluster. Nodes of another name never form one cluster.
    pub cluster_name: String,
    /// Its name.
    pub node: NodeId,
    /// Its data directory.
    pub store: StoreId,
    /// How often it registered; zero before the first time.
    pub incarnation: Incarnation,
    /// Where other nodes reach it.
    pub node_addr: String,
    /// Where clients reach it.
    pub public_addr: String,
    /// Which program it is, for people to read.
    pub software: String,
}

impl Identity {
    /// Checks the texts, which come from strangers and go into logs and tables.
    ///
    /// A node checks its own identity once, at its start: another node refuses one that fails here.
    pub fn check(&self) -> Result<(), HelloError> {
        check_text("cluster_name", &self.cluster_name, CLUSTER_NAME_BYTES_MAX)?;
        check_text("node_addr", &self.node_addr, TEXT_BYTES_MAX)?;
        check_text("public_addr", &self.public_addr, TEXT_BYTES_MAX)?;
        check_text("software", &self.software, TEXT_BYTES_MAX)
    }
}

fn check_text(field: &'static str, text: &str, bytes_max: usize) -> Result<(), HelloError> {
    if text.len() > bytes_max {
        return Err(HelloError::TextTooLong { field, bytes: text.len(), bytes_max });
    }
    if text.contains(char::is_control) {
        return Err(HelloError::TextControl { field });
    }
    Ok(())
}

/// Sent by the dialling node, right after its preface. The answering node checks it and answers
/// [`Welcome`] or [`Refused`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The lowest protocol the dialling node speaks.
    pub protocol_min: u16,
    /// The highest protocol the dialling node speaks, not below the lowest.
    pub protocol_max: u16,
    /// What the connection shall carry.
    pub class: Class,
    /// Who dials.
    pub identity: Identity,
}

impl Hello {
    /// The hello of a node of this version.
    #[must_use]
    pub fn new(class: Class, identity: Identity) -> Self {
        Self { protocol_min: *PROTOCOLS.start(), protocol_max: *PROTOCOLS.end(), class, identity }
    }

    /// The protocols the dialling node speaks.
    #[must_use]
    pub fn protocols(&self) -> RangeInclusive<u16> {
        self.protocol_min..=self.protocol_max
    }

    /// The body of its frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        versioned::encode(HELLO_VERSION, self)
    }

    /// Reads what a stranger sent.
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let hello: Self = decode(bytes)?;
        if hello.protocol_min > hello.protocol_max {
            return Err(HelloError::Protocols { min: hello.protocol_min, max: hello.protocol_max });
        }
        hello.identity.check()?;
        Ok(hello)
    }
}

/// Sent by the answering node: the connection stands, and requests may come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The protocol that both speak from here on.
    pub protocol: u16,
    /// Who answers.
    pub identity: Identity,
}

impl Welcome {
    /// The body of its frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        versioned::encode(HELLO_VERSION, self)
    }

    /// Reads what the answering node sent.
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let welcome: Self = decode(bytes)?;
        welcome.identity.check()?;
        Ok(welcome)
    }
}

/// Sent by the answering node before it closes the connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub reason: Refusal,
    /// Who answers.
    pub identity: Identity,
}

impl Refused {
    /// The body of its frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        versioned::encode(HELLO_VERSION, self)
    }

    /// Reads what the answering node sent.
    pub fn decode(bytes: &[u8]) -> Result<Self, HelloError> {
        let refused: Self = decode(bytes)?;
        refused.reason.check()?;
        refused.identity.check()?;
        Ok(refused)
    }
}

/// Why a node does not take a connection. Nothing was carried out on it. A new reason goes last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// The two nodes belong to different clusters. Dialling again does not help: one of the
    /// addresses, or one of the data directories, is the wrong one.
    #[error("it belongs to cluster {name:?} ({cluster})")]
    OtherCluster {
        /// The cluster of the node that answered.
        cluster: ClusterId,
        /// Its name.
        name: String,
    },
    /// The two nodes share no protocol: their versions are too far apart.
    #[error("it speaks protocols {min} to {max} only")]
    ProtocolUnknown {
        /// The lowest protocol of the node that answered.
        min: u16,
        /// Its highest protocol.
        max: u16,
    },
    /// Two nodes with different data directories use the same node id. One must get another name.
    #[error("node id {node} is in use by {addr}")]
    NodeIdClash {
        /// The name they share.
        node: NodeId,
        /// The node address of the one that answered.
        addr: String,
    },
    /// It has as many connections as it takes. Dial again later.
    #[error("it has as many connections as it takes")]
    Busy,
    /// It could not read the hello.
    #[error("it could not read the hello")]
    Malformed,
    /// The hello was longer than a hello may be.
    #[error("the hello was too long for it")]
    MessageTooLarge,
}

impl Refusal {
    fn check(&self) -> Result<(), HelloError> {
        match self {
            Self::OtherCluster { name, .. } => check_text("name", name, CLUSTER_NAME_BYTES_MAX),
            Self::NodeIdClash { addr, .. } => check_text("addr", addr, TEXT_BYTES_MAX),
            Self::Busy | Self::Malformed | Self::MessageTooLarge | Self::ProtocolUnknown { .. } => Ok(()),
        }
    }
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, HelloError> {
    Ok(versioned::decode(bytes, HELLO_VERSION..=HELLO_VERSION)?)
}

/// The bytes are no hello, welcome or refusal. Nothing changed; close the connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    /// They are no such record.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The lowest protocol is above the highest.
    #[error("the protocols {min} to {max} are no range")]
    Protocols {
        /// What was said to be the lowest.
        min: u16,
        /// What was said to be the highest.
        max: u16,
    },
    /// A text holds a control character, such as a line feed.
    #[error("{field} holds a control character")]
    TextControl {
        /// The name of the field.
        field: &'static str,
    },
    /// A text is longer than its field allows.
    #[error("{field} has {bytes} bytes, and {bytes_max} are allowed")]
    TextTooLong {
        /// The name of the field.
        field: &'static str,
        /// The bytes it has.
        bytes: usize,
        /// The bytes it may have.
        bytes_max: usize,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::limits::{FRAME_HEADER_BYTES, HELLO_BYTES_MAX};

    fn identity() -> Identity {
        Identity {
            cluster: Some(ClusterId(5)),
            cluster_name: "demo".into(),
            node: NodeId::new("n1").unwrap(),
            store: StoreId(300),
            incarnation: Incarnation(2),
            node_addr: "h:7000".into(),
            public_addr: "h:80".into(),
            software: "ck".into(),
        }
    }

    const IDENTITY: &[u8] = b"\x01\x05\x04demo\x02n1\xac\x02\x02\x06h:7000\x04h:80\x02ck";

    fn hello() -> Hello {
        Hello { protocol_min: 1, protocol_max: 3, class: Class::Data, identity: identity() }
    }

    #[test]
    fn hello_has_these_bytes() {
        let bytes = [b"\x01\x01\x03\x01", IDENTITY].concat();
        assert_eq!(hello().encode(), bytes);
        assert_eq!(Hello::decode(&bytes), Ok(hello()));
    }

    #[test]
    fn welcome_has_these_bytes() {
        let welcome = Welcome { protocol: 1, identity: identity() };
        let bytes = [b"\x01\x01", IDENTITY].concat();
        assert_eq!(welcome.encode(), bytes);
        assert_eq!(Welcome::decode(&bytes), Ok(welcome));
    }

    #[test]
    fn refusals_have_these_bytes() {
        let check = |reason: Refusal, expect: &[u8]| {
            let refused = Refused { reason, identity: identity() };
            let bytes = [b"\x01", expect, IDENTITY].concat();
            assert_eq!(refused.encode(), bytes);
            assert_eq!(Refused::decode(&bytes), Ok(refused));
        };
        check(Refusal::OtherCluster { cluster: ClusterId(6), name: "x".into() }, b"\x00\x06\x01x");
        check(Refusal::ProtocolUnknown { min: 1, max: 2 }, b"\x01\x01\x02");
        let clash = Refusal::NodeIdClash { node: NodeId::new("n1").unwrap(), addr: "h:1".into() };
        check(clash, b"\x02\x02n1\x03h:1");
        check(Refusal::Busy, b"\x03");
        check(Refusal::Malformed, b"\x04");
        check(Refusal::MessageTooLarge, b"\x05");
    }

    #[test]
    fn the_highest_shared_protocol_is_spoken() {
        let check = |ours, theirs, expect| assert_eq!(agree(&ours, &theirs), expect);
        check(1..=1, 1..=1, Some(1));
        check(1..=3, 2..=9, Some(3));
        check(4..=9, 1..=5, Some(5));
        check(1..=2, 3..=4, None);
        check(3..=4, 1..=2, None);
    }

    #[test]
    fn classes_stand_at_their_index() {
        for (index, class) in Class::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), index);
        }
    }

    fn decode_changed(change: impl FnOnce(&mut Hello)) -> Result<Hello, HelloError> {
        let mut hello = hello();
        change(&mut hello);
        Hello::decode(&hello.encode())
    }

    #[test]
    fn hello_with_texts_that_do_not_fit_is_refused() {
        let long = |field, bytes_max| Err(HelloError::TextTooLong { field, bytes: bytes_max + 1, bytes_max });
        let check = |change: fn(&mut Identity), expect| {
            assert_eq!(decode_changed(|hello| change(&mut hello.identity)), expect);
        };
        check(|identity| identity.cluster_name = "x".repeat(65), long("cluster_name", 64));
        check(|identity| identity.node_addr = "x".repeat(257), long("node_addr", 256));
        check(|identity| identity.public_addr = "x".repeat(257), long("public_addr", 256));
        check(|identity| identity.software = "x".repeat(257), long("software", 256));
        let control = Err(HelloError::TextControl { field: "software" });
        check(|identity| identity.software = "ck\nready".into(), control);
    }

    #[test]
    fn hello_with_protocols_upside_down_is_refused() {
        let expect = Err(HelloError::Protocols { min: 4, max: 3 });
        assert_eq!(decode_changed(|hello| hello.protocol_min = 4), expect);
    }

    #[test]
    fn hello_of_a_later_version_is_told_from_a_damaged_one() {
        let mut bytes = hello().encode();
        bytes[0] = 2;
        let expect = DecodeError::Version { version: 2, supported: 1..=1 };
        assert_eq!(Hello::decode(&bytes), Err(HelloError::Decode(expect)));
    }

    #[test]
    fn longest_refusal_fits_the_bound() {
        let node = NodeId::new(&"n".repeat(64)).unwrap();
        let identity = Identity {
            cluster: Some(ClusterId(u64::MAX)),
            cluster_name: "c".repeat(CLUSTER_NAME_BYTES_MAX),
            node: node.clone(),
            store: StoreId(u64::MAX),
            incarnation: Incarnation(u64::MAX),
            node_addr: "a".repeat(TEXT_BYTES_MAX),
            public_addr: "a".repeat(TEXT_BYTES_MAX),
            software: "s".repeat(TEXT_BYTES_MAX),
        };
        let reason = Refusal::NodeIdClash { node, addr: "a".repeat(TEXT_BYTES_MAX) };
        let refused = Refused { reason, identity };
        assert_eq!(refused.identity.check(), Ok(()));
        assert!(FRAME_HEADER_BYTES + refused.encode().len() <= HELLO_BYTES_MAX);
    }

    fn any_identity() -> impl Strategy<Value = Identity> {
        let ids = (any::<Option<u64>>(), "[a-z0-9][a-zA-Z0-9._-]{0,63}", any::<u64>(), any::<u64>());
        let texts = ("[a-z]{0,64}", "[a-z.:0-9]{0,256}", "[a-z.:0-9]{0,256}", "\\PC{0,60}");
        (ids, texts).prop_map(|((cluster, node, store, incarnation), texts)| Identity {
            cluster: cluster.map(ClusterId),
            cluster_name: texts.0,
            node: NodeId::new(&node).unwrap(),
            store: StoreId(store),
            incarnation: Incarnation(incarnation),
            node_addr: texts.1,
            public_addr: texts.2,
            software: texts.3,
        })
    }

    proptest! {
        #[test]
        fn hello_is_read_back_as_written(min: u16, more: u16, class in 0_usize..3, identity in any_identity()) {
            let hello = Hello {
                protocol_min: min,
                protocol_max: min.saturating_add(more),
                class: Class::ALL[class],
                identity,
            };
            prop_assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        }

        #[test]
        fn random_bytes_never_panic(mut bytes: Vec<u8>) {
            let _ = (Hello::decode(&bytes), Welcome::decode(&bytes), Refused::decode(&bytes));
            bytes.insert(0, HELLO_VERSION);
            let _ = (Hello::decode(&bytes), Welcome::decode(&bytes), Refused::decode(&bytes));
        }

        #[test]
        fn damaged_hello_never_panics(at in 0_usize..30, byte: u8) {
            let mut bytes = hello().encode();
            bytes[at] = byte;
            let _ = Hello::decode(&bytes);
        }
    }
}
