//! The bytes of one simulated file: what a reader sees, and what a crash can leave of it.

use std::collections::{BTreeMap, BTreeSet};

use super::chance::Chance;
use crate::limits::{PAGE_BYTES, SECTOR_BYTES};

/// One file.
///
/// Invariants:
/// - `layers` is never empty, and its first layer alone begins without a cut.
/// - Bytes that no layer mentions are equal in `seen` and `durable`, unless a sync failed.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    seen: Vec<u8>,
    durable: Vec<u8>,
    layers: Vec<Layer>,
}

/// What was done since the last sync, between two cuts of the file's length. A file system orders a cut
/// before what follows it, and nothing else: within a layer each page is kept or lost by itself, in any of
/// the states that it went through.
#[derive(Clone, Debug, Default)]
struct Layer {
    cut: Option<usize>,
    lengths: Vec<usize>,
    pages: BTreeMap<usize, Vec<Vec<u8>>>,
}

impl Inode {
    pub(super) fn new() -> Self {
        Inode { seen: Vec::new(), durable: Vec::new(), layers: vec![Layer::default()] }
    }

    pub(super) fn length(&self) -> usize {
        self.seen.len()
    }

    pub(super) fn read(&self, offset: usize, buffer: &mut [u8]) -> usize {
        let start = offset.min(self.seen.len());
        let count = buffer.len().min(self.seen.len() - start);
        buffer[..count].copy_from_slice(&self.seen[start..start + count]);
        count
    }

    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        self.grow(end);
        self.seen[offset..end].copy_from_slice(bytes);
        let layer = self.layers.last_mut().expect("a file always has a layer");
        for page in offset / PAGE_BYTES..=(end - 1) / PAGE_BYTES {
            let state = page_of(&self.seen, page).to_vec();
            layer.pages.entry(page).or_default().push(state);
        }
    }

    pub(super) fn set_length(&mut self, length: usize) {
        if length < self.seen.len() {
            self.seen.truncate(length);
            self.layers.push(Layer { cut: Some(length), ..Layer::default() });
        } else {
            self.grow(length);
        }
    }

    pub(super) fn sync(&mut self) {
        let cuts = self.layers.iter().filter_map(|layer| layer.cut);
        self.durable.truncate(cuts.min().unwrap_or(usize::MAX));
        self.durable.resize(self.seen.len(), 0);
        let pages: BTreeSet<usize> =
            self.layers.iter().flat_map(|layer| layer.pages.keys().copied()).collect();
        for page in pages {
            place(&mut self.durable, page, page_of(&self.seen, page));
        }
        self.layers = vec![Layer::default()];
    }

    /// Some pages reach the disk; the others are forgotten while a reader still sees them, as Linux does.
    pub(super) fn sync_fails(&mut self, chance: &mut Chance) {
        self.durable = self.survivor(chance);
        self.layers = vec![Layer::default()];
    }

    pub(super) fn crash(&mut self, chance: &mut Chance) {
        self.durable = self.survivor(chance);
        self.crash_clean();
    }

    pub(super) fn crash_clean(&mut self) {
        self.seen = self.durable.clone();
        self.layers = vec![Layer::default()];
    }

    /// Changes a byte on the disk and in the cache.
    pub(super) fn damage(&mut self, offset: usize, change: impl Fn(&mut u8)) {
        let (page, within) = (offset / PAGE_BYTES, offset % PAGE_BYTES);
        let states = self.layers.iter_mut().filter_map(|layer| layer.pages.get_mut(&page)).flatten();
        states.filter_map(|state| state.get_mut(within)).for_each(&change);
        self.seen.get_mut(offset).into_iter().for_each(&change);
        self.durable.get_mut(offset).into_iter().for_each(&change);
    }

    fn grow(&mut self, length: usize) {
        if length > self.seen.len() {
            self.seen.resize(length, 0);
            self.layers.last_mut().expect("a file always has a layer").lengths.push(length);
        }
    }

    fn survivor(&self, chance: &mut Chance) -> Vec<u8> {
        let mut image = self.durable.clone();
        let kept = 1 + chance.below(self.layers.len());
        for layer in &self.layers[..kept] {
            layer.survive(&mut image, chance);
        }
        image
    }
}

impl Layer {
    fn survive(&self, image: &mut Vec<u8>, chance: &mut Chance) {
        if let Some(cut) = self.cut {
            image.resize(cut, 0);
        }
        if let Some(grown) = chance.below(self.lengths.len() + 1).checked_sub(1) {
            image.resize(self.lengths[grown].max(image.len()), 0);
        }
        for (page, states) in &self.pages {
            let state = survivor_of(states, page_of(image, *page), chance);
            place(image, *page, &state);
        }
    }
}

/// One of the page's states, seldom torn between two of them at the edge of a sector.
fn survivor_of(states: &[Vec<u8>], before: &[u8], chance: &mut Chance) -> Vec<u8> {
    let pick = |chance: &mut Chance| match chance.below(states.len() + 1).checked_sub(1) {
        Some(index) => states[index].clone(),
        None => before.to_vec(),
    };
    let mut state = pick(chance);
    if chance.one_in(4) {
        let other = pick(chance);
        let edge = (chance.below(PAGE_BYTES / SECTOR_BYTES) * SECTOR_BYTES).min(state.len());
        let length = state.len().max(other.len());
        state.resize(length, 0);
        let tail = edge.min(other.len())..other.len();
        state[tail.clone()].copy_from_slice(&other[tail]);
    }
    state
}

fn page_of(bytes: &[u8], page: usize) -> &[u8] {
    let start = (page * PAGE_BYTES).min(bytes.len());
    &bytes[start..bytes.len().min(start + PAGE_BYTES)]
}

/// Puts a page's state into a file, as far as the file reaches.
fn place(bytes: &mut [u8], page: usize, state: &[u8]) {
    let start = (page * PAGE_BYTES).min(bytes.len());
    let count = state.len().min(bytes.len() - start);
    bytes[start..start + count].copy_from_slice(&state[..count]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crashes(inode: &Inode) -> BTreeSet<Vec<u8>> {
        (0..500)
            .map(|seed| {
                let mut inode = inode.clone();
                inode.crash(&mut Chance::new(seed));
                inode.seen
            })
            .collect()
    }

    #[test]
    fn a_synced_byte_survives_every_crash() {
        let mut inode = Inode::new();
        inode.write(0, b"one");
        inode.sync();
        assert_eq!(crashes(&inode), BTreeSet::from([b"one".to_vec()]));
    }

    #[test]
    fn an_unsynced_page_survives_in_any_state_it_had() {
        let mut inode = Inode::new();
        inode.write(0, b"one");
        inode.sync();
        inode.write(0, b"two");
        inode.write(0, b"six");
        let expected = BTreeSet::from([b"one".to_vec(), b"two".to_vec(), b"six".to_vec()]);
        assert_eq!(crashes(&inode), expected);
    }

    #[test]
    fn unsynced_pages_survive_as_any_subset() {
        let mut inode = Inode::new();
        inode.write(0, &[1; 2 * PAGE_BYTES]);
        let images = crashes(&inode);
        let shape = |image: &Vec<u8>| (image.first().copied(), image.get(PAGE_BYTES).copied());
        let shapes: BTreeSet<_> = images.iter().map(shape).collect();
        for expected in [(None, None), (Some(0), Some(1)), (Some(1), Some(0)), (Some(1), Some(1))] {
            assert!(shapes.contains(&expected), "{expected:?} in {shapes:?}");
        }
    }

    #[test]
    fn a_cut_is_ordered_before_what_follows_it() {
        let mut inode = Inode::new();
        inode.write(0, b"abcdef");
        inode.sync();
        inode.set_length(2);
        inode.set_length(4);
        let expected = BTreeSet::from([b"abcdef".to_vec(), b"ab".to_vec(), b"ab\0\0".to_vec()]);
        assert_eq!(crashes(&inode), expected);
        inode.sync();
        assert_eq!(crashes(&inode), BTreeSet::from([b"ab\0\0".to_vec()]));
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_the_next_one() {
        let lost = (0..100).filter(|seed| {
            let mut inode = Inode::new();
            inode.write(0, b"one");
            inode.sync_fails(&mut Chance::new(*seed));
            inode.sync();
            inode.crash_clean();
            inode.seen != b"one"
        });
        assert!(lost.count() > 10);
    }
}
