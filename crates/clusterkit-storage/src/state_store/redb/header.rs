//! The header slots of a file of pages.

use std::path::Path;

use super::pages::Identity;
use crate::disk::{DiskError, DiskFile};
use crate::limits::PAGE_BYTES;
use crate::state_store::{Damage, DamageKind, OpenError};

const MAGIC: [u8; 4] = *b"CKST";
const VERSION: u16 = 1;
const SLOT_BYTES: usize = 2 * PAGE_BYTES;
const CHECKSUM_AT: usize = 38;
const FIXED_BYTES: usize = CHECKSUM_AT + 4;

/// Bytes before the first group.
pub(super) const HEADERS_BYTES: u64 = 2 * SLOT_BYTES as u64;

/// What one sync made durable of the file as a whole.
#[derive(Debug)]
pub(super) struct Header {
    /// The number of the sync, from 1.
    pub(super) synced: u32,
    /// The length that the engine asked for.
    pub(super) length: u64,
    /// The engine's page 0.
    pub(super) first_page: Box<[u8; PAGE_BYTES]>,
}

impl Header {
    /// Magic, version, file, store, number, length and checksum on the first page, the engine's page on the
    /// second. The checksum is over both without itself.
    pub(super) fn encode(&self, identity: Identity) -> Vec<u8> {
        let mut bytes = vec![0; SLOT_BYTES];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&identity.file.to_le_bytes());
        bytes[8..24].copy_from_slice(&identity.store.to_le_bytes());
        bytes[24..28].copy_from_slice(&self.synced.to_le_bytes());
        bytes[30..38].copy_from_slice(&self.length.to_le_bytes());
        bytes[PAGE_BYTES..].copy_from_slice(&*self.first_page);
        let crc = checksum(&bytes);
        bytes[CHECKSUM_AT..FIXED_BYTES].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8]) -> Self {
        let mut first_page = Box::new([0; PAGE_BYTES]);
        first_page.copy_from_slice(&bytes[PAGE_BYTES..]);
        Header {
            synced: u32::from_le_bytes(array(&bytes[24..28])),
            length: u64::from_le_bytes(array(&bytes[30..38])),
            first_page,
        }
    }
}

/// Where the slot of a sync lies. The slot of the sync before it is the other one.
pub(super) fn slot_offset(synced: u32) -> u64 {
    u64::from(synced % 2) * SLOT_BYTES as u64
}

/// The newest slot that is whole. Its version and its owner are believed, since its checksum holds.
pub(super) fn read_newest(file: &dyn DiskFile, path: &Path, identity: Identity) -> Result<Header, OpenError> {
    let slots = [read_whole(file, 0)?, read_whole(file, 1)?];
    let newest = slots.into_iter().flatten().max_by_key(|bytes| Header::decode(bytes).synced);
    let Some(bytes) = newest else {
        return Err(Damage::in_file(DamageKind::Header, path).into());
    };
    let version = u16::from_le_bytes(array(&bytes[4..6]));
    if version != VERSION {
        return Err(OpenError::Unsupported { path: path.to_path_buf(), version });
    }
    let found = identity_of(&bytes);
    if found == identity {
        Ok(Header::decode(&bytes))
    } else if found.store == identity.store {
        Err(Damage::in_file(DamageKind::Header, path).into())
    } else {
        Err(OpenError::Foreign { dir: crate::disk::parent(path).to_path_buf(), found: found.store })
    }
}

/// Whether the slot of a sync is on the disk as it was written.
pub(super) fn is_whole(file: &dyn DiskFile, identity: Identity, synced: u32) -> Result<bool, DiskError> {
    let found = read_whole(file, synced)?;
    Ok(found.is_some_and(|bytes| identity_of(&bytes) == identity && Header::decode(&bytes).synced == synced))
}

fn read_whole(file: &dyn DiskFile, synced: u32) -> Result<Option<Vec<u8>>, DiskError> {
    let mut bytes = vec![0; SLOT_BYTES];
    let filled = file.read_at(slot_offset(synced), &mut bytes)?;
    let is_whole = filled == SLOT_BYTES
        && bytes[..4] == MAGIC
        && u32::from_le_bytes(array(&bytes[CHECKSUM_AT..FIXED_BYTES])) == checksum(&bytes);
    Ok(is_whole.then_some(bytes))
}

fn identity_of(bytes: &[u8]) -> Identity {
    let file = u16::from_le_bytes(array(&bytes[6..8]));
    Identity { store: u128::from_le_bytes(array(&bytes[8..24])), file }
}

fn checksum(bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&bytes[..CHECKSUM_AT]), &bytes[FIXED_BYTES..])
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("the slice was cut to this length")
}
