//! The first words on a connection, from both sides.

use std::io;
use std::sync::Arc;

use clusterkit_core::id::ClusterId;
use clusterkit_wire::frame::{Exchange, Frame, FrameError, kind};
use clusterkit_wire::hello::{
    Class, Hello, HelloError, Identity, PREFACE, PROTOCOLS, Refusal, Refused, Welcome, agree,
};
use clusterkit_wire::limits::HELLO_BYTES_MAX;
use clusterkit_wire::versioned::DecodeError;
use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::Shared;
use super::limits::{CONNECT_TIMEOUT, HELLO_TIMEOUT};
use super::stream::{FrameReader, FrameWriter, PrefaceError, ReadError, own_frame};
use crate::net::Connection;

/// A connection on which both sides know who the other is.
pub(super) struct Greeted {
    pub(super) reader: FrameReader,
    pub(super) writer: FrameWriter,
    pub(super) peer: Arc<Identity>,
    pub(super) class: Class,
}

/// Why no connection stands. Nothing was sent on it but a hello.
#[derive(Debug, Clone)]
pub(super) enum DialError {
    Io(Arc<io::Error>),
    NotClusterKit { looks_like_http: bool },
    Refused(Box<Refused>),
    TimedOut,
}

/// Connects to `addr` and says hello.
pub(super) async fn dial(shared: &Shared, addr: &str, class: Class) -> Result<Greeted, DialError> {
    let connecting = timeout(CONNECT_TIMEOUT, shared.net.connect(addr));
    let connection = connecting.await.map_err(|_| DialError::TimedOut)??;
    let introducing = timeout(HELLO_TIMEOUT, introduce(connection, class, shared.own()));
    introducing.await.map_err(|_| DialError::TimedOut)?
}

async fn introduce(connection: Connection, class: Class, own: Identity) -> Result<Greeted, DialError> {
    let (read_half, write_half) = connection.into_halves();
    let mut reader = FrameReader::new(read_half, HELLO_BYTES_MAX);
    let mut writer = FrameWriter::new(write_half, class.frame_bytes_max());
    let cluster = own.cluster;
    // A node that is busy answers and closes without listening, so that writing fails while its
    // answer is there to be read.
    let said = say(&mut writer, own_frame(kind::HELLO, cluster, Hello::new(class, own).encode())).await;
    let answer = hear_answer(&mut reader).await;
    if let (Err(error), Err(DialError::Io(_))) = (said, &answer) {
        return Err(error.into());
    }
    let peer = answer?;
    if let Some(reason) = other_cluster(&peer, cluster) {
        return Err(DialError::Refused(Box::new(Refused { reason, identity: peer })));
    }
    reader.set_bytes_max(class.frame_bytes_max());
    Ok(Greeted { reader, writer, peer: Arc::new(peer), class })
}

async fn say(writer: &mut FrameWriter, frame: Frame) -> io::Result<()> {
    writer.preface().await?;
    writer.send(&frame).await
}

async fn hear_answer(reader: &mut FrameReader) -> Result<Identity, DialError> {
    reader.preface(HELLO_TIMEOUT).await?;
    let frame = reader.next(HELLO_TIMEOUT).await?;
    match (frame.kind, frame.exchange) {
        (kind::WELCOME, Exchange::Response) => welcomed(Welcome::decode(&frame.body)?),
        (kind::REFUSED, Exchange::ErrorResponse) => {
            Err(DialError::Refused(Box::new(Refused::decode(&frame.body)?)))
        }
        _ => Err(DialError::NotClusterKit { looks_like_http: false }),
    }
}

fn welcomed(welcome: Welcome) -> Result<Identity, DialError> {
    if PROTOCOLS.contains(&welcome.protocol) {
        return Ok(welcome.identity);
    }
    let reason = Refusal::ProtocolUnknown { min: welcome.protocol, max: welcome.protocol };
    Err(DialError::Refused(Box::new(Refused { reason, identity: welcome.identity })))
}

/// Two nodes that each have a cluster must have the same one.
pub(super) fn differ(one: Option<ClusterId>, other: Option<ClusterId>) -> bool {
    one.zip(other).is_some_and(|(one, other)| one != other)
}

/// Why a node of cluster `dialling` has nothing to say to `answering`.
fn other_cluster(answering: &Identity, dialling: Option<ClusterId>) -> Option<Refusal> {
    let cluster = answering.cluster.filter(|_| differ(answering.cluster, dialling))?;
    Some(Refusal::OtherCluster { cluster, name: answering.cluster_name.clone() })
}

/// Hears the hello on a connection that came in, and answers it. A connection that
/// stands takes a seat.
pub(super) async fn answer(
    shared: &Shared,
    connection: Connection,
) -> Result<(Greeted, OwnedSemaphorePermit), AnswerError> {
    let (read_half, write_half) = connection.into_halves();
    let mut reader = FrameReader::new(read_half, HELLO_BYTES_MAX);
    let mut writer = FrameWriter::new(write_half, HELLO_BYTES_MAX);
    reader.preface(HELLO_TIMEOUT).await?;
    let heard = hear_hello(&mut reader).await?;
    let own = shared.own();
    let judged = heard.and_then(|hello| judge(&own, hello));
    let seated = judged.and_then(|judged| match shared.seats.clone().try_acquire_owned() {
        Ok(seat) => Ok((judged, seat)),
        Err(_) => Err(Refusal::Busy),
    });
    let ((protocol, hello), seat) = match seated {
        Ok(seated) => seated,
        Err(reason) => return Err(refuse(&mut writer, &own, reason).await),
    };
    let cluster = own.cluster;
    let welcome = Welcome { protocol, identity: own };
    say(&mut writer, own_frame(kind::WELCOME, cluster, welcome.encode())).await.map_err(ReadError::Io)?;
    let bytes_max = hello.class.frame_bytes_max();
    reader.set_bytes_max(bytes_max);
    writer.set_bytes_max(bytes_max);
    Ok((Greeted { reader, writer, peer: Arc::new(hello.identity), class: hello.class }, seat))
}

async fn refuse(writer: &mut FrameWriter, own: &Identity, reason: Refusal) -> AnswerError {
    // Whoever does not wait for the reason does without it.
    if say(writer, refusal(own, reason.clone())).await.is_ok() {
        let _ = writer.shutdown().await;
    }
    AnswerError::Refused(reason)
}

/// The hello, or why it is refused; fails when there is nobody to answer to.
async fn hear_hello(reader: &mut FrameReader) -> Result<Result<Hello, Refusal>, AnswerError> {
    match reader.next(HELLO_TIMEOUT).await {
        Ok(frame) if (frame.kind, frame.exchange) == (kind::HELLO, Exchange::Request) => {
            Ok(Hello::decode(&frame.body).map_err(|error| unreadable(&error)))
        }
        Ok(_) => Ok(Err(Refusal::Malformed)),
        Err(ReadError::Frame(FrameError::TooLarge { .. })) => Ok(Err(Refusal::MessageTooLarge)),
        Err(ReadError::Frame(_)) => Ok(Err(Refusal::Malformed)),
        Err(error) => Err(error.into()),
    }
}

fn unreadable(error: &HelloError) -> Refusal {
    match error {
        HelloError::Decode(DecodeError::Version { .. }) => protocols_known(),
        _ => Refusal::Malformed,
    }
}

fn protocols_known() -> Refusal {
    Refusal::ProtocolUnknown { min: *PROTOCOLS.start(), max: *PROTOCOLS.end() }
}

fn judge(own: &Identity, hello: Hello) -> Result<(u16, Hello), Refusal> {
    let Some(protocol) = agree(&PROTOCOLS, &hello.protocols()) else {
        return Err(protocols_known());
    };
    let theirs = &hello.identity;
    if let Some(reason) = other_cluster(own, theirs.cluster) {
        return Err(reason);
    }
    if theirs.node == own.node && theirs.store != own.store {
        return Err(Refusal::NodeIdClash { node: own.node.clone(), addr: own.node_addr.clone() });
    }
    Ok((protocol, hello))
}

fn refusal(own: &Identity, reason: Refusal) -> Frame {
    let refused = Refused { reason, identity: own.clone() };
    own_frame(kind::REFUSED, own.cluster, refused.encode())
}

/// Tells a connection for which there is no room that this node is busy, if that can be done without
/// waiting. Without it, one who asks whether this node lives would take the close for its death.
pub(super) fn turn_away(mut connection: Connection, own: &Identity) {
    let Ok(frame) = refusal(own, Refusal::Busy).encode(HELLO_BYTES_MAX) else {
        return;
    };
    let bytes = [&PREFACE[..], &frame].concat();
    let _ = connection.write_all(&bytes).now_or_never();
}

/// Why a connection that came in does not stand.
#[derive(Debug, thiserror::Error)]
pub(super) enum AnswerError {
    #[error(transparent)]
    Preface(#[from] PrefaceError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("refused: {0}")]
    Refused(Refusal),
}

impl From<io::Error> for DialError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<ReadError> for DialError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Ended => Self::from(io::Error::from(io::ErrorKind::UnexpectedEof)),
            ReadError::Frame(_) => Self::NotClusterKit { looks_like_http: false },
            ReadError::Io(error) => Self::from(error),
            ReadError::Silent => Self::TimedOut,
        }
    }
}

impl From<PrefaceError> for DialError {
    fn from(error: PrefaceError) -> Self {
        match error {
            PrefaceError::Read(error) => error.into(),
            PrefaceError::Stranger { looks_like_http } => Self::NotClusterKit { looks_like_http },
        }
    }
}

impl From<HelloError> for DialError {
    fn from(_: HelloError) -> Self {
        Self::NotClusterKit { looks_like_http: false }
    }
}
