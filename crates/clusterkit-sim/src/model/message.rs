//! Messages in flight: a bag from which any may be taken, twice, late or never.

use super::limits::MESSAGES_MAX;

/// What a message is. What `x`, `y`, `z`, `w` and `record` of a [`Message`] stand for is said at each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    /// T1, follower to leader: `x` the end of its log, `y` its last epoch.
    #[default]
    Attach,
    /// W4, leader to follower: the records from `x` up to `record`, after one of epoch `y`; `z` its commit.
    Append,
    /// T2, leader to follower: its epoch `x` ends at `y`; `z` and `w` echo the Attach.
    Diverge,
    /// T4, leader to follower: the state up to `record`.
    Snapshot,
    /// W5, follower to leader: `x` the durable end of its log.
    Ack,
    /// S1 to S3, leader to the control plane: version `x`, in-sync set `y`, the added `z` and its run `w`.
    Propose,
    /// The answer that only a control plane without the rule [`RefusalRaisesVersion`] gives: version `x`.
    ///
    /// [`RefusalRaisesVersion`]: super::Rule::RefusalRaisesVersion
    Refuse,
    /// M3, leader to the control plane: version `x`.
    Handoff,
    /// F6b, leader to the control plane: version `x`.
    Stop,
    /// L1, asker to follower: `at` is when it was sent.
    Ask,
    /// L1, back to the asker: `at` as asked, `x` the topology version of the follower.
    Support,
    /// L5, leader to follower: `x` the number of the barrier.
    Barrier,
    /// L5, back to the leader.
    BarrierAck,
    /// F3, a controller's decision on its way through the log of the control plane: version `x`, leader `y`.
    Elect,
    /// F5, replica to the control plane: `x` the end of its log, `y` its last epoch.
    Status,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub(crate) const ALL: [Self; 15] = [
        Self::Attach,
        Self::Append,
        Self::Diverge,
        Self::Snapshot,
        Self::Ack,
        Self::Propose,
        Self::Refuse,
        Self::Handoff,
        Self::Stop,
        Self::Ask,
        Self::Support,
        Self::Barrier,
        Self::BarrierAck,
        Self::Elect,
        Self::Status,
    ];
}

/// One message. `uid` and `inc` are those of the follower's replica and run, or of the run that speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub(crate) struct Message {
    pub(crate) kind: Kind,
    pub(crate) partition: u8,
    pub(crate) from: u8,
    pub(crate) to: u8,
    pub(crate) epoch: u8,
    pub(crate) uid: u8,
    pub(crate) inc: u8,
    pub(crate) x: u8,
    pub(crate) y: u8,
    pub(crate) z: u8,
    pub(crate) w: u8,
    pub(crate) record: u16,
    pub(crate) at: u32,
}

impl Message {
    /// Whether it goes the same way as `other` and is of its kind.
    fn resembles(&self, other: &Self) -> bool {
        let way = |message: &Self| (message.kind, message.partition, message.from, message.to);
        way(self) == way(other)
    }
}

/// What is under way.
#[derive(Debug, Clone)]
pub(crate) struct Bag {
    held: [Message; MESSAGES_MAX],
    count: u8,
    /// Where the next one goes when the bag is full.
    victim: u8,
}

impl Bag {
    pub(crate) fn new() -> Self {
        Self { held: [Message::default(); MESSAGES_MAX], count: 0, victim: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.count = 0;
        self.victim = 0;
    }

    pub(crate) fn all(&self) -> &[Message] {
        &self.held[..usize::from(self.count)]
    }

    /// Sends `message`. A copy of one under way adds nothing, since every message may arrive twice.
    pub(crate) fn send(&mut self, message: Message) {
        if self.all().contains(&message) {
            return;
        }
        if usize::from(self.count) < MESSAGES_MAX {
            self.held[usize::from(self.count)] = message;
            self.count += 1;
        } else {
            self.held[usize::from(self.victim)] = message;
            self.victim = (self.victim + 1) % MESSAGES_MAX as u8;
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        usize::from(self.count) == MESSAGES_MAX
    }

    pub(crate) fn remove(&mut self, at: usize) {
        self.count -= 1;
        self.held[at] = self.held[usize::from(self.count)];
    }

    /// Where `message` is, or the first one like it: when steps before it are left out of a trace, what it
    /// carries differs.
    pub(crate) fn find(&self, message: &Message) -> Option<usize> {
        let same = self.all().iter().position(|held| held == message);
        same.or_else(|| self.all().iter().position(|held| held.resembles(message)))
    }
}
