//! Channels of the program that embeds a node to the public ports of the other nodes.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use clusterkit_core::id::NodeId;
use clusterkit_core::topology::Topology;
use tonic::transport::{Channel, Endpoint};

use super::limits::{CHANNEL_CONNECT_TIMEOUT, CHANNEL_KEEP_ALIVE, CHANNEL_KEEP_ALIVE_TIMEOUT};

/// Why there is no channel to a node.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The topology has no such node.
    #[error("the cluster has no node {node}; look at the topology again")]
    UnknownNode {
        /// Who was asked for.
        node: NodeId,
    },
    /// What the node gave as its public address is none.
    #[error("the public address {addr:?} of node {node} is none; start it with another")]
    Address {
        /// Who was asked for.
        node: NodeId,
        /// Its address.
        addr: String,
        /// What is wrong with it.
        source: tonic::transport::Error,
    },
}

/// One channel to each node, by the address that it was made for: bounded by the nodes of a topology.
#[derive(Debug, Default)]
pub(crate) struct Channels(Mutex<BTreeMap<NodeId, (String, Channel)>>);

impl Channels {
    pub(crate) fn channel(&self, topology: &Topology, node: &NodeId) -> Result<Channel, ChannelError> {
        let unknown = || ChannelError::UnknownNode { node: node.clone() };
        let addr = &topology.node(node).ok_or_else(unknown)?.public_addr;
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, channel)) = known.get(node).filter(|(of, _)| of == addr) {
            return Ok(channel.clone());
        }
        known.retain(|node, _| topology.node(node).is_some());
        let wrong = |source| ChannelError::Address { node: node.clone(), addr: addr.clone(), source };
        let channel = endpoint(addr).map_err(wrong)?.connect_lazy();
        known.insert(node.clone(), (addr.clone(), channel.clone()));
        Ok(channel)
    }
}

fn endpoint(addr: &str) -> Result<Endpoint, tonic::transport::Error> {
    let endpoint = Endpoint::from_shared(format!("http://{addr}"))?
        .connect_timeout(CHANNEL_CONNECT_TIMEOUT)
        .http2_keep_alive_interval(CHANNEL_KEEP_ALIVE)
        .keep_alive_timeout(CHANNEL_KEEP_ALIVE_TIMEOUT)
        .tcp_nodelay(true);
    Ok(endpoint)
}
