//! What it costs to make records durable: many partitions in one log, and many threads with one sync.
//!
//! Runs on the disk that holds the target directory. The figures of criterion say how long each takes; the
//! ratios at the end come from rounds that alternate, so that noise of the machine hits all sides alike.

#![allow(missing_docs, reason = "the macros of criterion write functions without documentation")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use clusterkit_storage::disk::{Disk, DiskFile, OpenMode, RealDisk};
use clusterkit_storage::shared_log::{GroupCommit, Log, Options, SharedLog, StreamId};
use criterion::{Criterion, Throughput, criterion_group};

const PARTITIONS: u64 = 64;
const WRITERS: u64 = 64;
const RECORD_BYTES: usize = 256;
/// What a record takes in any of the files that are compared.
const ENTRY_BYTES: usize = RECORD_BYTES + 48;
const FILE_BYTES: u64 = 16 << 20;
/// Rounds of each side that the ratios are taken from.
const ROUNDS: usize = 300;
/// Rounds after which a shared log gives up its records.
const ROUNDS_KEPT: u64 = 1_000;
/// Batches of each stream in a log that is opened.
const OPENING_ROUNDS: u64 = 160;

fn record() -> Bytes {
    Bytes::from(vec![7; RECORD_BYTES])
}

/// A directory on the disk that is measured, empty.
fn fresh_dir(name: &str) -> PathBuf {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench_shared_log").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    dir
}

fn open_log(name: &str, streams: u64) -> SharedLog {
    let opened = SharedLog::open(Arc::new(RealDisk), &fresh_dir(name), &Options::new(0));
    let (mut log, _) = opened.expect("a new log opens");
    (0..streams).for_each(|stream| log.create(StreamId(stream), 0).expect("a stream is created"));
    log.sync().expect("streams are synced");
    log.prepare_next().expect("segments are prepared");
    log
}

/// Partitions that write one record each into one log, and sync once.
struct Shared {
    log: SharedLog,
    round: u64,
}

impl Shared {
    fn new() -> Self {
        Shared { log: open_log("shared", PARTITIONS), round: 0 }
    }

    fn round(&mut self) -> Duration {
        let payloads = [record()];
        let begun = Instant::now();
        for stream in 0..PARTITIONS {
            self.log.append(StreamId(stream), self.round, &payloads).expect("a record is appended");
        }
        self.log.sync().expect("records are synced");
        let took = begun.elapsed();
        self.round += 1;
        if self.round.is_multiple_of(ROUNDS_KEPT) {
            (0..PARTITIONS)
                .for_each(|stream| self.log.release(StreamId(stream), self.round).expect("released"));
        }
        self.log.prepare_next().expect("upkeep is done");
        took
    }
}

/// Partitions that have a file each, filled with zeros before, and sync it each.
struct Files {
    files: Vec<Box<dyn DiskFile>>,
    position: u64,
}

impl Files {
    fn new(name: &str, count: u64) -> Self {
        let dir = fresh_dir(name);
        RealDisk.create_dir_all(&dir).expect("a directory is created");
        let files = (0..count).map(|number| Files::prepare(&dir.join(number.to_string())));
        Files { files: files.collect(), position: 0 }
    }

    fn prepare(path: &Path) -> Box<dyn DiskFile> {
        let file = RealDisk.open(path, OpenMode::Create).expect("a file is created");
        file.write_at(0, &vec![0; FILE_BYTES as usize]).expect("a file is filled");
        file.sync_all().expect("a file is synced");
        file
    }

    fn round(&mut self) -> Duration {
        let entry = vec![7; ENTRY_BYTES];
        let begun = Instant::now();
        for file in &self.files {
            file.write_at(self.position, &entry).expect("a record is written");
            file.sync_data().expect("a record is synced");
        }
        let took = begun.elapsed();
        self.position = (self.position + ENTRY_BYTES as u64) % (FILE_BYTES - ENTRY_BYTES as u64);
        took
    }
}

/// Threads that append one record after the other, and wait for each to be durable.
struct Writers {
    group: GroupCommit,
    ends: Vec<u64>,
}

impl Writers {
    fn new(name: &str, writers: u64) -> Self {
        let group = GroupCommit::new(open_log(name, writers));
        Writers { group, ends: vec![0; writers as usize] }
    }

    /// How long it takes until each writer has made so many records durable.
    fn run(&mut self, records: u64) -> Duration {
        let group = &self.group;
        let begun = Instant::now();
        thread::scope(|scope| {
            for (stream, end) in (0..).zip(&mut self.ends) {
                scope.spawn(move || {
                    for _ in 0..records {
                        group.append(StreamId(stream), *end, &[record()]).expect("a record is durable");
                        *end += 1;
                    }
                });
            }
        });
        let took = begun.elapsed();
        for (stream, end) in (0..).zip(&self.ends) {
            group.change(|log| log.release(StreamId(stream), *end)).expect("records are released");
        }
        group.upkeep().expect("upkeep is done");
        took
    }
}

fn rounds(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("durable_round");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    let mut bench = |name: &str, mut round: Box<dyn FnMut() -> Duration>| {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| (0..count).map(|_| round()).sum());
        });
    };
    let mut one = Files::new("one", 1);
    bench("one_partition_one_sync", Box::new(move || one.round()));
    let mut shared = Shared::new();
    bench("64_partitions_shared_log", Box::new(move || shared.round()));
    let mut files = Files::new("files", PARTITIONS);
    bench("64_partitions_a_file_each", Box::new(move || files.round()));
    group.finish();
}

fn group_commit(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("group_commit");
    group.sample_size(10).measurement_time(Duration::from_secs(3)).warm_up_time(Duration::from_millis(500));
    for (name, writers) in [("one_writer", 1), ("64_writers", WRITERS)] {
        group.throughput(Throughput::Elements(writers));
        let mut threads = Writers::new(name, writers);
        group.bench_function(name, |bencher| bencher.iter_custom(|count| threads.run(count)));
    }
    group.finish();
}

fn median(mut durations: Vec<Duration>) -> f64 {
    durations.sort();
    durations[durations.len() / 2].as_secs_f64() * 1e6
}

/// What a machine takes that does nothing else, as far as a busy one shows it.
fn best(durations: &[Duration]) -> f64 {
    durations.iter().min().map_or(0.0, Duration::as_secs_f64) * 1e6
}

fn print_rounds() {
    let (mut one, mut shared, mut files) =
        (Files::new("one", 1), Shared::new(), Files::new("files", PARTITIONS));
    let (mut one_took, mut shared_took, mut files_took) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        one_took.push(one.round());
        shared_took.push(shared.round());
        if round % 10 == 0 {
            files_took.push(files.round());
        }
    }
    let (one_best, shared_best) = (best(&one_took), best(&shared_took));
    let (one, shared, files) = (median(one_took), median(shared_took), median(files_took));
    println!("one record of one partition made durable:           {one:9.0} us (median of {ROUNDS})");
    println!("one record each of 64 partitions, shared log:       {shared:9.0} us");
    println!("one record each of 64 partitions, a file for each:  {files:9.0} us");
    println!("shared log / one partition:        {:6.2} (aim: at most 2)", shared / one);
    println!(
        "the same of the best rounds:       {:6.2} ({shared_best:.0} / {one_best:.0} us)",
        shared_best / one_best
    );
    println!("a file for each / shared log:      {:6.1}", files / shared);
}

fn print_group_commit() {
    let (mut alone, mut together) = (Writers::new("one_writer", 1), Writers::new("64_writers", WRITERS));
    let mut ratios = Vec::new();
    let mut rates = (0.0, 0.0);
    for _ in 0..9 {
        let one = 100.0 / alone.run(100).as_secs_f64();
        let many = (WRITERS * 50) as f64 / together.run(50).as_secs_f64();
        rates = (one.max(rates.0), many.max(rates.1));
        ratios.push(many / one);
    }
    ratios.sort_by(f64::total_cmp);
    println!("one writer, best of 9 runs:        {:9.0} records/s", rates.0);
    println!("64 writers, best of 9 runs:        {:9.0} records/s", rates.1);
    println!("64 writers / one writer, median:   {:6.1} (aim: at least 10)", ratios[ratios.len() / 2]);
}

/// How fast a log opens: all of it is read, and every checksum held against it.
fn print_opening() {
    let mut log = open_log("opening", PARTITIONS);
    let payloads = vec![record(); 64];
    for round in 0..OPENING_ROUNDS {
        for stream in 0..PARTITIONS {
            log.append(StreamId(stream), round * 64, &payloads).expect("records are appended");
        }
    }
    let records = OPENING_ROUNDS * 64 * PARTITIONS;
    log.close().expect("the log is closed");
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench_shared_log").join("opening");
    let begun = Instant::now();
    let opened = SharedLog::open(Arc::new(RealDisk), &dir, &Options::new(0));
    let (log, _) = opened.expect("the log opens");
    let took = begun.elapsed().as_secs_f64();
    let mib = log.live_bytes() as f64 / f64::from(1 << 20);
    println!("opening {records} records, {mib:.0} MiB:  {took:6.2} s, {:.0} MiB/s", mib / took);
}

criterion_group!(benches, rounds, group_commit);

fn main() {
    benches();
    Criterion::default().configure_from_args().final_summary();
    println!();
    print_rounds();
    print_group_commit();
    print_opening();
}
