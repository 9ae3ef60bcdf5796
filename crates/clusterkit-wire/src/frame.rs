//! The header and checksum around every message between nodes.
//!
//! All numbers are little-endian. Version 1:
//!
//! | at | bytes | field | holds |
//! | --- | --- | --- | --- |
//! | 0 | 4 | length | how many bytes follow the checksum |
//! | 4 | 4 | checksum | CRC-32C of everything after it |
//! | 8 | 1 | version | [`FRAME_VERSION`] |
//! | 9 | 1 | kind | what the body is; from [`kind::TRANSPORT_FIRST`] on the transport's own |
//! | 10 | 2 | flags | bits 0 and 1 are the [`Exchange`]; the others are zero |
//! | 12 | 8 | call id | which answer belongs to which request |
//! | 20 | 8 | cluster id | the sender's cluster, zero while it has none |
//! | 28 | 8 | epoch | the epoch under which the sender speaks, zero where none is meant |
//! | 36 | | body | |

use bytes::{BufMut, Bytes, BytesMut};
use clusterkit_core::id::{ClusterId, Epoch};

use crate::limits::FRAME_HEADER_BYTES;

/// The layout that this crate writes and reads.
pub const FRAME_VERSION: u8 = 1;

/// What the length does not count: itself and the checksum.
const PREFIX_BYTES: usize = 8;
const EXCHANGE_MASK: u16 = 0b11;

/// The kinds of frame that belong to the transport itself. All below [`kind::TRANSPORT_FIRST`] mean
/// something to the service above it.
pub mod kind {
    /// The first kind that a service cannot use.
    pub const TRANSPORT_FIRST: u8 = 0xf0;
    /// The dialling node introduces itself; the first frame on a connection. See [`crate::hello`].
    pub const HELLO: u8 = 0xf0;
    /// The answering node takes the connection and introduces itself.
    pub const WELCOME: u8 = 0xf1;
    /// The answering node does not take the connection and says why.
    pub const REFUSED: u8 = 0xf2;
    /// Sent by either side when it has had nothing else to say for a while; the receiver only notes
    /// that the other side lives.
    pub const PING: u8 = 0xf3;
    /// The dialling node closes the connection because it needs it no longer. An end without it is
    /// a loss, and a hint that the node may be dead.
    pub const BYE: u8 = 0xf4;
}

/// One message between two nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the body is. See [`kind`].
    pub kind: u8,
    /// Whether it asks, answers or only tells.
    pub exchange: Exchange,
    /// The request that this is, or that it answers; unique for its connection and direction.
    pub call: CallId,
    /// The sender's cluster. A cluster id of zero is never drawn, and means none.
    pub cluster: Option<ClusterId>,
    /// The epoch under which the sender speaks, zero where none is meant.
    pub epoch: Epoch,
    /// The message, which this crate's other modules or the service above reads.
    pub body: Bytes,
}

impl Frame {
    /// The bytes of the whole frame.
    #[must_use]
    pub fn bytes_count(&self) -> usize {
        FRAME_HEADER_BYTES + self.body.len()
    }

    /// The header, for a writer that sends the body without copying it.
    ///
    /// Refuses a frame of more than `bytes_max`, so that nothing is sent which the other side would
    /// have to refuse.
    pub fn header(&self, bytes_max: usize) -> Result<[u8; FRAME_HEADER_BYTES], FrameError> {
        let length = self.length(bytes_max)?;
        let mut header = [0; FRAME_HEADER_BYTES];
        let mut fields = &mut header[PREFIX_BYTES..];
        fields.put_u8(FRAME_VERSION);
        fields.put_u8(self.kind);
        fields.put_u16_le(self.exchange as u16);
        fields.put_u64_le(self.call.0);
        fields.put_u64_le(self.cluster.map_or(0, |cluster| cluster.0));
        fields.put_u64_le(self.epoch.0);
        let checksum = crc32c::crc32c_append(crc32c::crc32c(&header[PREFIX_BYTES..]), &self.body);
        let mut prefix = &mut header[..PREFIX_BYTES];
        prefix.put_u32_le(length);
        prefix.put_u32_le(checksum);
        Ok(header)
    }

    fn length(&self, bytes_max: usize) -> Result<u32, FrameError> {
        let bytes = self.bytes_count();
        let too_large = FrameError::TooLarge { bytes, bytes_max };
        if bytes > bytes_max {
            return Err(too_large);
        }
        u32::try_from(bytes - PREFIX_BYTES).map_err(|_| too_large)
    }

    /// The whole frame in one piece, at most `bytes_max` long.
    pub fn encode(&self, bytes_max: usize) -> Result<Bytes, FrameError> {
        let header = self.header(bytes_max)?;
        let mut bytes = BytesMut::with_capacity(self.bytes_count());
        bytes.put_slice(&header);
        bytes.put_slice(&self.body);
        Ok(bytes.freeze())
    }

    /// Reads the one frame that `bytes` is. Its body shares the memory of `bytes`.
    pub fn decode(bytes: &Bytes, bytes_max: usize) -> Result<Self, FrameError> {
        let found = bytes.len();
        match frame_bytes(bytes, bytes_max)? {
            Some(bytes_frame) if bytes_frame == found => Self::from_whole(bytes),
            Some(bytes_frame) => Err(FrameError::Length { expected: bytes_frame, found }),
            None => Err(FrameError::TooShort { bytes: found }),
        }
    }

    /// Takes the frame at the beginning of `buffer` out of it; `None` when more bytes must come.
    ///
    /// The length is refused as soon as it is there, before the caller reserves memory for it. After
    /// an error the buffer's boundaries are lost: close the connection.
    pub fn take_from(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<Self>, FrameError> {
        match frame_bytes(buffer, bytes_max)? {
            Some(bytes_frame) if bytes_frame <= buffer.len() => {
                Self::from_whole(&buffer.split_to(bytes_frame).freeze()).map(Some)
            }
            _ => Ok(None),
        }
    }

    /// Reads a frame whose length is checked and whose bytes are all there.
    fn from_whole(bytes: &Bytes) -> Result<Self, FrameError> {
        let found = crc32c::crc32c(&bytes[PREFIX_BYTES..]);
        let expected = u32::from_le_bytes(field(bytes, 4));
        if found != expected {
            return Err(FrameError::Checksum { expected, found });
        }
        let version = bytes[8];
        if version != FRAME_VERSION {
            return Err(FrameError::Version { version });
        }
        let cluster = u64::from_le_bytes(field(bytes, 20));
        Ok(Self {
            kind: bytes[9],
            exchange: Exchange::from_flags(u16::from_le_bytes(field(bytes, 10)))?,
            call: CallId(u64::from_le_bytes(field(bytes, 12))),
            cluster: (cluster != 0).then_some(ClusterId(cluster)),
            epoch: Epoch(u64::from_le_bytes(field(bytes, 28))),
            body: bytes.slice(FRAME_HEADER_BYTES..),
        })
    }
}

/// How long the frame is that `buffer` begins with, `None` when its length is not all there.
fn frame_bytes(buffer: &[u8], bytes_max: usize) -> Result<Option<usize>, FrameError> {
    let Some(length) = buffer.first_chunk() else {
        return Ok(None);
    };
    let bytes = (u32::from_le_bytes(*length) as usize).saturating_add(PREFIX_BYTES);
    if bytes < FRAME_HEADER_BYTES {
        return Err(FrameError::TooShort { bytes });
    }
    if bytes > bytes_max {
        return Err(FrameError::TooLarge { bytes, bytes_max });
    }
    Ok(Some(bytes))
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("the length was checked to hold a header")
}

/// Which answer belongs to which request on one connection.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

impl CallId {
    /// The id after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.wrapping_add(1))
    }
}

/// What a frame is to the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum Exchange {
    /// Asks; the receiver answers with a response of the same call id.
    Request = 0,
    /// Answers a request that was carried out.
    Response = 1,
    /// Answers a request that was not carried out: the body's first byte is a code, the rest belongs
    /// to it.
    ErrorResponse = 2,
    /// Tells; nothing answers it.
    OneWay = 3,
}

impl Exchange {
    fn from_flags(flags: u16) -> Result<Self, FrameError> {
        if flags & !EXCHANGE_MASK != 0 {
            return Err(FrameError::Flags { flags });
        }
        Ok(match flags & EXCHANGE_MASK {
            0 => Self::Request,
            1 => Self::Response,
            2 => Self::ErrorResponse,
            _ => Self::OneWay,
        })
    }
}

/// The bytes are no frame, or the frame cannot be sent. Nothing changed, and the same bytes will
/// fail again; a connection that produced them is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// The bytes were damaged on their way, or their sender writes something else.
    #[error("the frame's checksum is {found:08x} and its header says {expected:08x}")]
    Checksum {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// A flag is set that this version does not know, so the frame may mean what it cannot do.
    #[error("the frame has unknown flags {flags:016b}")]
    Flags {
        /// All flags of the frame.
        flags: u16,
    },
    /// The bytes are not one frame but part of one, or more than one.
    #[error("the frame has {expected} bytes, and {found} were given")]
    Length {
        /// What the header says.
        expected: usize,
        /// How many bytes there were.
        found: usize,
    },
    /// More than a frame of this connection may have. Send less at once.
    #[error("the frame has {bytes} bytes, and {bytes_max} are allowed")]
    TooLarge {
        /// The bytes of the whole frame.
        bytes: usize,
        /// What is allowed.
        bytes_max: usize,
    },
    /// Less than a header.
    #[error("the frame has {bytes} bytes, and its header alone has {FRAME_HEADER_BYTES}")]
    TooShort {
        /// The bytes that the frame has.
        bytes: usize,
    },
    /// Another version of ClusterKit wrote it.
    #[error("the frame has version {version}, and version {FRAME_VERSION} is read")]
    Version {
        /// The version it has.
        version: u8,
    },
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 4_096;

    fn sample() -> Frame {
        Frame {
            kind: 17,
            exchange: Exchange::ErrorResponse,
            call: CallId(0x0102_0304_0506_0708),
            cluster: Some(ClusterId(0x1112_1314_1516_1718)),
            epoch: Epoch(9),
            body: Bytes::from_static(b"body"),
        }
    }

    #[rustfmt::skip]
    const GOLDEN: [u8; 40] = [
        32, 0, 0, 0,
        0xa3, 0x22, 0x7e, 0x16,
        1, 17, 2, 0,
        8, 7, 6, 5, 4, 3, 2, 1,
        0x18, 0x17, 0x16, 0x15, 0x14, 0x13, 0x12, 0x11,
        9, 0, 0, 0, 0, 0, 0, 0,
        b'b', b'o', b'd', b'y',
    ];

    /// The golden frame with `change` made to it and its checksum made right again.
    fn resealed(change: impl FnOnce(&mut Vec<u8>)) -> Result<Frame, FrameError> {
        let mut bytes = GOLDEN.to_vec();
        change(&mut bytes);
        let checksum = crc32c::crc32c(&bytes[8..]);
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        Frame::decode(&bytes.into(), MAX)
    }

    #[test]
    fn frame_has_these_bytes() {
        assert_eq!(sample().encode(MAX).unwrap()[..], GOLDEN);
        assert_eq!(Frame::decode(&Bytes::from_static(&GOLDEN), MAX), Ok(sample()));
    }

    #[test]
    fn frame_without_cluster_says_zero() {
        let frame = Frame { cluster: None, ..sample() };
        let bytes = frame.encode(MAX).unwrap();
        assert_eq!(bytes[20..28], [0; 8]);
        assert_eq!(Frame::decode(&bytes, MAX), Ok(frame));
    }

    #[test]
    fn every_flipped_bit_is_found() {
        for bit in 0..GOLDEN.len() * 8 {
            let mut bytes = GOLDEN.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Frame::decode(&bytes.into(), MAX).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn every_cut_is_found() {
        for bytes in 0..GOLDEN.len() {
            assert!(Frame::decode(&Bytes::from_static(&GOLDEN[..bytes]), MAX).is_err(), "{bytes} bytes");
        }
        let long = [&GOLDEN[..], b"x"].concat();
        assert_eq!(Frame::decode(&long.into(), MAX), Err(FrameError::Length { expected: 40, found: 41 }));
    }

    #[test]
    fn unknown_version_and_flags_are_refused() {
        assert_eq!(resealed(|bytes| bytes[8] = 2), Err(FrameError::Version { version: 2 }));
        assert_eq!(resealed(|bytes| bytes[10] = 4), Err(FrameError::Flags { flags: 4 }));
        assert_eq!(resealed(|bytes| bytes[11] = 1), Err(FrameError::Flags { flags: 0x102 }));
    }

    #[test]
    fn length_is_refused_before_the_rest_has_come() {
        let check = |length: u32, expect| {
            let mut buffer = BytesMut::from(&length.to_le_bytes()[..]);
            assert_eq!(Frame::take_from(&mut buffer, MAX), expect);
            assert_eq!(buffer.len(), 4);
        };
        check(27, Err(FrameError::TooShort { bytes: 35 }));
        check(28, Ok(None));
        check(4_088, Ok(None));
        check(4_089, Err(FrameError::TooLarge { bytes: 4_097, bytes_max: MAX }));
        check(u32::MAX, Err(FrameError::TooLarge { bytes: 4_294_967_303, bytes_max: MAX }));
    }

    #[test]
    fn frame_that_is_too_large_is_not_written() {
        assert!(sample().encode(40).is_ok());
        assert_eq!(sample().encode(39), Err(FrameError::TooLarge { bytes: 40, bytes_max: 39 }));
    }

    fn any_frame() -> impl Strategy<Value = Frame> {
        let exchange = prop_oneof![
            Just(Exchange::Request),
            Just(Exchange::Response),
            Just(Exchange::ErrorResponse),
            Just(Exchange::OneWay),
        ];
        let body = prop::collection::vec(any::<u8>(), 0..200);
        (any::<u8>(), exchange, any::<u64>(), any::<u64>(), any::<u64>(), body).prop_map(
            |(kind, exchange, call, cluster, epoch, body)| Frame {
                kind,
                exchange,
                call: CallId(call),
                cluster: (cluster != 0).then_some(ClusterId(cluster)),
                epoch: Epoch(epoch),
                body: body.into(),
            },
        )
    }

    proptest! {
        #[test]
        fn frames_are_read_back_from_a_stream_cut_anywhere(
            frames in prop::collection::vec(any_frame(), 1..5),
            piece in 1_usize..50,
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|frame| frame.encode(MAX).unwrap()).collect();
            let mut buffer = BytesMut::new();
            let mut read = Vec::new();
            for part in stream.chunks(piece) {
                buffer.extend_from_slice(part);
                while let Some(frame) = Frame::take_from(&mut buffer, MAX).unwrap() {
                    read.push(frame);
                }
            }
            prop_assert_eq!(read, frames);
            prop_assert!(buffer.is_empty());
        }

        #[test]
        fn random_bytes_never_panic(bytes: Vec<u8>) {
            let _ = Frame::decode(&bytes.clone().into(), MAX);
            let _ = Frame::take_from(&mut BytesMut::from(&bytes[..]), MAX);
        }

        #[test]
        fn random_fields_under_a_right_checksum_never_panic(fields in prop::collection::vec(any::<u8>(), 0..100)) {
            let mut bytes = BytesMut::new();
            bytes.put_u32_le(u32::try_from(fields.len()).unwrap());
            bytes.put_u32_le(crc32c::crc32c(&fields));
            bytes.put_slice(&fields);
            let _ = Frame::decode(&bytes.freeze(), MAX);
        }
    }
}
