//! A row of PostgreSQL, guarded by the condition of its update.

use std::path::Path;
use std::sync::Arc;

use clusterkit::Epoch;
use tokio_postgres::{Client, Config, Error, NoTls};

use super::{Held, Verdict};

const CREATE: &str = "CREATE TABLE guarded (id int PRIMARY KEY, epoch bigint NOT NULL, value text NOT NULL);
    INSERT INTO guarded VALUES (1, 0, '')";
const READ: &str = "SELECT epoch, value FROM guarded WHERE id = 1";
/// One statement on its own, no transaction of several: an owner that is stopped in the middle of one
/// would keep the row locked for as long.
const WRITE: &str = "UPDATE guarded SET epoch = $1, value = $2 WHERE id = 1 AND epoch <= $1";

#[derive(Debug, Clone)]
pub(crate) struct RowStore(Arc<Client>);

impl RowStore {
    /// Connects to the server whose socket is in `dir`.
    pub(super) async fn connect(dir: &Path) -> Result<Self, Error> {
        let mut config = Config::new();
        config.host_path(dir).user("postgres").dbname("postgres");
        let (client, connection) = config.connect(NoTls).await?;
        // It ends with the client, and says in the client's next answer what broke it.
        tokio::spawn(connection);
        Ok(Self(Arc::new(client)))
    }

    pub(super) async fn create(&self) -> Result<(), Error> {
        self.0.batch_execute(CREATE).await
    }

    pub(super) async fn read(&self) -> Result<Held, Error> {
        let row = self.0.query_one(READ, &[]).await?;
        let (epoch, value): (i64, String) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Held { epoch: Epoch(epoch.cast_unsigned()), value })
    }

    pub(super) async fn write(&self, new: &Held) -> Result<Verdict, Error> {
        let epoch = i64::try_from(new.epoch.0).expect("it grows by one with each leader");
        let rows = self.0.execute(WRITE, &[&epoch, &new.value]).await?;
        Ok(if rows == 1 { Verdict::Accepted } else { Verdict::Stale })
    }
}
