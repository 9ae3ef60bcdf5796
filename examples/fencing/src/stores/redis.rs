//! A key of Redis, guarded by a script: Redis runs nothing else meanwhile.

use std::path::Path;

use clusterkit::Epoch;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, RedisResult, Script};

use super::{Held, Verdict};

const KEY: &str = "guarded";
const CREATE: &str = "return redis.call('HSET', KEYS[1], 'epoch', 0, 'value', '')";
/// Lua counts in doubles, which are exact up to 2^53: enough for epochs.
const WRITE: &str = "
    if tonumber(ARGV[1]) < tonumber(redis.call('HGET', KEYS[1], 'epoch')) then
        return 0
    end
    redis.call('HSET', KEYS[1], 'epoch', ARGV[1], 'value', ARGV[2])
    return 1";

#[derive(Debug, Clone)]
pub(crate) struct KeyStore(MultiplexedConnection);

impl KeyStore {
    /// Connects to the server that listens on `socket`.
    pub(super) async fn connect(socket: &Path) -> RedisResult<Self> {
        let client = Client::open(ConnectionAddr::Unix(socket.to_owned()))?;
        // A process that was stopped finds every timeout passed, and the answer there as well.
        let patient = AsyncConnectionConfig::new().set_response_timeout(None);
        Ok(Self(client.get_multiplexed_async_connection_with_config(&patient).await?))
    }

    pub(super) async fn create(&self) -> RedisResult<()> {
        Script::new(CREATE).key(KEY).invoke_async(&mut self.0.clone()).await
    }

    pub(super) async fn read(&self) -> RedisResult<Held> {
        let mut read = redis::cmd("HMGET");
        read.arg(KEY).arg("epoch").arg("value");
        let (epoch, value) = read.query_async(&mut self.0.clone()).await?;
        Ok(Held { epoch: Epoch(epoch), value })
    }

    pub(super) async fn write(&self, new: &Held) -> RedisResult<Verdict> {
        let script = Script::new(WRITE);
        let mut write = script.key(KEY);
        write.arg(new.epoch.0).arg(&new.value);
        let written: bool = write.invoke_async(&mut self.0.clone()).await?;
        Ok(if written { Verdict::Accepted } else { Verdict::Stale })
    }
}
