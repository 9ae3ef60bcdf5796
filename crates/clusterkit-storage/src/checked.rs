//! Small files that are replaced as a whole: after a crash the old one or the new one is there, never a
//! mixture, and damage is seen when they are read.
//!
//! A checked file is a header of 20 bytes and the body: magic `CKCF`, version of this header (2 bytes), 2
//! bytes of zero, length of the body (8 bytes), CRC-32C of all that and the body (4 bytes), all little-endian.
//! What the body says, and in which version, is its owner's business. One writer at a time for each path.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use bytes::{Buf, Bytes};

use crate::disk::{Disk, DiskError, OpenMode, parent};
use crate::limits::CHECKED_BYTES_MAX;

const MAGIC: [u8; 4] = *b"CKCF";
const VERSION: u16 = 1;
const HEADER_BYTES: usize = 20;
const CHECKSUM_AT: usize = 16;

/// Replaces a file by these bytes, durably. Costs two syncs. Until it returns, a crash leaves the old bytes or
/// the new ones.
pub fn write_atomic(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(), WriteFileError> {
    replace(disk, path, &[bytes])
}

/// Like [`write_atomic`], with a header that lets [`read_checked`] see damage.
pub fn write_checked(disk: &dyn Disk, path: &Path, body: &[u8]) -> Result<(), WriteFileError> {
    if body.len() > CHECKED_BYTES_MAX {
        return Err(WriteFileError::TooLarge { bytes: body.len() });
    }
    replace(disk, path, &[&header(body), body])
}

/// The body of a checked file, or nothing if there is no file of this name.
pub fn read_checked(disk: &dyn Disk, path: &Path) -> Result<Option<Bytes>, ReadFileError> {
    let file = match disk.open(path, OpenMode::Read) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let damaged = |damage| ReadFileError::Damaged { path: path.to_path_buf(), damage };
    let length = file.length()?;
    if length > (CHECKED_BYTES_MAX + HEADER_BYTES) as u64 {
        return Err(damaged(Damage::Length));
    }
    let mut bytes = vec![0; length as usize];
    let filled = file.read_at(0, &mut bytes)?;
    bytes.truncate(filled);
    let bytes = Bytes::from(bytes);
    match check(&bytes) {
        Ok(()) => Ok(Some(bytes.slice(HEADER_BYTES..))),
        Err(Flaw::Damage(damage)) => Err(damaged(damage)),
        Err(Flaw::Version(version)) => Err(ReadFileError::Unsupported { path: path.to_path_buf(), version }),
    }
}

/// The name under which a file is written before it takes its own. A crash can leave it behind; the next
/// write uses it again.
pub fn temporary(path: &Path) -> PathBuf {
    let mut name = path.file_name().map(OsString::from).unwrap_or_default();
    name.push(".tmp");
    path.with_file_name(name)
}

/// A file could not be replaced.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteFileError {
    /// The old file is there, and stays. After a failed sync do not retry: stop the node.
    #[error("the file was not replaced")]
    NotReplaced {
        /// What failed.
        source: DiskError,
    },
    /// The old file or the new one is there now, and the other may be there after a crash. Stop the node.
    #[error("the file may or may not be replaced")]
    OutcomeUnknown {
        /// What failed.
        source: DiskError,
    },
    /// Nothing changed. The body is larger than [`CHECKED_BYTES_MAX`]; a retry cannot help.
    #[error("a checked file holds at most {CHECKED_BYTES_MAX} bytes, not {bytes}")]
    TooLarge {
        /// Bytes of the body.
        bytes: usize,
    },
}

/// A checked file could not be read. Nothing changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadFileError {
    /// What lies on the disk is not what was written. Never retry, never go on without it: keep the file and
    /// have it replaced from another node.
    #[error("{} is damaged: {damage}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// How it was seen.
        damage: Damage,
    },
    /// The disk refused to open or read it.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// A newer program wrote it. Use that one.
    #[error("{} has version {version}, which this program does not know", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u16,
    },
}

/// How damage was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// The checksum does not match.
    #[error("its checksum does not match")]
    Checksum,
    /// The bytes are whole, and say something that cannot be.
    #[error("its contents contradict themselves")]
    Contents,
    /// The file is longer or shorter than its header says.
    #[error("its length is not the one it was written with")]
    Length,
    /// It does not begin like such a file.
    #[error("it does not begin as it should")]
    Magic,
}

enum Flaw {
    Damage(Damage),
    Version(u16),
}

fn header(body: &[u8]) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[..4].copy_from_slice(&MAGIC);
    header[4..6].copy_from_slice(&VERSION.to_le_bytes());
    header[8..16].copy_from_slice(&(body.len() as u64).to_le_bytes());
    let checksum = checksum(&header, body);
    header[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    header
}

fn checksum(header: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&header[..CHECKSUM_AT]), body)
}

/// The version is believed only if the checksum holds, or else a flipped bit would pass for a newer program.
fn check(bytes: &[u8]) -> Result<(), Flaw> {
    let Some((mut header, body)) = bytes.split_at_checked(HEADER_BYTES) else {
        return Err(Flaw::Damage(Damage::Length));
    };
    let expected = checksum(header, body);
    if header[..4] != MAGIC {
        return Err(Flaw::Damage(Damage::Magic));
    }
    header.advance(4);
    let version = header.get_u16_le();
    header.advance(2);
    if header.get_u64_le() != body.len() as u64 {
        return Err(Flaw::Damage(Damage::Length));
    }
    if header.get_u32_le() != expected {
        return Err(Flaw::Damage(Damage::Checksum));
    }
    if version == VERSION { Ok(()) } else { Err(Flaw::Version(version)) }
}

fn replace(disk: &dyn Disk, path: &Path, parts: &[&[u8]]) -> Result<(), WriteFileError> {
    let temporary = temporary(path);
    write_synced(disk, &temporary, parts).map_err(|source| WriteFileError::NotReplaced { source })?;
    let renamed = disk.rename(&temporary, path).and_then(|()| disk.sync_dir(parent(path)));
    renamed.map_err(|source| WriteFileError::OutcomeUnknown { source })
}

fn write_synced(disk: &dyn Disk, path: &Path, parts: &[&[u8]]) -> Result<(), DiskError> {
    let file = disk.open(path, OpenMode::Create)?;
    file.set_length(0)?;
    let mut offset = 0;
    for part in parts {
        file.write_at(offset, part)?;
        offset += part.len() as u64;
    }
    file.sync_all()
}
