//! The failure detector's times.

use core::time::Duration;

/// How long silence may last before it means something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How often every node sends a heartbeat, default 200 ms. A shorter one costs the controller
    /// one message more for each node and beat.
    pub heartbeat: Duration,
    /// Silence until a node is suspect, default 600 ms. Three heartbeats are a good value, two the
    /// least: with less, one lost message makes a suspect. A suspect still leads what it leads.
    pub suspect_after: Duration,
    /// Silence until a node is dead and loses what it leads, default 1 s. Five heartbeats are a
    /// good value. It must be longer than `suspect_after`, and should be longer than the pauses the
    /// nodes have (garbage, paging, migration of a virtual machine), or the living are declared
    /// dead.
    pub dead_after: Duration,
    /// How long a probe may take, default 300 ms. Shorter than `dead_after`, or silence is always
    /// faster. A probe without an outcome is given up after this time.
    pub probe_timeout: Duration,
    /// How long a node is dead before it is gone and its replicas are rebuilt elsewhere, default
    /// 30 s. It should be longer than a restart takes, or every restart copies data.
    pub gone_after: Duration,
    /// How long a report may take to show in the record before it is repeated, default 1 s. It
    /// should be longer than the control plane takes to commit, or every report is sent twice.
    pub report_again_after: Duration,
}

impl Config {
    /// Whether the times fit each other.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        if self.tick().is_zero() || self.pause_min().is_zero() {
            return Err(InvalidConfig::HeartbeatTooShort);
        }
        if self.suspect_after < self.heartbeat * 2 {
            return Err(InvalidConfig::SuspectWithinTwoHeartbeats);
        }
        if self.dead_after <= self.suspect_after {
            return Err(InvalidConfig::DeadBeforeSuspect);
        }
        if self.probe_timeout >= self.dead_after {
            return Err(InvalidConfig::ProbeOutlastsSilence);
        }
        Ok(())
    }

    /// How often the detector wants to be woken at least. A pause is known by a late wake, so what
    /// was slept through before the wake was due stays counted as silence: at most this much.
    pub(super) fn tick(&self) -> Duration {
        self.heartbeat / 2
    }

    /// How late a wake must be to count as a pause. More than the lateness of an ordinary timer,
    /// and little, since only the lateness itself is forgiven and verdicts are later by no more.
    pub(super) fn pause_min(&self) -> Duration {
        self.heartbeat / 4
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(200),
            suspect_after: Duration::from_millis(600),
            dead_after: Duration::from_secs(1),
            probe_timeout: Duration::from_millis(300),
            gone_after: Duration::from_secs(30),
            report_again_after: Duration::from_secs(1),
        }
    }
}

/// The times do not fit each other. Nothing changed; configure others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// A node would be dead before it is suspect.
    #[error("the dead timeout must be longer than the suspicion timeout")]
    DeadBeforeSuspect,
    /// There is no time between two heartbeats.
    #[error("the heartbeat interval is too short")]
    HeartbeatTooShort,
    /// A probe could never be faster than silence.
    #[error("the probe timeout must be shorter than the dead timeout")]
    ProbeOutlastsSilence,
    /// One lost heartbeat would make a suspect.
    #[error("the suspicion timeout must be at least two heartbeats")]
    SuspectWithinTwoHeartbeats,
}
