//! The settings of replicas.

use core::time::Duration;

use super::mistake::Mistakes;

/// Bytes that a record's payload may have.
pub const PAYLOAD_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The longest promise of support. A node that starts waits for as long before it leads, since it does not know
/// what it promised before.
pub const SUPPORT_MAX: Duration = Duration::from_millis(500);
/// Reads that may wait on one replica.
pub const READS_MAX: usize = 4_096;
/// Writes that may wait for their answer on one replica.
pub const WRITES_MAX: usize = 4_096;

/// The settings of all replicas of a node. Nodes may have different ones, as while they are changed one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// How long a member of the in-sync set may make no progress before it is left out (T_lag). Default 500 ms.
    /// Shorter throws healthy members out while a disk hiccups; until then every write waits for the slow one.
    pub lag_max: Duration,
    /// How long a promise of support lasts (P). Default 150 ms. A failover of a partition that served
    /// linearizable reads waits for up to as long. At most [`SUPPORT_MAX`].
    pub support: Duration,
    /// By how many percent the asker counts a promise shorter than it was given (eps). Default 10: right as long
    /// as clocks run within 5 % of true time.
    pub clock_margin_percent: u32,
    /// After how long without an answer something is sent again. Default 100 ms; above a round trip and a sync.
    pub resend: Duration,
    /// The longest pause between two attempts to attach. Default 1 s; they begin at `resend` and double.
    pub attach_pause_max: Duration,
    /// How long a member that was left out has to keep up before it is taken in again; doubles each time. Default
    /// 1 s.
    pub expand_after: Duration,
    /// The longest of those times. Default 20 s: as long a member that flapped stays out once it is well.
    pub expand_after_max: Duration,
    /// How long writes may be held up for a handover before they go on, and it is tried again. Default 500 ms.
    pub drain_max: Duration,
    /// The pause between two such attempts. Default 1 s.
    pub drain_pause: Duration,
    /// The longest pause between two reports of a stall. Default 20 s; they begin at twice `lag_max` and double.
    pub stall_pause_max: Duration,
    /// How long a replica's data stay after it was taken from this node. Default 1 min.
    pub removal_grace: Duration,
    /// Bytes of records that are under way to one follower. Default 4 MiB.
    pub window_bytes: usize,
    /// Bytes of one message's records, and of one batch that is applied. Default 256 KiB. One record may be larger.
    pub batch_bytes: usize,
    /// Bytes that are written and not committed before writes are refused. Default 16 MiB.
    pub uncommitted_bytes_max: usize,
    /// Bytes of records that one replica keeps in memory for those who lag. Default 4 MiB.
    pub tail_bytes_max: usize,
    /// Rules left out on purpose, to see that a test notices.
    #[doc(hidden)]
    pub mistakes: Mistakes,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            lag_max: Duration::from_millis(500),
            support: Duration::from_millis(150),
            clock_margin_percent: 10,
            resend: Duration::from_millis(100),
            attach_pause_max: Duration::from_secs(1),
            expand_after: Duration::from_secs(1),
            expand_after_max: Duration::from_secs(20),
            drain_max: Duration::from_millis(500),
            drain_pause: Duration::from_secs(1),
            stall_pause_max: Duration::from_secs(20),
            removal_grace: Duration::from_mins(1),
            window_bytes: 4 << 20,
            batch_bytes: 256 << 10,
            uncommitted_bytes_max: 16 << 20,
            tail_bytes_max: 4 << 20,
            mistakes: Mistakes::default(),
        }
    }
}

impl Config {
    /// Whether the settings make sense together.
    ///
    /// # Errors
    ///
    /// The first relation that does not hold.
    pub fn check(&self) -> Result<(), InvalidConfig> {
        let ensure = |holds: bool, error| if holds { Ok(()) } else { Err(error) };
        let pauses =
            [self.lag_max, self.support, self.resend, self.expand_after, self.drain_max, self.drain_pause];
        ensure(pauses.iter().all(|pause| !pause.is_zero()), InvalidConfig::Zero)?;
        ensure((10..=50).contains(&self.clock_margin_percent), InvalidConfig::ClockMargin)?;
        ensure(self.support <= SUPPORT_MAX, InvalidConfig::Support)?;
        ensure(self.resend < self.lag_max, InvalidConfig::Resend)?;
        let grows = self.resend <= self.attach_pause_max
            && self.lag_max <= self.stall_pause_max
            && self.expand_after <= self.expand_after_max;
        ensure(grows, InvalidConfig::Pauses)?;
        let bytes = [self.window_bytes, self.batch_bytes, self.uncommitted_bytes_max, self.tail_bytes_max];
        ensure(bytes.iter().all(|bytes| *bytes > 0), InvalidConfig::Zero)
    }

    /// For how long the asker counts a promise that `lasts` by its giver's clock.
    pub(super) fn support_counted(&self, lasts: Duration) -> Duration {
        lasts.min(self.support) * (100 - self.clock_margin_percent) / 100
    }
}

/// The settings of replicas contradict each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// The margin for clock rates is too small to be safe, or too large to be of use.
    #[error("clock_margin_percent must be 10 to 50")]
    ClockMargin,
    /// A pause that grows begins above its longest.
    #[error(
        "resend, lag_max and expand_after must not be above attach_pause_max, stall_pause_max and expand_after_max"
    )]
    Pauses,
    /// A lost message must be sent again before its receiver counts as lagging.
    #[error("resend must be shorter than lag_max")]
    Resend,
    /// Promises would outlast what a node that starts waits for.
    #[error("support must not be above {SUPPORT_MAX:?}")]
    Support,
    /// A time or a size is zero.
    #[error("times and sizes must not be zero")]
    Zero,
}
