//! How long user code may take, and how much of it runs at once.

use core::time::Duration;

use super::call::Stage;

/// The shortest deferral: a hook that is never ready is asked a hundred times a second at most, and
/// others have their turn meanwhile.
pub(super) const DEFERRAL_MIN: Duration = Duration::from_millis(10);

/// The times and bounds of the hooks of one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long `prepare` may take before it is named as the one that holds things up, default 30 s.
    pub prepare_deadline: Duration,
    /// How long `catch_up` may go without reporting progress before it is named, default 60 s. It may
    /// take as long as it likes while it reports.
    pub catch_up_deadline: Duration,
    /// How long `seal` may take, default 2 s. Clients wait meanwhile, so a handover whose `seal` is
    /// later than that is called off and the old leader goes on.
    pub seal_deadline: Duration,
    /// How long `activate` may take, default 5 s. Nobody serves the partition meanwhile, so a leader
    /// whose `activate` is later than that gives its leadership up; so does one that does not come to it,
    /// once every stage that goes before could have taken its own deadline as well.
    pub activate_deadline: Duration,
    /// How long `release` may take before it is named, default 60 s.
    pub release_deadline: Duration,
    /// How long a hook that was told to end may go on before it is ended by force, default 1 s.
    pub cancel_grace: Duration,
    /// The first pause after a refusal, default 500 ms; it doubles with each further one.
    pub retry_min: Duration,
    /// The longest pause between two attempts, and the longest deferral, default 30 s.
    pub retry_max: Duration,
    /// Copies that one node prepares, catches up or releases at once, default 8. Replicas that the in-sync
    /// set counts on are prepared beside those, as many at once, those that are late not counted: first
    /// the ones that this node is to lead. Seals and activations are never held back.
    pub copies_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            prepare_deadline: Duration::from_secs(30),
            catch_up_deadline: Duration::from_secs(60),
            seal_deadline: Duration::from_secs(2),
            activate_deadline: Duration::from_secs(5),
            release_deadline: Duration::from_secs(60),
            cancel_grace: Duration::from_secs(1),
            retry_min: Duration::from_millis(500),
            retry_max: Duration::from_secs(30),
            copies_max: 8,
        }
    }
}

impl Config {
    pub(super) fn deadline_of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Prepare => self.prepare_deadline,
            Stage::CatchUp => self.catch_up_deadline,
            Stage::Seal => self.seal_deadline,
            Stage::Activate => self.activate_deadline,
            Stage::Release => self.release_deadline,
        }
    }

    /// Whether the times and bounds can be meant.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let deadlines = [
            self.prepare_deadline,
            self.catch_up_deadline,
            self.seal_deadline,
            self.activate_deadline,
            self.release_deadline,
        ];
        if deadlines.iter().any(Duration::is_zero) {
            return Err(InvalidConfig::NoTime);
        }
        if self.retry_min.is_zero() || self.retry_min > self.retry_max {
            return Err(InvalidConfig::Retry);
        }
        if self.copies_max == 0 {
            return Err(InvalidConfig::NoCopies);
        }
        Ok(())
    }
}

/// The times do not fit each other. Nothing changed; configure others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// No copy could ever be made.
    #[error("at least one copy must be made at once")]
    NoCopies,
    /// A hook would be late before it began.
    #[error("every hook needs a deadline above zero")]
    NoTime,
    /// The first pause is zero, or longer than the longest.
    #[error("the first pause after a refusal must be above zero and not above the longest")]
    Retry,
}
