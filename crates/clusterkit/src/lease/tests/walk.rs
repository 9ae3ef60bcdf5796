//! Random walks over one gate, its leases and their waiters, beside a naive twin that keeps lists.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

/// Leases, permits and waiters that a walk keeps at most: more would only repeat each other.
const KEPT_MAX: usize = 8;

/// One step. A lease is named by how many are newer.
#[derive(Debug, Clone)]
enum Step {
    Adopt { versions: u64 },
    Advance { millis: u64 },
    Await { what: u8, number: usize },
    Begin { lease: usize },
    Close { why: u8, epochs: u64 },
    Confirm { permit: usize },
    Drop { permit: usize },
    Extend { until: u64 },
    GiveUp { epochs: u64, versions: u64 },
    Lead,
    Open { epochs: u64, versions: u64 },
    Reopen { epochs_back: u64 },
    Stop,
    Suspend { epochs_back: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..3_u64).prop_map(|versions| Step::Adopt { versions }),
        8 => (0..15_u64).prop_map(|millis| Step::Advance { millis }),
        12 => (0..3_u8, 0..3_usize).prop_map(|(what, number)| Step::Await { what, number }),
        24 => (0..2_usize).prop_map(|lease| Step::Begin { lease }),
        3 => (0..3_u8, 1..3_u64).prop_map(|(why, epochs)| Step::Close { why, epochs }),
        5 => any::<usize>().prop_map(|permit| Step::Confirm { permit }),
        4 => any::<usize>().prop_map(|permit| Step::Drop { permit }),
        10 => (0..50_u64).prop_map(|until| Step::Extend { until }),
        2 => (0..2_u64, 0..3_u64).prop_map(|(epochs, versions)| Step::GiveUp { epochs, versions }),
        8 => Just(Step::Lead),
        5 => (0..3_u64, 0..2_u64).prop_map(|(epochs, versions)| Step::Open { epochs, versions }),
        8 => (0..2_u64).prop_map(|epochs_back| Step::Reopen { epochs_back }),
        1 => Just(Step::Stop),
        6 => (0..2_u64).prop_map(|epochs_back| Step::Suspend { epochs_back }),
    ]
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Closed(LeaseLost),
    Draining,
    Open,
}

/// What should be so.
#[derive(Debug)]
struct Twin {
    now: u64,
    /// Every time that support was given for.
    answers: Vec<u64>,
    stopped: bool,
    standing: Standing,
    epoch: u64,
    epochs_seen: Vec<u64>,
    version: u64,
    /// The epochs that were given up, each with the version by which it was.
    given_up: Vec<(u64, u64)>,
    /// Epoch, version and time of issue of each permit that is out, in order of issue.
    permits: Vec<(u64, u64, u64)>,
}

impl Twin {
    fn new() -> Self {
        Self {
            now: 0,
            answers: Vec::new(),
            stopped: false,
            standing: Standing::Closed(LeaseLost::NotLeader),
            epoch: 0,
            epochs_seen: vec![0],
            version: 0,
            given_up: Vec::new(),
            permits: Vec::new(),
        }
    }

    fn epoch_seen(&self) -> u64 {
        *self.epochs_seen.iter().max().expect("it begins with one")
    }

    fn supported(&self) -> Result<(), LeaseLost> {
        if self.stopped {
            return Err(LeaseLost::Stopped);
        }
        let is_supported = self.answers.iter().any(|until| self.now < *until);
        if is_supported { Ok(()) } else { Err(LeaseLost::Expired) }
    }

    fn may_end(&self, epoch: u64) -> Result<(), LeaseLost> {
        self.supported()?;
        if epoch < self.epoch {
            return Err(LeaseLost::Superseded { epoch: Epoch(self.epoch_seen()) });
        }
        match &self.standing {
            Standing::Closed(why) => Err(why.clone()),
            _ if self.is_given_up() => Err(LeaseLost::NotLeader),
            Standing::Draining | Standing::Open => Ok(()),
        }
    }

    fn may_begin(&self, epoch: u64) -> Result<(), LeaseLost> {
        self.may_end(epoch)?;
        if self.standing == Standing::Draining { Err(LeaseLost::HandingOver) } else { Ok(()) }
    }

    fn may_lead(&self) -> Result<u64, LeaseLost> {
        self.supported()?;
        match self.standing {
            _ if self.is_given_up() => Err(LeaseLost::NotLeader),
            Standing::Closed(_) => Err(LeaseLost::NotLeader),
            Standing::Draining => Err(LeaseLost::HandingOver),
            Standing::Open => Ok(self.epoch),
        }
    }

    fn is_given_up(&self) -> bool {
        let of_this = |version| self.version <= version;
        self.given_up
            .iter()
            .any(|(epoch, version)| *epoch > self.epoch || (*epoch == self.epoch && of_this(*version)))
    }

    fn leads(&self, epoch: u64) -> bool {
        !matches!(self.standing, Standing::Closed(_)) && self.epoch == epoch
    }

    /// What a waiter ends with now, `None` when it goes on waiting.
    fn ending(&self, wanted: &Wanted) -> Option<Ending> {
        match wanted {
            Wanted::Adopted(version) => {
                self.permits.iter().all(|permit| permit.1 >= *version).then_some(Ending::Settled)
            }
            Wanted::Drained => self.permits.is_empty().then_some(Ending::Settled),
            Wanted::Lost(epoch) => self.may_end(*epoch).err().map(Ending::Lost),
        }
    }
}

/// What somebody waits for.
#[derive(Debug)]
enum Wanted {
    Adopted(u64),
    Drained,
    /// The end of a lease of this epoch.
    Lost(u64),
}

#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Lost(LeaseLost),
    Settled,
}

/// The house, and its twin.
struct Walk {
    house: House,
    twin: Twin,
    leases: Vec<Lease>,
    permits: Vec<Permit>,
    waiters: Vec<(Wanted, Waiting<Ending>)>,
}

impl Walk {
    fn new() -> Self {
        Self {
            house: House::new(),
            twin: Twin::new(),
            leases: Vec::new(),
            permits: Vec::new(),
            waiters: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Adopt { versions } => self.adopt(self.twin.version + versions),
            Step::Advance { millis } => self.advance(millis),
            Step::Await { what, number } => self.wait(what, number),
            Step::Begin { lease } => self.begin(lease),
            Step::Close { why, epochs } => self.close(why, epochs),
            Step::Confirm { permit } => self.confirm(permit),
            Step::Drop { permit } => self.drop_permit(permit),
            Step::Extend { until } => self.extend(until),
            Step::GiveUp { epochs, versions } => self.give_up(epochs, versions),
            Step::Lead => self.lead(),
            Step::Open { epochs, versions } => self.open(epochs, versions),
            Step::Reopen { epochs_back } => self.reopen(self.twin.epoch.saturating_sub(epochs_back)),
            Step::Stop => self.stop(),
            Step::Suspend { epochs_back } => self.suspend(self.twin.epoch.saturating_sub(epochs_back)),
        }
        self.compare();
        self.wake();
    }

    fn adopt(&mut self, version: u64) {
        let before = self.twin.is_given_up();
        let goes_on = self.house.gate.adopt(PartitionVersion(version), holders(version));
        if self.twin.leads(self.twin.epoch) {
            self.twin.version = version;
        }
        assert_eq!(goes_on, before && !self.twin.is_given_up());
    }

    fn advance(&mut self, millis: u64) {
        self.twin.now += millis;
        self.house.clock.set(at(self.twin.now));
    }

    fn wait(&mut self, what: u8, number: usize) {
        if self.waiters.len() == KEPT_MAX {
            // Waits may be given up at any time.
            self.waiters.remove(0);
        }
        let gate = Arc::clone(&self.house.gate);
        let waiter = match (what, self.leases.iter().nth_back(number).cloned()) {
            (0, Some(lease)) => {
                let wanted = Wanted::Lost(lease.epoch().0);
                (wanted, Waiting::new(async move { Ending::Lost(lease.lost().await) }))
            }
            (1, _) => {
                let version = (self.twin.version + 1).saturating_sub(number as u64);
                let wait = async move { gate.adopted(PartitionVersion(version)).await };
                (Wanted::Adopted(version), settled(wait))
            }
            _ => (Wanted::Drained, settled(async move { gate.drained().await })),
        };
        self.waiters.push(waiter);
    }

    fn begin(&mut self, lease: usize) {
        let Some(lease) = self.leases.iter().nth_back(lease) else { return };
        if self.permits.len() == KEPT_MAX {
            return;
        }
        match (lease.begin(), self.twin.may_begin(lease.epoch().0)) {
            (Ok(permit), Ok(())) => {
                assert_eq!(permit.version(), PartitionVersion(self.twin.version));
                assert_eq!(permit.holders(), &*holders(self.twin.version), "the holders of that version");
                self.twin.permits.push((permit.epoch().0, self.twin.version, self.twin.now));
                self.permits.push(permit);
            }
            (permit, expect) => assert_eq!(permit.map(drop), expect),
        }
    }

    fn close(&mut self, why: u8, epochs: u64) {
        let why = match why {
            0 => LeaseLost::NotLeader,
            1 => LeaseLost::Stopped,
            _ => LeaseLost::Superseded { epoch: Epoch(self.twin.epoch + epochs) },
        };
        self.house.gate.close(why.clone());
        if let LeaseLost::Superseded { epoch } = why {
            self.twin.epochs_seen.push(epoch.0);
        }
        self.twin.standing = Standing::Closed(why);
    }

    fn confirm(&mut self, permit: usize) {
        if self.permits.is_empty() {
            return;
        }
        let at = permit % self.permits.len();
        let (epoch, ..) = self.twin.permits.remove(at);
        let expect = self.twin.may_end(epoch);
        assert_eq!(self.permits.remove(at).confirm(), expect);
    }

    fn drop_permit(&mut self, permit: usize) {
        if !self.permits.is_empty() {
            let at = permit % self.permits.len();
            drop(self.permits.remove(at));
            self.twin.permits.remove(at);
        }
    }

    /// Answers come late and out of order, so some are for a time that is over.
    fn extend(&mut self, until: u64) {
        let until = (self.twin.now + until).saturating_sub(20);
        let before = self.house.leases.support().until();
        self.house.leases.support().extend(at(until));
        assert!(self.house.leases.support().until() >= before, "support moved back");
        self.twin.answers.push(until);
    }

    /// The record that is known may be newer than the one that was adopted.
    fn give_up(&mut self, epochs: u64, versions: u64) {
        let (epoch, version) = (self.twin.epoch + epochs, self.twin.version + versions);
        self.house.gate.give_up(Epoch(epoch), PartitionVersion(version));
        self.twin.given_up.push((epoch, version));
    }

    fn lead(&mut self) {
        match (self.house.leases.lead(PARTITION), self.twin.may_lead()) {
            (Ok(lease), Ok(epoch)) => {
                assert_eq!(lease.epoch(), Epoch(epoch));
                if self.leases.len() == KEPT_MAX {
                    self.leases.remove(0);
                }
                self.leases.push(lease);
            }
            (lease, expect) => assert_eq!(lease.map(|lease| lease.epoch().0), expect),
        }
    }

    fn open(&mut self, epochs: u64, versions: u64) {
        // Of what it heard of and did not lead, it may lead the newest itself.
        self.twin.epoch = (self.twin.epoch_seen() + epochs).max(self.twin.epoch + 1);
        self.twin.version += versions;
        self.twin.epochs_seen.push(self.twin.epoch);
        self.twin.standing = Standing::Open;
        self.house.open(self.twin.epoch, self.twin.version);
        self.lead();
    }

    fn reopen(&mut self, epoch: u64) {
        let expect = self.twin.standing == Standing::Draining && self.twin.epoch == epoch;
        assert_eq!(self.house.gate.reopen(Epoch(epoch)), expect);
        if expect {
            self.twin.standing = Standing::Open;
        }
    }

    fn stop(&mut self) {
        self.house.leases.support().end();
        self.twin.stopped = true;
    }

    fn suspend(&mut self, epoch: u64) {
        let expect = self.twin.standing == Standing::Open && self.twin.epoch == epoch;
        assert_eq!(self.house.gate.suspend(Epoch(epoch)), expect);
        if expect {
            self.twin.standing = Standing::Draining;
        }
    }

    /// Everything that can be seen is as the twin says.
    fn compare(&self) {
        let mut valid = BTreeSet::new();
        for lease in &self.leases {
            let expect = self.twin.may_begin(lease.epoch().0);
            assert_eq!(lease.check(), expect);
            assert_eq!(lease.is_valid(), expect.is_ok());
            assert_eq!(lease.remaining().is_zero(), expect.is_err());
            valid.extend(expect.is_ok().then_some(lease.epoch()));
        }
        for (permit, (epoch, ..)) in self.permits.iter().zip(&self.twin.permits) {
            assert_eq!(permit.check(), self.twin.may_end(*epoch));
            valid.extend(permit.check().is_ok().then_some(permit.epoch()));
        }
        assert!(valid.len() <= 1, "valid at once: {valid:?}");
        let oldest = self.twin.permits.first().map(|permit| (self.permits.len(), at(permit.2)));
        assert_eq!(self.house.gate.outstanding(), oldest);
        let epoch = self.twin.leads(self.twin.epoch).then_some(Epoch(self.twin.epoch));
        assert_eq!(self.house.gate.epoch(), epoch);
    }

    /// Whoever's wait is over was woken, and nobody else goes on.
    fn wake(&mut self) {
        let twin = &self.twin;
        self.waiters.retain_mut(|(wanted, waiting)| match (waiting.poll(), twin.ending(wanted)) {
            (Poll::Pending, None) => true,
            (Poll::Ready(ending), Some(expect)) => {
                assert_eq!(ending, expect, "{wanted:?}");
                false
            }
            (polled, expect) => panic!("{wanted:?}: {polled:?}, and the twin says {expect:?}"),
        });
    }
}

fn settled(wait: impl Future<Output = ()> + 'static) -> Waiting<Ending> {
    Waiting::new(async move {
        wait.await;
        Ending::Settled
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gates_do_what_a_naive_twin_says(steps in prop::collection::vec(step(), 1..120)) {
        let mut walk = Walk::new();
        walk.take(&Step::Extend { until: 50 });
        walk.take(&Step::Open { epochs: 1, versions: 1 });
        for step in &steps {
            walk.take(step);
        }
    }
}
