//! The rules of the protocol, each of which can be taken out.

/// What the protocol promises; each has its function in the module `checks`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Invariant {
    /// One leader for a partition and an epoch.
    I1,
    /// The control plane's in-sync set lies within the maximal set of the leader of its epoch.
    I2,
    /// The log of every live, untainted in-sync member starts with all that is committed.
    I3,
    /// The log of the leader of the control plane's epoch starts with all that is committed.
    I4,
    /// Records of the same offset and epoch are the same, and so is all that is before them.
    I5,
    /// What is committed never changes, and no replica cuts off what it knows to be committed.
    I6,
    /// An acknowledged write is committed, and each write of a client is applied once.
    I7,
    /// No replica takes for committed what is not.
    I8,
    /// The in-sync set is not below its minimum, within the replicas, and contains the leader.
    I9,
    /// An active leader with a valid lease knows all that is committed.
    I10,
    /// A barrier that completes covers all that was committed when it started.
    I11,
    /// Some disk holds all that is committed while fewer disks than the minimum lost data.
    I12,
    /// The stamps of a log never go back.
    I13,
    /// Versions, epochs and incarnations grow.
    I14,
    /// Once the faults stop, every partition is led, complete, and serves reads and writes.
    I15,
}

/// What a rule is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Without it the invariant breaks: a run that takes it out must find that.
    Safety(Invariant),
    /// Without it a world does not heal ([`Invariant::I15`]).
    Liveness,
    /// Without it nothing breaks that the model can see: it saves work, time or unacknowledged writes.
    Convenience,
}

macro_rules! rules {
    ($($name:ident, $purpose:expr, $says:literal;)*) => {
        /// A rule of the protocol that can be taken out of the model.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum Rule {
            $(#[doc = $says] $name,)*
        }

        impl Rule {
            /// All rules, in the order of the protocol.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The rule's name, as the command line takes it.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            /// What breaks without it.
            #[must_use]
            pub fn purpose(self) -> Purpose {
                use Invariant::*;
                use Purpose::*;
                match self {
                    $(Self::$name => $purpose,)*
                }
            }

            /// The rule in words, with its number in the protocol.
            #[must_use]
            pub fn says(self) -> &'static str {
                match self {
                    $(Self::$name => $says,)*
                }
            }
        }
    };
}

rules! {
    // Write path.
    CommitByMaximalSet, Safety(I3), "W6: commit waits for every member of the maximal set, a proposed one too";
    CommitOwnDurable, Safety(I3), "W6: the leader's own records count once they are durable";
    NoOpOnElection, Liveness, "F4: a new leader appends a no-op";
    AppendChecksEpoch, Convenience, "W5: records follow a record of the epoch that the leader names";
    AppendChecksStart, Safety(I5), "W5: records are accepted exactly at the end of the log";
    AckDurable, Safety(I3), "W5: a follower acknowledges durable records only";
    AckChecksIncarnation, Safety(I3), "W6: an acknowledgement counts for the run that attached";
    DeduplicateOnAppend, Convenience, "W3: the leader looks into its applied table before it appends a retry";
    DeduplicateOnApply, Safety(I7), "W3: a record that repeats an applied one has no effect";
    ReplyAfterCommit, Safety(I7), "W7: ack=quorum is answered once the record is committed";
    ReplyAllAfterCommit, Convenience, "W7: ack=all waits for commit as well as for every replica";
    LogTimeForward, Safety(I13), "W3: a stamp is never before the last one in the log";
    // Attach, truncation, snapshots.
    AttachDurable, Safety(I3), "T1: what an Attach names is durable";
    AttachChecksEpoch, Safety(I3), "T2: an Attach of another epoch is dropped";
    AttachChecksIncarnation, Liveness, "T2: an Attach of an earlier run than the attached one is dropped";
    TruncateByEpoch, Safety(I3), "T2: divergence is found by the epoch index, not by the follower's commit";
    TruncateAtAll, Safety(I5), "T2: a log is compared before it is extended";
    TruncateUntilMatch, Safety(I5), "T3: after a truncation the logs are compared again";
    DivergeEchoed, Safety(I6), "T2: a Diverge that was made for another log end is dropped";
    SnapshotOfCommitted, Safety(I8), "T4: a snapshot holds committed records only";
    SnapshotOnlyForward, Safety(I3), "T4: a snapshot is installed over a shorter log only";
    SnapshotKeepsSessions, Safety(I7), "M6: the table of the clients' writes travels in the snapshot";
    SnapshotKeepsEpochIndex, Safety(I6), "T2: the epoch index reaches back beyond the log's start";
    SnapshotChecksIncarnation, Convenience, "T4: a snapshot made for another run or replica is dropped";
    // In-sync set.
    ExpandAfterEpochStart, Safety(I3), "S2: a member to be has all that the leader had when it was elected";
    ProgressClearedOnElection, Safety(I3), "F4: what a follower had matched in an earlier epoch is forgotten";
    ProposalKeptUntilVersion, Safety(I2), "S4: a proposal ends with a configuration of a higher version only";
    RefusalRaisesVersion, Safety(I2), "S4: a refusal makes a new version, so that no copy can win later";
    ProposalResent, Liveness, "S4: a proposal that was lost is sent again";
    ProposalChecksVersion, Safety(I3), "S5: a proposal is a compare-and-set on the version";
    ProposalChecksIncarnation, Safety(I3), "S5: who is added is still the run that caught up";
    ProposalChecksLiveness, Convenience, "S5: who is added is live";
    InSyncAtLeastMinimum, Safety(I12), "S1, S5, F1: the in-sync set never falls below its minimum";
    SwapAtMinimum, Convenience, "S3: a dead member at the minimum is replaced in one step";
    UidChecked, Safety(I6), "A message for an earlier replica of the node is dropped";
    ProgressClearedOnUid, Safety(I3), "Progress of a replica is forgotten when the node gets a new one";
    DeleteAfterConfiguration, Safety(I3), "M5: data is deleted once a configuration without it is committed";
    // Failure detection and election.
    ElectionChecksVersion, Safety(I4), "F3: an election is a compare-and-set, whichever controller decided it";
    OnlyUntaintedLead, Safety(I4), "R4: a tainted member is not elected";
    UncleanNeedsAll, Safety(I12), "F5: an unclean election waits for the status of every member";
    UncleanTakesLongest, Safety(I12), "F5: an unclean election takes the longest log of the last epoch";
    UncleanChecksIncarnation, Safety(I12), "F5: a status of an earlier run does not count";
    UncleanChecksEpoch, Safety(I12), "F5: a status counts for the epoch that it was asked in";
    AdoptForward, Safety(I14), "A node never goes back to an older configuration";
    AdoptAtOnce, Safety(I10), "L3: a node adopts all partitions of a topology version at once";
    // Restart and damage.
    RestartEndsEpoch, Safety(I5), "R2: a leader never continues its epoch after a restart";
    RestartRaisesIncarnation, Safety(I3), "R1: every registration makes a new incarnation";
    TaintAfterLoss, Safety(I3), "R3: a member that may have lost acknowledged records is tainted";
    TaintAfterSyncError, Safety(I3), "R3, D3: so is one whose sync failed, even if the machine did not restart";
    DamageStepsOut, Safety(I3), "D2: a damaged replica is tainted and comes back as a new one";
    SyncErrorStops, Safety(I3), "D3: a sync that failed is never tried again";
    // Support, leases, reads.
    WaitAfterElection, Safety(I10), "L3: a new leader waits until the promises it gave have run out";
    WaitForAllPromises, Safety(I10), "L3: it waits for every promise, not only for the one to its predecessor";
    NoCommitWhileWaiting, Safety(I10), "L3: a waiting leader does not commit";
    NoProposalWhileWaiting, Safety(I10), "L3: a waiting leader proposes nothing";
    NoHandoffWhileWaiting, Safety(I10), "L3: a waiting leader hands nothing over";
    NoStopWhileWaiting, Safety(I10), "L3: a waiting leader sends no Stop";
    PromisesOutliveRestart, Safety(I10), "L3: a restarted node counts as having promised everybody";
    StopExemptsSenderOnly, Safety(I10), "L3: a Stop frees from the promise to its sender, from no other";
    RunExemptsOlderOnly, Safety(I10), "L3: a promise is void once its node has a higher incarnation, not before";
    AnswerNamesVersion, Safety(I10), "L3: a promise says under which topology version it was given";
    AnswerWaitsForVersion, Safety(I10), "L3: a promise counts once the asker has applied that version";
    SupportEndsWithRun, Safety(I10), "L1: a promise made to an earlier run of the asker does not count";
    ClockMargin, Safety(I10), "L1: the asker counts a promise shorter than the giver, by eps";
    ClockFromSending, Safety(I10), "L1: the asker counts a promise from when it asked";
    LeaseByMaximalSet, Safety(I10), "L2: a lease needs the support of the maximal set";
    LeaseGivenUp, Safety(I10), "M3, F6b: who sent a Handoff or a Stop has no lease";
    SilentUntilVersion, Safety(I10), "M4, F6b: it resumes with a configuration of a higher version only";
    ReadsNeedActive, Safety(I11), "L4, L5: a leader reads once it has committed in its epoch";
    BarrierToAll, Safety(I11), "L5: a barrier asks every member of the maximal set";
    BarrierChecksEpoch, Safety(I11), "L5: a barrier is answered in its own epoch only";
    BarrierAnswersOwn, Safety(I11), "L5: an answer to an earlier barrier does not count for a later one";
    // Handoff.
    FarewellRefused, Liveness, "M4, F6b: a Handoff or Stop that nobody can follow makes a new version, so that its sender goes on";
    HandoffChecksVersion, Safety(I10), "M4: a handoff is a compare-and-set on the version";
    HandoffToUntainted, Safety(I4), "M4: leadership is handed to an untainted in-sync member";
    HandoffDrains, Convenience, "M3: a leader commits what it has before it hands over";
}

impl Rule {
    /// Rules that must be out of force as well, since they cover for this one.
    #[must_use]
    pub fn covered_by(self) -> &'static [Self] {
        match self {
            // A waiting leader commits nothing, so that one which drains first has nothing to hand over.
            Self::NoHandoffWhileWaiting => &[Self::HandoffDrains],
            // Who is handed to after a drain has everything, tainted or not.
            Self::HandoffToUntainted => &[Self::HandoffDrains],
            // Who is not waiting has outlived the promises to earlier leaders, and a Stop that frees from no
            // other promise may come from one that waits: either rule is enough, one of them is needed.
            Self::NoStopWhileWaiting => &[Self::StopExemptsSenderOnly],
            Self::StopExemptsSenderOnly => &[Self::NoStopWhileWaiting],
            _ => &[],
        }
    }
}

/// The rules that are out of force.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Without(u128);

impl Without {
    pub(crate) fn of(rules: &[Rule]) -> Self {
        Self(rules.iter().fold(0, |bits, rule| bits | 1 << (*rule as u8)))
    }

    pub(crate) fn has(self, rule: Rule) -> bool {
        self.0 & (1 << (rule as u8)) != 0
    }
}

const _: () = assert!(Rule::ALL.len() <= 128, "a set of rules is one word");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_can_be_taken_out_alone() {
        for rule in Rule::ALL {
            let without = Without::of(&[*rule]);
            let out: Vec<_> = Rule::ALL.iter().filter(|other| without.has(**other)).collect();
            assert_eq!(out, [rule]);
        }
    }
}
