//! Many keys at once.

use bytes::Bytes;

use super::{Entry, Kv, Version};
use crate::error::Error;

impl Kv {
    /// What is at each of `keys`, in their order. Requests go to all nodes concerned side by side, each key for itself:
    /// the reads are of no common moment.
    pub async fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Vec<Result<Option<Entry>, Error>> {
        let mut results = Vec::with_capacity(keys.len());
        for key in keys {
            results.push(self.get(key).await);
        }
        results
    }

    /// Puts each of `pairs`, and gives the version of each in their order. Pairs go to all partitions concerned side by
    /// side: some may be put although others fail.
    pub async fn put_many<K: AsRef<[u8]>>(&self, pairs: &[(K, Bytes)]) -> Vec<Result<Version, Error>> {
        let mut results = Vec::with_capacity(pairs.len());
        for (key, value) in pairs {
            results.push(self.put(key, value.clone()).await);
        }
        results
    }
}
