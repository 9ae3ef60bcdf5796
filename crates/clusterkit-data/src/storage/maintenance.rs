//! What has to be done now and then: make states durable, free what was dropped, look for damage and mend it.

use std::sync::Arc;

use clusterkit_storage::state_store::{Damage, StateError};

use super::limits::{RECLAIM_ENTRIES, SCRUB_UNITS};
use super::shared::{Shared, lock};
use super::{LogInput, StorageError};

/// Keeps the state store in order.
#[derive(Debug)]
pub(crate) struct Maintenance {
    shared: Arc<Shared>,
}

impl Maintenance {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    /// Makes all states durable, and does a little of the rest. What the log worker is to hear of it, unless anything
    /// has failed.
    pub(crate) fn step(&mut self) -> Option<LogInput> {
        if self.shared.has_failed() {
            return None;
        }
        match self.keep_order() {
            Ok(durable) => Some(durable),
            Err(error) => {
                self.shared.fail(StorageError::State(error));
                None
            }
        }
    }

    fn keep_order(&self) -> Result<LogInput, StateError> {
        let store = &self.shared.store;
        let durable = store.checkpoint()?;
        let reclaimed = store.reclaim(RECLAIM_ENTRIES)?;
        let scrubbed = store.scrub(SCRUB_UNITS)?;
        let damages = [durable.damages, reclaimed.damages, scrubbed.damages].concat();
        damages.into_iter().for_each(|damage| self.shared.note_damage(damage));
        self.shared.take_damages().iter().try_for_each(|damage| self.mend(damage))?;
        Ok(LogInput::Checkpointed(durable.indexes))
    }

    /// Gives up what is damaged. All replicas concerned are out of service since the damage was noted.
    fn mend(&self, damage: &Damage) -> Result<(), StateError> {
        if let Some(state) = damage.replica
            && let Some(key) = self.shared.key_of(state)
        {
            let slot = self.shared.slot(key);
            let mut slot = lock(&slot);
            *slot = None;
            passing_damage(self.shared.store.drop_replica(state))?;
        }
        passing_damage(self.shared.store.renew(damage))
    }
}

/// What is damaged already is no reason to stop.
fn passing_damage(outcome: Result<(), StateError>) -> Result<(), StateError> {
    match outcome {
        Err(StateError::Damaged(_)) => Ok(()),
        outcome => outcome,
    }
}
