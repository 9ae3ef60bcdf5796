//! Going through the entries of all segments in order, and past what is not whole.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;

use super::Segment;
use super::entry::{HEADER_BYTES, Header, Kind, NUMBER_AT};
use super::segment::SegmentId;
use crate::disk::DiskError;
use crate::limits::{PAGE_BYTES, READ_BYTES_MAX, UNREADABLE_PAGES_MAX};

const KIND_AT: usize = 12;
/// What stands for a byte that could not be read.
const UNREADABLE: u8 = 0xee;

/// A segment that there should be.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) id: SegmentId,
    /// Missing if its file is gone.
    pub(super) segment: Option<Segment>,
}

/// Goes through the entries. A clone goes its own way.
#[derive(Clone, Debug)]
pub(super) struct Walk<'a> {
    sources: &'a [Source],
    at: usize,
    position: u64,
    /// The number that the next entry must have. Unknown before the first.
    number: Option<u64>,
    /// Whether segments between the last one and this were freed, so that numbers are left out.
    jump: bool,
    /// Whether the last entry says that another segment follows, and none does.
    sealed: bool,
    /// How far segments are written in which nothing whole was found behind the end.
    written: BTreeMap<usize, u64>,
    /// Pages that could not be read, each with its segment.
    unreadable: BTreeMap<(usize, u64), Arc<DiskError>>,
    window: Window,
}

/// A piece of a file that was read.
#[derive(Clone, Debug, Default)]
struct Window {
    at: usize,
    start: u64,
    bytes: Bytes,
}

/// What comes next.
#[derive(Debug)]
pub(super) enum Step {
    End(End),
    Entry(Found),
    Gap(Gap),
}

/// A whole entry.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) header: Header,
    pub(super) payload: Bytes,
    /// The position of its segment among the sources, and its own position in that.
    pub(super) at: usize,
    pub(super) position: u64,
}

/// No whole entry where one should be, and whole ones behind it.
#[derive(Clone, Debug)]
pub(super) struct Gap {
    pub(super) at: usize,
    pub(super) position: u64,
    /// The numbers of the entries that are not whole.
    pub(super) lost: Range<u64>,
    /// The header, if it is whole and the payload is not. Then one entry is lost.
    pub(super) header: Option<Header>,
    /// Whether the segment is the first, or segments before it were freed.
    pub(super) jump: bool,
}

/// Nothing whole comes any more.
#[derive(Debug)]
pub(super) struct End {
    pub(super) at: usize,
    pub(super) position: u64,
    pub(super) number: u64,
    /// Whether the segment is gone that should follow.
    pub(super) missing: bool,
    /// Where the last byte that is not zero ends, in this segment and all behind it.
    pub(super) written: BTreeMap<usize, u64>,
}

/// What a search for an entry came to.
enum Search {
    Found(u64, Header),
    Nothing,
}

enum Read {
    Nothing,
    Torn(Header),
    Whole(Header, Bytes),
}

impl<'a> Walk<'a> {
    /// A walk from the segment `at` on.
    pub(super) fn new(sources: &'a [Source], at: usize) -> Self {
        Walk {
            sources,
            at,
            position: 0,
            number: None,
            jump: true,
            sealed: false,
            written: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            window: Window::default(),
        }
    }

    pub(super) fn step(&mut self) -> Result<Step, DiskError> {
        let (at, position) = (self.at, self.position);
        match self.read_entry(at, position)? {
            Read::Whole(header, payload) if self.expects(&header) => {
                self.pass(&header);
                Ok(Step::Entry(Found { header, payload, at, position }))
            }
            Read::Torn(header) if self.expects(&header) => {
                let jump = self.jump;
                self.pass(&header);
                let lost = header.number..header.number + 1;
                Ok(Step::Gap(Gap { at, position, lost, header: Some(header), jump }))
            }
            _ => self.search(),
        }
    }

    /// The highest mark of all that is still to come.
    pub(super) fn mark_behind(&mut self) -> Result<u64, DiskError> {
        let mut walk = self.clone();
        let mut mark = 0;
        loop {
            match walk.step()? {
                Step::End(_) => {
                    self.unreadable = walk.unreadable;
                    return Ok(mark);
                }
                Step::Entry(found) => mark = mark.max(found.header.mark()),
                Step::Gap(gap) => mark = mark.max(gap.header.map_or(0, |header| header.mark())),
            }
        }
    }

    /// Where the last byte that is not zero ends in a segment, from a position on.
    pub(super) fn written_end(&mut self, at: usize, from: u64) -> Result<u64, DiskError> {
        let mut end = from;
        let mut position = from;
        loop {
            let bytes = self.bytes(at, position, READ_BYTES_MAX)?;
            if bytes.is_empty() {
                return Ok(end);
            }
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                end = position + last as u64 + 1;
            }
            position += bytes.len() as u64;
        }
    }

    /// The payload of the table that a segment begins with.
    pub(super) fn table(&mut self, at: usize) -> Result<Option<Bytes>, DiskError> {
        Ok(match self.read_entry(at, 0)? {
            Read::Whole(header, payload) if header.kind == Kind::Table => Some(payload),
            _ => None,
        })
    }

    /// The bytes from a position on, as many as asked for or as the file has.
    pub(super) fn bytes(&mut self, at: usize, position: u64, count: usize) -> Result<Bytes, DiskError> {
        let held = self.window.at == at && position >= self.window.start;
        let skip = position.saturating_sub(self.window.start) as usize;
        if !held || skip + count > self.window.bytes.len() {
            self.fill(at, position, count.max(READ_BYTES_MAX))?;
            return Ok(self.window.bytes.slice(..count.min(self.window.bytes.len())));
        }
        Ok(self.window.bytes.slice(skip..skip + count))
    }

    fn fill(&mut self, at: usize, position: u64, count: usize) -> Result<(), DiskError> {
        let mut bytes = vec![0; count];
        let filled = match &self.sources[at].segment {
            Some(segment) => match segment.file.read_at(position, &mut bytes) {
                Ok(filled) => filled,
                Err(_) => self.fill_by_page(at, segment, position, &mut bytes)?,
            },
            None => 0,
        };
        bytes.truncate(filled);
        self.window = Window { at, start: position, bytes: Bytes::from(bytes) };
        Ok(())
    }

    /// Reads what can be read. The rest becomes bytes that are no entry and not blank either.
    fn fill_by_page(
        &mut self,
        at: usize,
        segment: &Segment,
        position: u64,
        bytes: &mut [u8],
    ) -> Result<usize, DiskError> {
        let end = (position + bytes.len() as u64).min(segment.capacity).max(position);
        let mut from = position;
        while from < end {
            let next = (from / PAGE_BYTES as u64 + 1) * PAGE_BYTES as u64;
            let page = &mut bytes[(from - position) as usize..(next.min(end) - position) as usize];
            if let Err(error) = segment.file.read_at(from, page) {
                if self.unreadable.len() >= UNREADABLE_PAGES_MAX {
                    return Err(error);
                }
                page.fill(UNREADABLE);
                self.unreadable.insert((at, next - PAGE_BYTES as u64), Arc::new(error));
            }
            from = next;
        }
        Ok((end - position) as usize)
    }

    /// What failed of a page that ends behind this place, if one did.
    pub(super) fn unreadable_from(&self, at: usize, position: u64) -> Option<Arc<DiskError>> {
        let page = position / PAGE_BYTES as u64 * PAGE_BYTES as u64;
        self.unreadable.range((at, page)..).next().map(|(_, error)| error.clone())
    }

    fn read_entry(&mut self, at: usize, position: u64) -> Result<Read, DiskError> {
        let bytes = self.bytes(at, position, HEADER_BYTES)?;
        let key = self.sources[at].segment.as_ref().map(|segment| segment.key);
        let Some(header) = key.and_then(|key| Header::decode(key, &bytes)) else {
            return Ok(Read::Nothing);
        };
        let payload = self.bytes(at, position + HEADER_BYTES as u64, header.length as usize)?;
        Ok(if header.fits(&payload) { Read::Whole(header, payload) } else { Read::Torn(header) })
    }

    /// Whether this can be the next entry. A segment begins with a table, and there is one nowhere else.
    fn expects(&self, header: &Header) -> bool {
        let in_order = match self.number {
            None => true,
            Some(number) if self.jump && self.position == 0 => header.number >= number,
            Some(number) => header.number == number,
        };
        in_order && (header.kind == Kind::Table) == (self.position == 0)
    }

    fn pass(&mut self, header: &Header) {
        self.number = Some(header.number + 1);
        self.position += header.bytes();
        self.jump = false;
        self.sealed = false;
        if header.kind == Kind::Seal {
            self.pass_seal(header.offset);
        }
    }

    /// Goes on in the segment that a seal names, or the next if that one was freed. Those before it were
    /// prepared too late to be used.
    fn pass_seal(&mut self, named: u64) {
        let behind = self.sources.iter().skip(self.at + 1);
        let skipped = behind.take_while(|source| u64::from(source.id.0) < named).count();
        let next = self.at + 1 + skipped;
        self.sealed = next == self.sources.len();
        if !self.sealed {
            self.at = next;
            self.position = 0;
            self.jump = u64::from(self.sources[next].id.0) != named;
        }
    }

    /// Looks for the next whole entry, in this segment and those behind it.
    fn search(&mut self) -> Result<Step, DiskError> {
        let (at, position, jump) = (self.at, self.position, self.jump);
        let number = self.number.unwrap_or(1);
        for behind in at..self.sources.len() {
            let from = if behind == at { position } else { 0 };
            if let Search::Found(found_at, header) = self.search_in(behind, from, number)? {
                self.at = behind;
                self.position = found_at;
                self.number = Some(header.number);
                self.jump = false;
                let lost = number..header.number;
                return Ok(Step::Gap(Gap { at, position, lost, header: None, jump }));
            }
        }
        let missing = self.sealed || jump || self.sources[at].segment.is_none();
        let written = std::mem::take(&mut self.written);
        Ok(Step::End(End { at, position, number, missing, written }))
    }

    /// Looks for a whole entry of at least this number in one segment. Lengths cannot be believed here, so
    /// every byte is tried.
    fn search_in(&mut self, at: usize, from: u64, number: u64) -> Result<Search, DiskError> {
        let (mut position, mut written_end) = (from, from);
        loop {
            let bytes = self.bytes(at, position, READ_BYTES_MAX)?;
            if let Some(last) = bytes.iter().rposition(|byte| *byte != 0) {
                written_end = position + last as u64 + 1;
            }
            if bytes.len() < HEADER_BYTES {
                self.written.insert(at, written_end);
                return Ok(Search::Nothing);
            }
            for start in candidates(&bytes, number) {
                let found_at = position + start as u64;
                if let Read::Whole(header, _) = self.read_entry(at, found_at)?
                    && (header.kind == Kind::Table) == (found_at == 0)
                {
                    return Ok(Search::Found(found_at, header));
                }
            }
            position += (bytes.len() - HEADER_BYTES + 1) as u64;
        }
    }
}

/// Where a header of at least this number may begin, as far as cheap tests tell.
fn candidates(bytes: &[u8], number: u64) -> impl Iterator<Item = usize> {
    let last = bytes.len() - HEADER_BYTES;
    let mut start = 0;
    std::iter::from_fn(move || {
        while start <= last {
            let rest = &bytes[start..];
            if is_blank(rest) {
                start += PAGE_BYTES - HEADER_BYTES;
                continue;
            }
            start += 1;
            if is_candidate(rest, number) {
                return Some(start - 1);
            }
        }
        None
    })
}

fn is_blank(bytes: &[u8]) -> bool {
    bytes[KIND_AT] == 0 && bytes.get(..PAGE_BYTES).is_some_and(|page| page.iter().all(|byte| *byte == 0))
}

fn is_candidate(bytes: &[u8], number: u64) -> bool {
    let found = &bytes[NUMBER_AT..NUMBER_AT + 8];
    let found = u64::from_le_bytes(found.try_into().expect("eight bytes were taken"));
    bytes[KIND_AT] != 0 && bytes[KIND_AT + 1..KIND_AT + 4] == [0; 3] && found >= number
}
