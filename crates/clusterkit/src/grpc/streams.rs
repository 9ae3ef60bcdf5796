//! How many streams a node serves at once.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::refusal::Refusal;

/// Counts the open streams of one node.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    free: Arc<Semaphore>,
    max: usize,
}

/// One open stream; dropping it makes room for another.
pub(super) type OpenStream = OwnedSemaphorePermit;

impl Streams {
    pub(super) fn new(max: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(max)), max }
    }

    /// Room for one more stream.
    pub(super) fn open(&self) -> Result<OpenStream, Refusal> {
        let permit = Arc::clone(&self.free).try_acquire_owned();
        permit.map_err(|_| Refusal::TooManyStreams { max: self.max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_stream_too_many_is_refused_until_another_ends() {
        let streams = Streams::new(2);
        let (first, _second) = (streams.open().unwrap(), streams.open().unwrap());
        assert_eq!(streams.open().unwrap_err(), Refusal::TooManyStreams { max: 2 });
        drop(first);
        assert!(streams.open().is_ok());
    }
}
