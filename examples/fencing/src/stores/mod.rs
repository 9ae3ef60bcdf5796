//! Stores outside of the cluster that refuse what is older than what they have seen.
//!
//! The rule is one and the same: each store keeps the epoch of its newest write, and takes a write only
//! with that epoch or a newer one. It compares and writes in one step, for otherwise a newer write could
//! come between.

mod file;
mod postgres;
mod redis;

use std::fmt;
use std::io;
use std::path::PathBuf;

use clap::Args;
use clusterkit::Epoch;
use serde::{Deserialize, Serialize};

pub(crate) use self::file::FileStore;
use self::postgres::RowStore;
use self::redis::KeyStore;

/// What a store said to a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "a write may have been refused"]
pub(crate) enum Verdict {
    /// It is written.
    Accepted,
    /// A newer epoch has written before; nothing changed.
    Stale,
}

/// What a store holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Of the newest write.
    pub(crate) epoch: Epoch,
    pub(crate) value: String,
}

/// One store. Clones share its connection.
#[derive(Debug, Clone)]
pub(crate) enum Store {
    Postgres(RowStore),
    Redis(KeyStore),
    File(FileStore),
}

impl Store {
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Postgres(_) => Kind::Postgres,
            Self::Redis(_) => Kind::Redis,
            Self::File(_) => Kind::File,
        }
    }

    /// Makes room for the value: epoch 0, no text.
    pub(crate) async fn create(&self) -> Result<(), StoreError> {
        match self {
            Self::Postgres(row) => Ok(row.create().await?),
            Self::Redis(key) => Ok(key.create().await?),
            Self::File(file) => Ok(file.create()?),
        }
    }

    pub(crate) async fn read(&self) -> Result<Held, StoreError> {
        match self {
            Self::Postgres(row) => Ok(row.read().await?),
            Self::Redis(key) => Ok(key.read().await?),
            Self::File(file) => Ok(file.read()?),
        }
    }

    /// Writes `new`, unless the store has seen a newer epoch.
    ///
    /// After an error the write may or may not have been done.
    pub(crate) async fn write(&self, new: &Held) -> Result<Verdict, StoreError> {
        match self {
            Self::Postgres(row) => Ok(row.write(new).await?),
            Self::Redis(key) => Ok(key.write(new).await?),
            Self::File(file) => {
                let (file, new) = (file.clone(), new.clone());
                let write = tokio::task::spawn_blocking(move || file.write(&new));
                Ok(write.await.map_err(io::Error::other)??)
            }
        }
    }
}

/// Where the stores are.
#[derive(Debug, Clone, Args)]
pub(crate) struct Places {
    /// The file that is guarded.
    #[arg(long)]
    pub(crate) file: PathBuf,
    /// The directory of the socket of the PostgreSQL server.
    #[arg(long)]
    pub(crate) postgres: Option<PathBuf>,
    /// The socket of the Redis server.
    #[arg(long)]
    pub(crate) redis: Option<PathBuf>,
}

impl Places {
    /// Connects to those that are there.
    pub(crate) async fn connect(&self) -> Result<Vec<Store>, StoreError> {
        let mut stores = Vec::new();
        if let Some(dir) = &self.postgres {
            stores.push(Store::Postgres(RowStore::connect(dir).await?));
        }
        if let Some(socket) = &self.redis {
            stores.push(Store::Redis(KeyStore::connect(socket).await?));
        }
        stores.push(Store::File(FileStore::new(&self.file)));
        Ok(stores)
    }
}

/// Which store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Postgres,
    Redis,
    File,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Postgres => "PostgreSQL row",
            Self::Redis => "Redis key",
            Self::File => "file",
        })
    }
}

/// A store could not be asked. Whether a write was done is unknown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum StoreError {
    #[error("the file: {0}")]
    File(#[from] io::Error),
    #[error("PostgreSQL: {0}")]
    Postgres(#[from] tokio_postgres::Error),
    #[error("Redis: {0}")]
    Redis(#[from] ::redis::RedisError),
}
