//! After a crash at any moment, logs and states are what a naive twin says they may be.

use super::*;

/// A replica as it was, or may be.
#[derive(Debug, Clone, Default, PartialEq)]
struct Twin {
    /// All records that its log ever had, and has not lost.
    history: Vec<Record>,
    applied: u64,
    /// How much of that is durable.
    applied_durable: u64,
}

/// What a script does next.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// As many records, of an epoch of their own.
    Append(u64, usize),
    /// As many records.
    Apply(u64, usize),
    Create(u64),
    /// A snapshot of as many records more.
    Install(u64, usize),
    Maintain,
    Remove(u64),
    /// As many records less, but none that was applied.
    Truncate(u64, usize),
}

/// Runs scripts, and says what a crash may leave.
struct Bench {
    node: Node,
    twins: BTreeMap<u64, Twin>,
    /// Each state that a crash may leave instead.
    possible: BTreeMap<u64, Vec<Option<Twin>>>,
    epoch: u64,
}

impl Bench {
    fn open(disk: &SimDisk) -> Self {
        let (node, _) = Node::open(disk);
        Self { node, twins: BTreeMap::new(), possible: BTreeMap::new(), epoch: 0 }
    }

    /// Whether it was carried out. If not, anything of it may be.
    fn run(&mut self, step: Step) -> bool {
        self.remember();
        let inputs = self.inputs_of(step);
        self.note();
        self.node.log(inputs);
        match step {
            Step::Apply(uid, count) => self.apply(uid, count),
            Step::Maintain => self.maintain(),
            Step::Remove(uid) => self.node.state(StateInput::Remove { key: key(uid) }),
            _ => {}
        }
        let events = self.node.events();
        assert!(
            !events.iter().any(|event| matches!(event, StorageEvent::Damaged { .. })),
            "{step:?}: {events:?}"
        );
        let is_done = !self.node.shared().has_failed();
        if is_done {
            self.possible.clear();
        }
        is_done
    }

    /// What is there before a step may be there after it.
    fn remember(&mut self) {
        for uid in 0..4 {
            self.possible.entry(uid).or_default().push(self.twins.get(&uid).cloned());
        }
    }

    fn note(&mut self) {
        self.remember();
    }

    fn inputs_of(&mut self, step: Step) -> Vec<LogInput> {
        match step {
            Step::Append(uid, count) => self.append(uid, count),
            Step::Create(uid) if !self.twins.contains_key(&uid) => {
                self.twins.insert(uid, Twin::default());
                vec![self.node.change(key(uid), LogChange::Create)]
            }
            Step::Install(uid, count) => self.install(uid, count),
            Step::Remove(uid) => {
                self.twins.remove(&uid);
                vec![LogInput::Remove { key: key(uid) }]
            }
            Step::Truncate(uid, count) => self.truncate(uid, count),
            Step::Apply(..) | Step::Create(_) | Step::Maintain => Vec::new(),
        }
    }

    fn append(&mut self, uid: u64, count: usize) -> Vec<LogInput> {
        self.epoch += 1;
        let Some(twin) = self.twins.get_mut(&uid) else { return Vec::new() };
        let first = twin.history.len() as u64;
        let records = new_records(uid, self.epoch, first, count);
        for record in &records {
            twin.history.push(record.clone());
            self.possible.entry(uid).or_default().push(Some(twin.clone()));
        }
        vec![self.node.change(key(uid), LogChange::Append { first, records })]
    }

    fn truncate(&mut self, uid: u64, count: usize) -> Vec<LogInput> {
        let Some(twin) = self.twins.get_mut(&uid) else { return Vec::new() };
        let end = twin.history.len().saturating_sub(count).max(twin.applied as usize);
        twin.history.truncate(end);
        vec![self.node.change(key(uid), LogChange::Truncate { end: end as u64 })]
    }

    fn install(&mut self, uid: u64, count: usize) -> Vec<LogInput> {
        self.epoch += 1;
        let Some(twin) = self.twins.get_mut(&uid) else { return Vec::new() };
        // What the others have instead of what this one has and did not apply.
        let mut history = twin.history[..twin.applied as usize].to_vec();
        let missing = twin.history.len() + count - history.len();
        history.extend(new_records(uid, self.epoch, history.len() as u64, missing));
        let source = twin_of(key(9), &history);
        let Ok(mut receiver) = self.node.workers.snapshots.begin_install(key(uid)) else {
            return self.fail();
        };
        let (end, mut reader) = source.workers.snapshots.open_snapshot(key(9)).unwrap().unwrap();
        while let Some(entries) = reader.next_chunk(100).unwrap() {
            if receiver.push(&entries).is_err() {
                return self.fail();
            }
        }
        assert!(receiver.ready(reader.digest()));
        let header = header(key(uid), &history);
        *self.twins.get_mut(&uid).unwrap() = Twin { history, applied: end, applied_durable: end };
        vec![self.node.change(key(uid), LogChange::Install(header))]
    }

    /// The disk stopped outside of the workers.
    fn fail(&mut self) -> Vec<LogInput> {
        self.node.shared().fail(StorageError::Panicked);
        Vec::new()
    }

    fn apply(&mut self, uid: u64, count: usize) {
        let Some(twin) = self.twins.get_mut(&uid) else { return };
        let (first, end) = (twin.applied as usize, (twin.applied as usize + count).min(twin.history.len()));
        let records = twin.history[first..end].to_vec();
        twin.applied = end as u64;
        self.node.apply(key(uid), first as u64, &records);
        self.note();
    }

    fn maintain(&mut self) {
        let commits = self.twins.iter().map(|(uid, twin)| (key(*uid), twin.applied));
        let notes = commits.map(|(key, commit)| LogInput::NoteCommit { key, commit }).collect();
        self.node.log(notes);
        self.node.maintain();
        if !self.node.shared().has_failed() {
            self.twins.values_mut().for_each(|twin| twin.applied_durable = twin.applied);
        }
    }
}

fn new_records(uid: u64, epoch: u64, first: u64, count: usize) -> Vec<Record> {
    let entry = |offset: u64| match offset % 4 {
        0 => Entry::OpenSession,
        1 => Entry::NoOp,
        _ => set(format!("{}={uid} {epoch} {}", offset % 3, "x".repeat(offset as usize * 37 % 600))),
    };
    (first..first + count as u64).map(|offset| record(epoch, offset * 10, entry(offset))).collect()
}

/// A script by chance.
fn script(seed: u64, length: usize) -> Vec<Step> {
    let mut number = seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mut next = |below: u64| {
        number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (number >> 33) % below
    };
    let mut steps = vec![Step::Create(0), Step::Append(0, 3), Step::Create(1), Step::Append(1, 2)];
    for _ in 0..length {
        let (uid, count) = (next(3), 1 + next(5) as usize);
        steps.push(match next(10) {
            0..3 => Step::Append(uid, count),
            3..5 => Step::Apply(uid, count),
            5 => Step::Create(uid),
            6 => Step::Install(uid, count),
            7 => Step::Maintain,
            8 => Step::Truncate(uid, count),
            // A name is not used again.
            _ if uid == 2 => Step::Create(3),
            _ => Step::Maintain,
        });
    }
    steps.push(Step::Remove(1));
    steps
}

/// What is found is one of what may be there.
fn check(disk: &SimDisk, possible: &BTreeMap<u64, Vec<Option<Twin>>>, context: &str) {
    let (mut node, recovered) = Node::open(disk);
    for (uid, possible) in possible {
        let found = recovered.get(&key(*uid)).map(|recovered| look(&mut node, key(*uid), recovered));
        let fits = possible.iter().any(|twin| match (twin, &found) {
            (Some(twin), Some(found)) => found.is(twin),
            (None, None) => true,
            _ => false,
        });
        let possible =
            possible.iter().flatten().map(|twin| (twin.history.len(), twin.applied_durable, twin.applied));
        let possible: Vec<_> = possible.collect();
        assert!(fits, "{context}, replica {uid}: {found:?}\nof {possible:?}");
    }
    assert_eq!(recovered.keys().filter(|key| !possible.contains_key(&key.uid.0)).count(), 0);
}

#[derive(Debug)]
struct Found {
    recovered: Recovered,
    records: Vec<Record>,
    digest: Option<Digest>,
}

fn look(node: &mut Node, key: ReplicaKey, recovered: &Recovered) -> Found {
    let records = node.fetch(key, recovered.log_start..recovered.log_end);
    Found { recovered: recovered.clone(), records, digest: node.digest(key) }
}

impl Found {
    fn is(&self, twin: &Twin) -> bool {
        let Recovered { log_start, log_end, epochs: found, time_last, commit, applied, .. } = &self.recovered;
        let history = &twin.history;
        let is_log = *log_end == history.len() as u64 && self.records == history[*log_start as usize..];
        let time = history.last().map_or(LogTime(0), |record| record.time);
        is_log
            && !self.recovered.is_damaged()
            && (*time_last, found) == (time, &epochs(history))
            && *commit <= twin.applied
            && (twin.applied_durable..=twin.applied).contains(applied)
            && self.digest.unwrap_or(Digest::empty(0)) == digest_of(&history[..*applied as usize])
    }
}

fn digest_of(history: &[Record]) -> Digest {
    twin_of(key(9), history).digest(key(9)).unwrap_or(Digest::empty(0))
}

/// Runs a script until the power goes, if it goes, and says what may be left.
fn run(disk: &SimDisk, script: &[Step]) -> (bool, BTreeMap<u64, Vec<Option<Twin>>>) {
    let mut bench = Bench::open(disk);
    disk_runs(script, &mut bench)
}

fn disk_runs(script: &[Step], bench: &mut Bench) -> (bool, BTreeMap<u64, Vec<Option<Twin>>>) {
    let is_done = script.iter().all(|step| bench.run(*step));
    bench.remember();
    (is_done, std::mem::take(&mut bench.possible))
}

#[test]
fn a_crash_between_steps_leaves_what_a_naive_twin_has() {
    for seed in 0..40 {
        let disk = SimDisk::new();
        let script = script(seed, 14);
        for length in 0..=script.len() {
            let disk = disk.fork();
            let (is_done, possible) = run(&disk, &script[..length]);
            assert!(is_done);
            disk.crash(seed);
            check(&disk, &possible, &format!("seed {seed}, {:?}", &script[..length]));
        }
    }
}

#[test]
fn a_crash_at_any_write_leaves_what_a_naive_twin_has() {
    for seed in 0..3 {
        let script = script(seed, 10);
        let start = SimDisk::new();
        drop(Node::open(&start));
        for count in (seed..).step_by(3) {
            let disk = start.fork();
            disk.stop_after(count);
            let Ok(opened) = open(&disk) else { continue };
            let mut bench = Bench {
                node: Node::of(opened.storage),
                twins: BTreeMap::new(),
                possible: BTreeMap::new(),
                epoch: 0,
            };
            let (is_done, possible) = disk_runs(&script, &mut bench);
            if is_done {
                break;
            }
            drop(bench);
            disk.crash(count);
            check(&disk, &possible, &format!("seed {seed}, write {count}"));
        }
    }
}

#[test]
fn a_crash_during_an_installation_leaves_the_old_or_the_new() {
    let before = [Step::Create(0), Step::Append(0, 6), Step::Apply(0, 3), Step::Maintain, Step::Apply(0, 1)];
    let (mut old, mut new, mut ended) = (0, 0, 0);
    for count in 0.. {
        let disk = SimDisk::new();
        let mut bench = Bench::open(&disk);
        assert!(disk_runs(&before, &mut bench).0);
        disk.stop_after(count);
        let is_done = bench.run(Step::Install(0, 5));
        bench.remember();
        let possible = std::mem::take(&mut bench.possible);
        drop(bench);
        disk.crash(count);
        // What is found does not change any more.
        for _ in 0..2 {
            check(&disk, &possible, &format!("write {count}"));
            disk.crash_clean();
        }
        let (node, recovered) = Node::open(&disk);
        match recovered[&key(0)].log_end {
            6 => old += 1,
            11 => new += 1,
            other => panic!("write {count}: a log that ends at {other}"),
        }
        ended += u32::from(!is_done && recovered[&key(0)].log_start == 11);
        drop(node);
        if is_done {
            break;
        }
    }
    assert!(old > 3 && new > 1 && ended > 1, "old {old}, new {new}, of which the end came later {ended}");
}

#[test]
fn a_crash_while_it_opens_changes_nothing() {
    let before = [Step::Create(0), Step::Append(0, 6), Step::Apply(0, 3), Step::Maintain];
    for stop in (0..60).step_by(5) {
        let disk = SimDisk::new();
        let mut bench = Bench::open(&disk);
        assert!(disk_runs(&before, &mut bench).0);
        disk.stop_after(stop);
        bench.run(Step::Install(0, 5));
        bench.remember();
        let possible = std::mem::take(&mut bench.possible);
        drop(bench);
        disk.crash(stop);
        for count in 0.. {
            let disk = disk.fork();
            disk.stop_after(count);
            let is_open = open(&disk).is_ok();
            disk.crash(count);
            check(&disk, &possible, &format!("installation {stop}, opening {count}"));
            if is_open {
                break;
            }
        }
    }
}
