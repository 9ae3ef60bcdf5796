//! What other nodes say to this one.

use std::sync::Arc;

use bytes::Bytes;
use clusterkit::messages::MessageHandler;
use clusterkit_core::id::NodeId;

use crate::engine::Input;
use crate::router::Router;
use crate::shared::Shared;
use crate::wire::{self, Request, Response};

/// See the [module](self).
#[derive(Clone)]
pub(crate) struct Messages {
    shared: Arc<Shared>,
}

impl Messages {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }
}

impl MessageHandler for Messages {
    /// Messages that find no room are lost, and repeated by their senders.
    fn handle_notice(&self, from: NodeId, body: Bytes) {
        if !*self.shared.running.borrow() {
            return;
        }
        for message in wire::messages(&body) {
            let input = Input::Message { from: from.clone(), message };
            if self.shared.inbox.try_send(input).is_err() {
                return;
            }
        }
    }

    async fn handle_request(&self, from: NodeId, body: Bytes) -> Bytes {
        let response = match wire::decode(&body) {
            None => Response::Refused,
            Some(Request::Write { partition, entry, ack, deadline_ms }) => {
                let router = Router::new(&self.shared);
                Response::Written(router.write_here(partition, entry, ack, deadline_ms).await)
            }
            Some(Request::Query { partition, question, read, deadline_ms }) => {
                let router = Router::new(&self.shared);
                Response::Answered(router.query_here(partition, question, read, deadline_ms).await)
            }
            Some(request) => {
                Response::Snapshot(self.shared.incoming.handle(&self.shared, from, request).await)
            }
        };
        wire::encode(&response)
    }
}
