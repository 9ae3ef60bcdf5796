//! What the program opens before anybody hears of its node.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use clusterkit_core::id::{PartitionId, ReplicaUid};
use clusterkit_storage::disk::DiskLock;

use crate::error::{InvalidSettings, OpeningError, StartError};

type Outcome = Result<BTreeMap<PartitionId, ReplicaUid>, OpeningError>;
type Step = Box<dyn FnOnce(&Path) -> Outcome + Send>;

/// A step that is taken once, by whichever clone of its builder comes to it first.
#[derive(Clone)]
pub(crate) struct Opening {
    step: Arc<Mutex<Option<Step>>>,
}

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening").field("is_taken", &self.is_taken()).finish_non_exhaustive()
    }
}

impl Opening {
    pub(crate) fn new(step: impl FnOnce(&Path) -> Outcome + Send + 'static) -> Self {
        Self { step: Arc::new(Mutex::new(Some(Box::new(step)))) }
    }

    pub(crate) fn is_taken(&self) -> bool {
        self.step().is_none()
    }

    /// Takes the step, and says which replicas are damaged. Holds on to the lock of the directory until it is done,
    /// also where nobody waits for that any more.
    pub(crate) async fn run(
        &self,
        dir: PathBuf,
        lock: Arc<DiskLock>,
    ) -> Result<BTreeMap<PartitionId, ReplicaUid>, StartError> {
        let step = self.step().take().ok_or(InvalidSettings::OpenedBefore)?;
        let opened = tokio::task::spawn_blocking(move || {
            let opened = step(&dir);
            drop(lock);
            opened
        });
        // It is never aborted, and a panic of the program's is its own.
        let opened = opened.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        opened.map_err(|source| StartError::Opening { source: source.into() })
    }

    fn step(&self) -> MutexGuard<'_, Option<Step>> {
        self.step.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
