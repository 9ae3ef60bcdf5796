//! Rules that can be left out on purpose, to see that a simulation notices.

macro_rules! mistakes {
    ($($name:ident, $says:literal;)*) => {
        /// A rule left out on purpose. Without the feature `mistakes` none ever is.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[allow(clippy::exhaustive_enums, reason = "tests go through all of them")]
        pub enum Mistake {
            $(#[doc = $says] $name,)*
        }

        impl Mistake {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its name.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// What is left out.
            #[must_use]
            pub fn says(self) -> &'static str {
                match self {
                    $(Self::$name => $says,)*
                }
            }
        }
    };
}

mistakes! {
    AckBeforeDurable, "W5: a follower acknowledges what is not durable";
    AckOfAnyRun, "W6: an acknowledgement of an earlier run counts";
    AppendAnywhere, "W5: records are taken that do not begin at the end of the log";
    ApplyUncommitted, "W8: records are applied before they are committed";
    AttachBeforeDurable, "T1: an Attach names what is not durable";
    AttachUnchecked, "T2: whatever a follower has counts as the leader's";
    BarrierToMajority, "L5: a barrier waits for a majority of the members only";
    BarrierWithoutRound, "L5: an answer to an earlier barrier counts for a later one";
    CommitByInSync, "W6: members that are proposed are not waited for";
    CommitBelowMinimum, "W6: something is committed with fewer members than the minimum";
    CommitByMajority, "W6: something is committed when a majority has it";
    CommitOwnUnsynced, "W6: what the leader itself has not on its disk is committed";
    CommitWhileWaiting, "L3: a new leader commits before the promises it gave have run out";
    DivergeUnchecked, "T2: a late Diverge is obeyed";
    ExpandEarly, "S2: a member is taken in before it has all that the leader had when it was elected";
    LeaseByInSync, "L2: members that are proposed need not support the leader";
    LeaseKeptInHandoff, "M3: a leader that handed over goes on reading by its lease";
    LeaderOutlivesRestart, "R2: a leader goes on in its epoch after a restart";
    MarginIgnored, "L1: a promise is counted from when it arrives";
    NoWait, "L3: a new leader does not wait";
    PromiseAheadOfTopology, "L3: a promise counts before its topology is applied";
    PromisesForgottenAtStart, "L3: a process that starts has promised nothing";
    ProgressKeptAcrossUid, "A replica's progress is kept when the node gets another one";
    ProposalForgotten, "S4: a proposal that is not answered is given up";
    ReadAtOnce, "L4: a linearizable read is served without lease or barrier";
    ReplyBeforeCommit, "W7: ack=quorum is answered when the leader has it";
    ResumeAfterHandoff, "M4: a leader that handed over goes on when it hears nothing";
    SessionsIgnored, "W3: a repeated request takes effect once more";
    SnapshotBackwards, "T4: a snapshot is installed over a longer log";
    SnapshotUncommitted, "T4: a snapshot goes further than what is committed";
    StaleTopology, "An older topology is adopted";
    StampBackwards, "W3: a stamp is that of the wall clock, whatever the log has";
    TruncateToCommit, "T3: a follower cuts its log at its commit instead of comparing it";
    UidUnchecked, "A message for an earlier placement of the node is taken";
    WaitForPredecessorOnly, "L3: a new leader waits for the promise to its predecessor only";
}

/// The mistakes that are made: none, but in tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mistakes(#[cfg(feature = "mistakes")] Option<Mistake>);

impl Mistakes {
    /// Exactly this one.
    #[cfg(feature = "mistakes")]
    #[must_use]
    pub fn only(mistake: Mistake) -> Self {
        Self(Some(mistake))
    }

    /// Whether `mistake` is made.
    #[cfg(feature = "mistakes")]
    #[must_use]
    pub fn has(self, mistake: Mistake) -> bool {
        self.0 == Some(mistake)
    }

    /// Whether `mistake` is made: never.
    #[cfg(not(feature = "mistakes"))]
    #[must_use]
    pub fn has(self, _: Mistake) -> bool {
        false
    }
}
