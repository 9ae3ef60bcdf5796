//! One file of a store: an engine over checked pages, and the replicas in it.

use std::collections::BTreeSet;
use std::mem;
use std::ops::Bound;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use ::redb::{
    Builder, CommitError, Database, DatabaseError, Durability, ReadTransaction, ReadableDatabase,
    ReadableTable, SetDurabilityError, StorageError, Table, TableDefinition, TableError, TransactionError,
    WriteTransaction,
};
use bytes::Bytes;

use super::lock;
use super::pages::{Backend, Pages};
use super::record::{Generation, Row, copied, key_of, seal, unseal};
use crate::state_store::digest::Tally;
use crate::state_store::{
    ApplyError, Change, Damage, DamageKind, Digest, Found, Gathered, InstallError, Order, Query, ReplicaKey,
    Replicas, StateError,
};

type Bytewise = &'static [u8];

/// All entries of all replicas: generation and key, to checksum and value.
const ENTRIES: TableDefinition<'static, Bytewise, Bytewise> = TableDefinition::new("entries");
/// Generations that no row names: entries to be removed, or of an installation under way.
const GARBAGE: TableDefinition<'static, u64, ()> = TableDefinition::new("garbage");
/// The row of each replica.
const ROWS: TableDefinition<'static, u64, Bytewise> = TableDefinition::new("rows");

/// One file.
///
/// Invariants:
/// - Every generation in `ENTRIES` is in `ROWS` or in `GARBAGE`, and in one of them only.
/// - Generations from `generation_next` on are free.
/// - If nothing is `changed`, the disk holds what readers see, and `durable` says how far that is.
#[derive(Debug)]
pub(super) struct StateFile {
    pages: Arc<Pages>,
    /// There until the file is dropped.
    database: Option<Database>,
    generation_next: AtomicU64,
    /// Generations of installations that may still end.
    installing: Mutex<BTreeSet<Generation>>,
    changed: AtomicBool,
    durable: Mutex<Replicas>,
}

/// Why a step in the engine stopped.
#[derive(Debug)]
pub(super) enum Trouble {
    Damaged(Damage),
    Engine(Box<::redb::Error>),
}

/// Where the scrub of entries goes on.
#[derive(Debug, Default)]
pub(super) struct ScanCursor {
    replica: Option<(ReplicaKey, Row)>,
    after: Option<Bytes>,
    behind: Option<ReplicaKey>,
    tally: Tally,
    is_damaged: bool,
}

/// What a step of scrubbing entries saw.
#[derive(Debug, Default)]
pub(super) struct Scanned {
    pub(super) entries: usize,
    pub(super) damages: Vec<Damage>,
    pub(super) is_complete: bool,
}

impl StateFile {
    /// Opens the engine over pages, and makes its tables if there are none.
    pub(super) fn open(pages: Pages, cache_bytes: usize) -> Result<Self, StateError> {
        let is_new = pages.synced() == 0;
        let pages = Arc::new(pages);
        let backend = Backend(Arc::clone(&pages));
        let open = || Builder::new().set_cache_size(cache_bytes).create_with_backend(backend);
        let database = guarded(&pages, || Ok(open()?))?;
        let mut file = StateFile {
            pages,
            database: Some(database),
            generation_next: AtomicU64::new(0),
            installing: Mutex::default(),
            changed: AtomicBool::new(is_new),
            durable: Mutex::default(),
        };
        let made = if is_new { file.run(make_tables) } else { Ok(()) };
        match made.and_then(|()| file.run(recover)) {
            Ok((next, durable)) => {
                *file.generation_next.get_mut() = next;
                *lock(&file.durable) = durable;
                Ok(file)
            }
            Err(error) => {
                file.abandon();
                Err(error)
            }
        }
    }

    pub(super) fn path(&self) -> &Path {
        self.pages.path()
    }

    pub(super) fn pages(&self) -> &Pages {
        &self.pages
    }

    pub(super) fn apply(
        &self,
        replica: ReplicaKey,
        changes: &[Change],
        index: u64,
    ) -> Result<(), ApplyError> {
        let applied = self.write(|transaction| self.apply_in(transaction, replica, changes, index));
        match applied.map_err(|error| named(error, replica, None))? {
            None => Ok(()),
            Some(applied) => Err(ApplyError::NotNewer { index, applied }),
        }
    }

    /// Says what was applied before, if that is not older.
    fn apply_in(
        &self,
        transaction: &WriteTransaction,
        replica: ReplicaKey,
        changes: &[Change],
        index: u64,
    ) -> Result<Option<u64>, Trouble> {
        let mut rows = transaction.open_table(ROWS)?;
        let row = row_of(&rows, replica)?;
        if let Some(row) = row.filter(|row| row.applied >= index) {
            return Ok(Some(row.applied));
        }
        let generation = row.map_or_else(|| self.next_generation(), |row| row.generation);
        let mut tally = row.map(|row| row.tally).unwrap_or_default();
        let mut entries = transaction.open_table(ENTRIES)?;
        let mut writer = Writer { entries: &mut entries, replica, generation, tally: &mut tally };
        changes.iter().try_for_each(|change| writer.carry_out(change))?;
        rows.insert(replica.0, &Row { generation, applied: index, tally }.encode(replica)[..])?;
        Ok(None)
    }

    pub(super) fn get(&self, replica: ReplicaKey, key: &[u8]) -> Result<Option<Bytes>, StateError> {
        let found = self.read(|view| {
            let Some(row) = view.row(replica)? else { return Ok(None) };
            let record = view.entries()?.get(&row.generation.place(key)[..])?;
            let value =
                record.map(|record| Ok(Bytes::copy_from_slice(unseal(replica, key, record.value())?)));
            value.transpose()
        });
        found.map_err(|error| named(error, replica, Some(key)))
    }

    pub(super) fn range(&self, replica: ReplicaKey, query: &Query<'_>) -> Result<Found, StateError> {
        let mut gathered = Gathered::new(query.entries_max, query.bytes_max);
        let found = self.read(|view| match view.row(replica)? {
            Some(row) if !query.is_empty() => view.gather(replica, row.generation, query, &mut gathered),
            _ => Ok(true),
        });
        let last = gathered.entries.last().map(|(key, _)| key.clone());
        let is_complete = found.map_err(|error| named(error, replica, last.as_deref()))?;
        Ok(Found { entries: gathered.entries, is_complete })
    }

    pub(super) fn digest(&self, replica: ReplicaKey) -> Result<Option<Digest>, StateError> {
        let row = self.read(|view| view.row(replica)).map_err(|error| named(error, replica, None))?;
        Ok(row.map(|row| row.digest()))
    }

    pub(super) fn replicas(&self) -> Result<Replicas, StateError> {
        Ok(self.with_path(self.read(|view| applied_of(&view.rows()?))?))
    }

    /// Names the file in damages that were seen without failing.
    fn with_path(&self, mut replicas: Replicas) -> Replicas {
        replicas.damages = replicas.damages.into_iter().map(|damage| self.pages.noted(damage)).collect();
        replicas
    }

    /// A view that stays as it is, and the row in it.
    pub(super) fn view(&self, replica: ReplicaKey) -> Result<Option<(View, Row)>, StateError> {
        let found = self.run(|database| {
            let view = View::begin(database)?;
            let row = view.row(replica)?;
            Ok(row.map(|row| (view, row)))
        });
        found.map_err(|error| named(error, replica, None))
    }

    /// Reads on in a view of this file.
    pub(super) fn read_view<T>(
        &self,
        view: &View,
        step: impl FnOnce(&View) -> Result<T, Trouble>,
    ) -> Result<T, StateError> {
        self.run(|_| step(view))
    }

    /// Begins a generation that no reader sees. Says which one it may replace.
    pub(super) fn begin_install(
        &self,
        replica: ReplicaKey,
    ) -> Result<(Generation, Option<Generation>), StateError> {
        let generation = self.next_generation();
        lock(&self.installing).insert(generation);
        let begun = self.write(|transaction| {
            let old = row_of(&transaction.open_table(ROWS)?, replica)?;
            transaction.open_table(GARBAGE)?.insert(generation.0, ())?;
            Ok((generation, old.map(|row| row.generation)))
        });
        begun.inspect_err(|_| self.end_install(generation)).map_err(|error| named(error, replica, None))
    }

    pub(super) fn push_installed(
        &self,
        (replica, generation): (ReplicaKey, Generation),
        pushed: &[(Bytes, Bytes)],
        tally: Tally,
    ) -> Result<Tally, StateError> {
        self.write(|transaction| {
            let mut tally = tally;
            let mut entries = transaction.open_table(ENTRIES)?;
            let mut writer = Writer { entries: &mut entries, replica, generation, tally: &mut tally };
            pushed.iter().try_for_each(|(key, value)| writer.put(key, value))?;
            Ok(tally)
        })
    }

    /// Lets readers see a generation instead of the old one, unless another took its place or went further.
    pub(super) fn finish_install(
        &self,
        replica: ReplicaKey,
        replaced: Option<Generation>,
        row: Row,
    ) -> Result<(), InstallError> {
        let finished = self.write(|transaction| {
            let mut rows = transaction.open_table(ROWS)?;
            let old = row_of(&rows, replica)?;
            if let Err(refusal) = check_successor(old, replaced, row.applied) {
                return Ok(Err(refusal));
            }
            let mut garbage = transaction.open_table(GARBAGE)?;
            garbage.remove(row.generation.0)?;
            if let Some(old) = old {
                garbage.insert(old.generation.0, ())?;
            }
            rows.insert(replica.0, &row.encode(replica)[..])?;
            Ok(Ok(()))
        });
        finished.map_err(|error| named(error, replica, None))?
    }

    /// The installation ended, well or not.
    pub(super) fn end_install(&self, generation: Generation) {
        lock(&self.installing).remove(&generation);
    }

    pub(super) fn drop_replica(&self, replica: ReplicaKey) -> Result<(), StateError> {
        self.write(|transaction| {
            let mut rows = transaction.open_table(ROWS)?;
            let Some(row) = row_of(&rows, replica)? else { return Ok(()) };
            rows.remove(replica.0)?;
            transaction.open_table(GARBAGE)?.insert(row.generation.0, ())?;
            Ok(())
        })
    }

    /// Removes entries of one generation that nobody names. Nothing if there is none.
    pub(super) fn reclaim(&self, entries_max: usize) -> Result<Option<usize>, StateError> {
        let Some(generation) = self.garbage()? else { return Ok(None) };
        self.write(|transaction| {
            let removed = remove_some(transaction, generation, entries_max)?;
            if removed < entries_max {
                transaction.open_table(GARBAGE)?.remove(generation.0)?;
            }
            Ok(Some(removed))
        })
    }

    /// A generation that no row names, and none ever will.
    fn garbage(&self) -> Result<Option<Generation>, StateError> {
        self.read(|view| {
            for entry in view.table(GARBAGE)?.iter()? {
                let generation = Generation(entry?.0.value());
                if !lock(&self.installing).contains(&generation) {
                    return Ok(Some(generation));
                }
            }
            Ok(None)
        })
    }

    /// Makes durable what was written, if anything was. Says whether it had to.
    pub(super) fn checkpoint(&self) -> Result<bool, StateError> {
        if !self.changed.load(Ordering::Acquire) {
            self.pages.check()?;
            return Ok(false);
        }
        let durable = self.run(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            // Two phases, which the pages rely on, and a reopening that need not walk the file.
            transaction.set_quick_repair(true);
            let durable = applied_of(&transaction.open_table(ROWS)?)?;
            self.changed.store(false, Ordering::Release);
            transaction.commit()?;
            Ok(durable)
        });
        if durable.is_err() {
            self.changed.store(true, Ordering::Release);
        }
        *lock(&self.durable) = self.with_path(durable?);
        Ok(true)
    }

    /// What the last checkpoint made durable.
    pub(super) fn durable(&self) -> Replicas {
        lock(&self.durable).clone()
    }

    /// Checks entries, replica by replica, from where the cursor is.
    pub(super) fn scan(&self, cursor: &mut ScanCursor, entries_max: usize) -> Result<Scanned, StateError> {
        let mut scanned = self.read(|view| view.scan(cursor, entries_max))?;
        scanned.damages = scanned.damages.into_iter().map(|damage| self.pages.noted(damage)).collect();
        Ok(scanned)
    }

    /// Makes the row of a replica one that no store wrote.
    #[cfg(test)]
    pub(super) fn spoil_row(&self, replica: ReplicaKey) -> Result<(), StateError> {
        self.write(|transaction| {
            transaction.open_table(ROWS)?.insert(replica.0, &b"spoiled"[..])?;
            Ok(())
        })
    }

    /// Leaves the engine as it is, so that it writes nothing more.
    fn abandon(&mut self) {
        mem::forget(self.database.take());
    }

    fn next_generation(&self) -> Generation {
        Generation(self.generation_next.fetch_add(1, Ordering::Relaxed))
    }

    /// Changes what readers see, without making it durable.
    fn write<T>(&self, step: impl FnOnce(&WriteTransaction) -> Result<T, Trouble>) -> Result<T, StateError> {
        self.run(|database| {
            let mut transaction = database.begin_write()?;
            transaction.set_durability(Durability::None)?;
            let result = step(&transaction)?;
            self.changed.store(true, Ordering::Release);
            transaction.commit()?;
            Ok(result)
        })
    }

    fn read<T>(&self, step: impl FnOnce(&View) -> Result<T, Trouble>) -> Result<T, StateError> {
        self.run(|database| step(&View::begin(database)?))
    }

    fn run<T>(&self, step: impl FnOnce(&Database) -> Result<T, Trouble>) -> Result<T, StateError> {
        guarded(&self.pages, || step(self.database.as_ref().expect("it is there until the file is dropped")))
    }
}

/// Closing the engine writes what is not durable yet. Over pages that contradict each other it must not, and it
/// cannot be told so: it is left as it is until the process ends. After a failed read or write it knows by itself.
impl Drop for StateFile {
    fn drop(&mut self) {
        if self.pages.is_contradictory() {
            self.abandon();
        }
        let database = self.database.take();
        // There is nobody left to tell of a failure, and the next opening says what is there.
        catch_unwind(AssertUnwindSafe(|| drop(database))).unwrap_or_default();
    }
}

/// The one boundary to the engine. It asserts what its pages should be, so pages that contradict each other can
/// make it panic: that is damage, and takes the file out of service, so that nothing a panic left half done is
/// looked at again. The engine keeps what readers see apart from what a transaction changes, and gives up a
/// transaction that unwinds. Only a mistake in the engine can lead here: what the disk changed is seen before, by the
/// checksums of pages. In a durable commit the engine can
/// panic again while it unwinds, which ends the process.
fn guarded<T>(pages: &Pages, step: impl FnOnce() -> Result<T, Trouble>) -> Result<T, StateError> {
    pages.check()?;
    let error = match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(result)) => return Ok(result),
        Ok(Err(Trouble::Damaged(damage))) => {
            return Err(pages.noted(damage).into());
        }
        Ok(Err(Trouble::Engine(error))) => Some(error),
        Err(_) => None,
    };
    match error {
        Some(error) if !is_structural(&error) => {
            Err(pages.check().err().unwrap_or_else(|| StateError::Engine(error)))
        }
        _ => Err(pages.condemn(DamageKind::Structure)),
    }
}

fn is_structural(error: &::redb::Error) -> bool {
    use ::redb::Error;
    matches!(
        error,
        Error::Corrupted(_)
            | Error::LockPoisoned(_)
            | Error::TableDoesNotExist(_)
            | Error::TableIsMultimap(_)
            | Error::TableTypeMismatch { .. }
            | Error::UpgradeRequired(_)
    )
}

fn named(error: StateError, replica: ReplicaKey, key: Option<&[u8]>) -> StateError {
    match error {
        StateError::Damaged(damage) => damage.at(replica, key).into(),
        other => other,
    }
}

fn make_tables(database: &Database) -> Result<(), Trouble> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::None)?;
    transaction.open_table(ENTRIES)?;
    transaction.open_table(GARBAGE)?;
    transaction.open_table(ROWS)?;
    Ok(transaction.commit()?)
}

/// Finds which generation is free, and what is applied to each replica.
fn recover(database: &Database) -> Result<(u64, Replicas), Trouble> {
    let view = database.begin_read()?;
    view.open_table(ENTRIES)?;
    let garbage = view.open_table(GARBAGE)?;
    let rows = view.open_table(ROWS)?;
    let mut next = garbage.last()?.map_or(0, |(generation, _)| generation.value() + 1);
    for entry in rows.iter()? {
        let (replica, row) = entry?;
        next = next.max(Row::decode(ReplicaKey(replica.value()), row.value())?.generation.0 + 1);
    }
    Ok((next, applied_of(&rows)?))
}

fn row_of(rows: &impl ReadableTable<u64, Bytewise>, replica: ReplicaKey) -> Result<Option<Row>, Trouble> {
    let row = rows.get(replica.0)?;
    Ok(row.map(|row| Row::decode(replica, row.value())).transpose()?)
}

fn check_successor(old: Option<Row>, replaced: Option<Generation>, index: u64) -> Result<(), InstallError> {
    match old {
        old if old.map(|row| row.generation) != replaced => Err(InstallError::Replaced),
        Some(Row { applied, .. }) if applied > index => Err(InstallError::Outdated { index, applied }),
        _ => Ok(()),
    }
}

fn applied_of(rows: &impl ReadableTable<u64, Bytewise>) -> Result<Replicas, Trouble> {
    check_rows(rows)?;
    let mut replicas = Replicas::default();
    for entry in rows.iter()? {
        let (replica, row) = entry?;
        let replica = ReplicaKey(replica.value());
        match Row::decode(replica, row.value()) {
            Ok(row) => drop(replicas.indexes.insert(replica, row.applied)),
            Err(damage) => replicas.damages.push(damage),
        }
    }
    Ok(replicas)
}

/// The table knows how many rows it has, so that none is missing unseen.
fn check_rows(rows: &impl ReadableTable<u64, Bytewise>) -> Result<(), Trouble> {
    let is_whole = rows.iter()?.count() as u64 == rows.len()?;
    if is_whole { Ok(()) } else { Err(Damage::new(DamageKind::Structure).into()) }
}

fn remove_some(
    transaction: &WriteTransaction,
    generation: Generation,
    entries_max: usize,
) -> Result<usize, Trouble> {
    let mut entries = transaction.open_table(ENTRIES)?;
    let (start, end) = (generation.place(&[]), Generation(generation.0 + 1).place(&[]));
    let mut places = Vec::new();
    for entry in entries.range::<&[u8]>(&start[..]..&end[..])?.take(entries_max) {
        places.push(entry?.0.value().to_vec());
    }
    for place in &places {
        entries.remove(&place[..])?;
    }
    Ok(places.len())
}

/// Writes entries of one generation, and keeps their tally.
struct Writer<'a, 'transaction> {
    entries: &'a mut Table<'transaction, Bytewise, Bytewise>,
    replica: ReplicaKey,
    generation: Generation,
    tally: &'a mut Tally,
}

impl Writer<'_, '_> {
    fn carry_out(&mut self, change: &Change) -> Result<(), Trouble> {
        match change {
            Change::Delete { key } => self.delete(key),
            Change::Put { key, value } => self.put(key, value),
        }
    }

    fn put(&mut self, key: &[u8], value: &[u8]) -> Result<(), Trouble> {
        let mut record = Vec::with_capacity(4 + value.len());
        seal(self.replica, key, value, &mut record);
        let old = self.entries.insert(&self.generation.place(key)[..], &record[..])?;
        if let Some(old) = old {
            self.tally.subtract(key, unseal(self.replica, key, old.value())?);
        }
        self.tally.add(key, value);
        Ok(())
    }

    fn delete(&mut self, key: &[u8]) -> Result<(), Trouble> {
        let old = self.entries.remove(&self.generation.place(key)[..])?;
        if let Some(old) = old {
            self.tally.subtract(key, unseal(self.replica, key, old.value())?);
        }
        Ok(())
    }
}

/// Everything in a file as of one moment.
#[derive(Debug)]
pub(super) struct View(Option<ReadTransaction>);

impl Drop for View {
    fn drop(&mut self) {
        let transaction = self.0.take();
        // A view that cannot be given back belongs to a file that is out of service.
        catch_unwind(AssertUnwindSafe(|| drop(transaction))).unwrap_or_default();
    }
}

impl View {
    fn begin(database: &Database) -> Result<Self, Trouble> {
        Ok(View(Some(database.begin_read()?)))
    }

    fn rows(&self) -> Result<::redb::ReadOnlyTable<u64, Bytewise>, Trouble> {
        self.table(ROWS)
    }

    fn table<K: ::redb::Key + 'static, V: ::redb::Value + 'static>(
        &self,
        definition: TableDefinition<'static, K, V>,
    ) -> Result<::redb::ReadOnlyTable<K, V>, Trouble> {
        Ok(self.0.as_ref().expect("it is there until the view is dropped").open_table(definition)?)
    }

    fn row(&self, replica: ReplicaKey) -> Result<Option<Row>, Trouble> {
        row_of(&self.rows()?, replica)
    }

    fn entries(&self) -> Result<::redb::ReadOnlyTable<Bytewise, Bytewise>, Trouble> {
        self.table(ENTRIES)
    }

    /// Reads entries until the bounds of the query or of what may be gathered. Says whether it was the first.
    pub(super) fn gather(
        &self,
        replica: ReplicaKey,
        generation: Generation,
        query: &Query<'_>,
        gathered: &mut Gathered,
    ) -> Result<bool, Trouble> {
        let table = self.entries()?;
        let (start, end) = placed(generation, query);
        let mut range = table.range::<&[u8]>((as_slices(&start), as_slices(&end)))?;
        loop {
            let next = match query.order {
                Order::Ascending => range.next(),
                Order::Descending => range.next_back(),
            };
            let Some(entry) = next else { return Ok(true) };
            let (place, record) = entry?;
            let key = key_of(place.value());
            let value = unseal(replica, key, record.value())?;
            if !gathered.has_room(key, value) {
                return Ok(false);
            }
            let (key, value) = copied(key, value);
            gathered.push(key, value);
        }
    }

    fn scan(&self, cursor: &mut ScanCursor, entries_max: usize) -> Result<Scanned, Trouble> {
        let mut scanned = Scanned::default();
        while scanned.entries < entries_max {
            let Some((replica, row)) = self.resume(cursor, &mut scanned)? else {
                *cursor = ScanCursor::default();
                scanned.is_complete = true;
                return Ok(scanned);
            };
            if self.scan_replica(replica, row, cursor, entries_max, &mut scanned)? {
                let is_same = cursor.replica == Some((replica, row));
                if is_same && !cursor.is_damaged && cursor.tally != row.tally {
                    scanned.damages.push(Damage::new(DamageKind::Digest).at(replica, None));
                }
                *cursor = ScanCursor { behind: Some(replica), ..ScanCursor::default() };
            }
        }
        Ok(scanned)
    }

    /// The replica to go on with. If it changed since the last step, what was added up says nothing, and its
    /// digest is left for the next round.
    fn resume(
        &self,
        cursor: &mut ScanCursor,
        scanned: &mut Scanned,
    ) -> Result<Option<(ReplicaKey, Row)>, Trouble> {
        let rows = self.rows()?;
        if cursor.place().is_none() {
            check_rows(&rows)?;
        }
        if let Some((replica, _)) = cursor.replica
            && let Some(row) = row_of(&rows, replica)?
        {
            return Ok(Some((replica, row)));
        }
        let behind = cursor.replica.map(|(replica, _)| replica).or(cursor.behind);
        let start = behind.map_or(Bound::Unbounded, |replica| Bound::Excluded(replica.0));
        for entry in rows.range::<u64>((start, Bound::Unbounded))? {
            let (replica, row) = entry?;
            let replica = ReplicaKey(replica.value());
            scanned.entries += 1;
            match Row::decode(replica, row.value()) {
                Err(damage) => scanned.damages.push(damage),
                Ok(row) => {
                    *cursor = ScanCursor { replica: Some((replica, row)), ..ScanCursor::default() };
                    return Ok(Some((replica, row)));
                }
            }
        }
        Ok(None)
    }

    /// Says whether the replica is done.
    fn scan_replica(
        &self,
        replica: ReplicaKey,
        row: Row,
        cursor: &mut ScanCursor,
        entries_max: usize,
        scanned: &mut Scanned,
    ) -> Result<bool, Trouble> {
        let table = self.entries()?;
        let after = cursor.after.clone();
        let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
        let (start, end) = placed(row.generation, &Query { start, ..Query::default() });
        for entry in table.range::<&[u8]>((as_slices(&start), as_slices(&end)))? {
            if scanned.entries >= entries_max {
                return Ok(false);
            }
            let (place, record) = entry?;
            let key = key_of(place.value());
            scanned.entries += 1;
            cursor.after = Some(Bytes::copy_from_slice(key));
            // Who reads in order passes by the branches that lead who asks for a key.
            if table.get(place.value())?.is_none_or(|found| found.value() != record.value()) {
                scanned.damages.push(Damage::new(DamageKind::Structure).at(replica, Some(key)));
            }
            match unseal(replica, key, record.value()) {
                Ok(value) => cursor.tally.add(key, value),
                Err(damage) => {
                    cursor.is_damaged = true;
                    scanned.damages.push(damage);
                }
            }
        }
        Ok(true)
    }
}

impl ScanCursor {
    /// The replica and key that were looked at last.
    pub(super) fn place(&self) -> Option<(ReplicaKey, Option<&[u8]>)> {
        let replica = self.replica.map(|(replica, _)| replica).or(self.behind)?;
        Some((replica, self.after.as_deref()))
    }
}

/// The bounds of a query in the table of all entries.
fn placed(generation: Generation, query: &Query<'_>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let start = match query.start {
        Bound::Excluded(key) => Bound::Excluded(generation.place(key)),
        Bound::Included(key) => Bound::Included(generation.place(key)),
        Bound::Unbounded => Bound::Included(generation.place(&[])),
    };
    let end = match query.end {
        Bound::Excluded(key) => Bound::Excluded(generation.place(key)),
        Bound::Included(key) => Bound::Included(generation.place(key)),
        Bound::Unbounded => Bound::Excluded(Generation(generation.0 + 1).place(&[])),
    };
    (start, end)
}

fn as_slices(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Excluded(place) => Bound::Excluded(&place[..]),
        Bound::Included(place) => Bound::Included(&place[..]),
        Bound::Unbounded => Bound::Unbounded,
    }
}

impl From<Damage> for Trouble {
    fn from(damage: Damage) -> Self {
        Trouble::Damaged(damage)
    }
}

impl From<CommitError> for Trouble {
    fn from(error: CommitError) -> Self {
        Trouble::Engine(Box::new(error.into()))
    }
}

impl From<DatabaseError> for Trouble {
    fn from(error: DatabaseError) -> Self {
        Trouble::Engine(Box::new(error.into()))
    }
}

impl From<SetDurabilityError> for Trouble {
    fn from(error: SetDurabilityError) -> Self {
        Trouble::Engine(Box::new(error.into()))
    }
}

impl From<StorageError> for Trouble {
    fn from(error: StorageError) -> Self {
        Trouble::Engine(Box::new(error.into()))
    }
}

impl From<TableError> for Trouble {
    fn from(error: TableError) -> Self {
        Trouble::Engine(Box::new(error.into()))
    }
}

impl From<TransactionError> for Trouble {
    fn from(error: TransactionError) -> Self {
        Trouble::Engine(Box::new(error.into()))
    }
}
