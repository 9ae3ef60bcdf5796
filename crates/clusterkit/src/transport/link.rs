//! Outgoing connections: one for each address and class, dialled when there is something to say.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use clusterkit_core::id::Epoch;
use clusterkit_wire::frame::{CallId, Exchange, Frame, kind};
use clusterkit_wire::hello::{Class, Identity};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::call::{Attempt, Call, Claim, Parcel, Waiting};
use super::handshake::{DialError, Greeted, dial, differ};
use super::limits::{
    BATCH_MAX, BODY_BYTES_MAX, CALL_QUEUE_MAX, DIAL_BACKOFF_MAX, DIAL_BACKOFF_MIN, LINK_ADDRS_MAX,
    LINK_IDLE_MAX, SILENCE_MAX,
};
use super::stream::{FrameReader, FrameWriter, ReadError, own_frame};
use super::{CallError, NotSent, Shared};

/// The links of this node, by address.
#[derive(Default)]
pub(super) struct Links {
    table: Mutex<BTreeMap<String, [Option<LinkHandle>; Class::ALL.len()]>>,
}

impl Links {
    /// The link to `addr`, which is made if there is none.
    pub(super) fn open(shared: &Arc<Shared>, addr: &str, class: Class) -> Result<LinkHandle, CallError> {
        let mut table = shared.links.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(link) = table.get(addr).and_then(|links| links[class.index()].as_ref()) {
            if !link.calls.is_closed() {
                return Ok(link.clone());
            }
        } else if table.len() >= LINK_ADDRS_MAX && !table.contains_key(addr) {
            return Err(CallError::NotSent { reason: NotSent::TooManyLinks });
        }
        let link = Link::spawn(shared, addr, class);
        table.entry(addr.to_owned()).or_default()[class.index()] = Some(link.clone());
        Ok(link)
    }

    #[cfg(test)]
    pub(super) fn addrs_count(&self) -> usize {
        self.table.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Forgets the link to `addr` if it has ended; one that took its place stays.
    fn forget_ended(&self, addr: &str, class: Class) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(links) = table.get_mut(addr) else {
            return;
        };
        links[class.index()].take_if(|link| link.calls.is_closed());
        if links.iter().all(Option::is_none) {
            table.remove(addr);
        }
    }
}

/// The caller's side of a link.
#[derive(Clone)]
pub(super) struct LinkHandle {
    calls: mpsc::Sender<Call>,
    /// The bytes of bodies that may wait in the queue.
    room: Arc<Semaphore>,
}

impl LinkHandle {
    pub(super) async fn call(&self, parcel: Parcel, deadline: Instant) -> Attempt<Bytes> {
        let claim = Arc::new(Claim::default());
        let done = timeout_at(deadline, self.exchange(parcel, claim.clone())).await;
        match done {
            Ok(Some(result)) => Attempt::Done(result),
            Ok(None) if claim.win() => Attempt::LinkEnded,
            Ok(None) => Attempt::Done(Err(CallError::Lost)),
            Err(_) if claim.win() => Attempt::Done(Err(CallError::NotSent { reason: NotSent::TimedOut })),
            Err(_) => Attempt::Done(Err(CallError::TimedOut)),
        }
    }

    /// Queues the call and waits for its end; `None` when link or connection ended before that.
    async fn exchange(&self, parcel: Parcel, claim: Arc<Claim>) -> Option<Result<Bytes, CallError>> {
        let (answer, answered) = oneshot::channel();
        let room = self.room.clone().acquire_many_owned(parcel.body_permits()).await.ok()?;
        let call = Call { parcel, claim, answer: Some(answer), room };
        self.calls.send(call).await.ok()?;
        answered.await.ok()
    }

    pub(super) fn notify(&self, parcel: Parcel) -> Attempt<()> {
        let full = || Attempt::Done(Err(CallError::NotSent { reason: NotSent::QueueFull }));
        let Ok(room) = self.room.clone().try_acquire_many_owned(parcel.body_permits()) else {
            return full();
        };
        match self.calls.try_send(Call { parcel, claim: Arc::default(), answer: None, room }) {
            Ok(()) => Attempt::Done(Ok(())),
            Err(TrySendError::Full(_)) => full(),
            Err(TrySendError::Closed(_)) => Attempt::LinkEnded,
        }
    }
}

/// The task behind a link: it dials, writes the calls, and dials again after a loss.
struct Link {
    shared: Arc<Shared>,
    addr: String,
    class: Class,
    calls: mpsc::Receiver<Call>,
    /// A call that was taken out of the queue and has no connection yet.
    held: Option<Call>,
    /// Dials that failed since one succeeded.
    failures: u32,
}

impl Link {
    fn spawn(shared: &Arc<Shared>, addr: &str, class: Class) -> LinkHandle {
        let (sender, calls) = mpsc::channel(CALL_QUEUE_MAX);
        let room = Arc::new(Semaphore::new(BODY_BYTES_MAX));
        let (shared, addr) = (shared.clone(), addr.to_owned());
        let stop = shared.stop.clone();
        let tracker = shared.tracker.clone();
        let link = Self { shared, addr, class, calls, held: None, failures: 0 };
        tracker.spawn(async move { stop.run_until_cancelled(link.run()).await });
        LinkHandle { calls: sender, room }
    }

    async fn run(mut self) {
        while self.has_call().await {
            match dial(&self.shared, &self.addr, self.class).await {
                Ok(greeted) => match self.converse(greeted).await {
                    End::Idle => break,
                    End::Lost => {}
                },
                Err(error) => self.back_off(&error).await,
            }
        }
        // A call that comes in between is dropped unsent, and its caller tries with a new link.
        self.calls.close();
        self.shared.links.forget_ended(&self.addr, self.class);
    }

    /// Waits for something to say, but not for ever.
    async fn has_call(&mut self) -> bool {
        if self.held.is_none() {
            self.held = timeout(LINK_IDLE_MAX, self.calls.recv()).await.ok().flatten();
        }
        self.held.is_some()
    }

    /// Fails every call until the next dial is due: whoever has another node to ask shall ask it now.
    async fn back_off(&mut self, error: &DialError) {
        debug!(addr = self.addr, class = ?self.class, ?error, "cannot reach a node");
        self.failures = self.failures.saturating_add(1);
        let due = Instant::now() + backoff(self.failures);
        let mut next = self.held.take();
        while let Some(call) = next {
            call.fail(error.clone().into());
            next = timeout_at(due, self.calls.recv()).await.ok().flatten();
        }
    }

    /// Speaks on one connection until it ends.
    async fn converse(&mut self, greeted: Greeted) -> End {
        self.failures = 0;
        let Greeted { reader, writer, peer, .. } = greeted;
        let closed = self.shared.stop.child_token();
        let waiting = Arc::new(Waiting::default());
        let ear = Ear { shared: self.shared.clone(), reader, waiting: waiting.clone() };
        self.shared.tracker.spawn(ear.run(closed.clone(), self.addr.clone()));
        let mouth = Mouth::new(self.shared.clone(), writer, waiting.clone(), peer.clone());
        let spoken = closed.run_until_cancelled(self.speak(mouth)).await;
        closed.cancel();
        waiting.lose_all();
        match spoken {
            Some(Ok(())) => End::Idle,
            Some(Err(_)) | None => {
                self.shared.report_loss(&peer.node, &self.addr);
                End::Lost
            }
        }
    }

    /// Writes calls, or signs of life, until the link is idle.
    async fn speak(&mut self, mut mouth: Mouth) -> io::Result<()> {
        loop {
            match self.next_step(&mouth).await {
                Step::Call(call, in_flight) => self.speak_calls(&mut mouth, call, in_flight).await?,
                Step::Ping if mouth.is_idle() => return mouth.bye().await,
                Step::Ping => mouth.ping().await?,
                Step::NoMoreCalls => return mouth.bye().await,
            }
        }
    }

    async fn next_step(&mut self, mouth: &Mouth) -> Step {
        let ping_due = mouth.writer.ping_due();
        tokio::select! {
            biased;
            step = self.next_call(&mouth.in_flight) => step,
            () = sleep_until(ping_due) => Step::Ping,
        }
    }

    /// The next call, as soon as one more may be in flight. Dropping the future loses none.
    async fn next_call(&mut self, in_flight: &Arc<Semaphore>) -> Step {
        let Ok(permit) = in_flight.clone().acquire_owned().await else {
            return Step::NoMoreCalls;
        };
        if let Some(call) = self.held.take() {
            return Step::Call(call, permit);
        }
        self.calls.recv().await.map_or(Step::NoMoreCalls, |call| Step::Call(call, permit))
    }

    /// Writes `call` and those that wait behind it, then flushes.
    async fn speak_calls(
        &mut self,
        mouth: &mut Mouth,
        call: Call,
        in_flight: OwnedSemaphorePermit,
    ) -> io::Result<()> {
        mouth.say(call, in_flight).await?;
        for _ in 1..BATCH_MAX {
            let Ok(in_flight) = mouth.in_flight.clone().try_acquire_owned() else {
                break;
            };
            let Ok(call) = self.calls.try_recv() else {
                break;
            };
            mouth.say(call, in_flight).await?;
        }
        mouth.flush().await
    }
}

fn backoff(failures: u32) -> Duration {
    let doubled = DIAL_BACKOFF_MIN.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
    doubled.min(DIAL_BACKOFF_MAX)
}

/// How a conversation ended.
enum End {
    /// It was no longer needed.
    Idle,
    /// Without this node's doing.
    Lost,
}

enum Step {
    Call(Call, OwnedSemaphorePermit),
    NoMoreCalls,
    Ping,
}

/// The writing side of one connection.
struct Mouth {
    shared: Arc<Shared>,
    writer: FrameWriter,
    waiting: Arc<Waiting>,
    in_flight: Arc<Semaphore>,
    peer: Arc<Identity>,
    call_next: CallId,
    called_at: Instant,
}

impl Mouth {
    fn new(shared: Arc<Shared>, writer: FrameWriter, waiting: Arc<Waiting>, peer: Arc<Identity>) -> Self {
        let in_flight = Arc::new(Semaphore::new(shared.limits.in_flight_max));
        let (call_next, called_at) = (CallId::default().next(), Instant::now());
        Self { shared, writer, waiting, in_flight, peer, call_next, called_at }
    }

    /// Writes one call. It counts as sent from here on, whatever becomes of it.
    async fn say(&mut self, call: Call, in_flight: OwnedSemaphorePermit) -> io::Result<()> {
        let Some(call) = call.take_for(&self.peer.node) else {
            return Ok(());
        };
        let id = self.call_next;
        self.call_next = id.next();
        let exchange = if call.answer.is_some() { Exchange::Request } else { Exchange::OneWay };
        if let Some(answer) = call.answer {
            self.waiting.insert(id, answer, in_flight);
        }
        let (kind, body) = (call.parcel.kind, call.parcel.body);
        let cluster = self.shared.cluster();
        let frame = Frame { kind, exchange, call: id, cluster, epoch: Epoch::default(), body };
        self.writer.write(&frame).await?;
        drop(call.room);
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.writer.flush().await?;
        self.called_at = Instant::now();
        Ok(())
    }

    fn is_idle(&self) -> bool {
        self.called_at.elapsed() >= LINK_IDLE_MAX && self.waiting.is_empty()
    }

    async fn ping(&mut self) -> io::Result<()> {
        self.writer.send(&own_frame(kind::PING, self.shared.cluster(), Vec::new())).await
    }

    async fn bye(&mut self) -> io::Result<()> {
        self.writer.send(&own_frame(kind::BYE, self.shared.cluster(), Vec::new())).await?;
        self.writer.shutdown().await
    }
}

/// The reading side of one connection: it brings answers to those who wait for them.
struct Ear {
    shared: Arc<Shared>,
    reader: FrameReader,
    waiting: Arc<Waiting>,
}

impl Ear {
    async fn run(mut self, closed: CancellationToken, addr: String) {
        if let Some(error) = closed.run_until_cancelled(self.hear()).await {
            debug!(addr, %error, "a connection to a node ended");
        }
        closed.cancel();
    }

    async fn hear(&mut self) -> HearError {
        loop {
            let heard = match self.reader.next(SILENCE_MAX).await {
                Ok(frame) => self.take(&frame),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = heard {
                return error;
            }
        }
    }

    fn take(&self, frame: &Frame) -> Result<(), HearError> {
        if differ(frame.cluster, self.shared.cluster()) {
            return Err(HearError::OtherCluster);
        }
        match frame.exchange {
            Exchange::Response => self.waiting.resolve(frame.call, Ok(frame.body.clone())),
            Exchange::ErrorResponse => self.waiting.resolve(frame.call, Err(remote(&frame.body)?)),
            Exchange::OneWay if frame.kind == kind::PING => {}
            Exchange::OneWay | Exchange::Request => return Err(HearError::Unexpected { kind: frame.kind }),
        }
        Ok(())
    }
}

fn remote(body: &Bytes) -> Result<CallError, HearError> {
    let code = *body.first().ok_or(HearError::NoCode)?;
    Ok(CallError::Remote { code, body: body.slice(1..) })
}

/// Why a connection is no longer read.
#[derive(Debug, thiserror::Error)]
pub(super) enum HearError {
    #[error("an error came without its code")]
    NoCode,
    #[error("the other node joined another cluster")]
    OtherCluster,
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("a frame of kind {kind} has no place here")]
    Unexpected { kind: u8 },
}

impl From<DialError> for CallError {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Io(error) => Self::NotSent { reason: NotSent::Unreachable(error) },
            DialError::NotClusterKit { looks_like_http } => Self::NotClusterKit { looks_like_http },
            DialError::Refused(refused) => Self::Refused { reason: refused.reason },
            DialError::TimedOut => Self::NotSent { reason: NotSent::TimedOut },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_up_to_its_bound() {
        let check = |failures, millis| assert_eq!(backoff(failures), Duration::from_millis(millis));
        check(1, 20);
        check(2, 40);
        check(6, 640);
        check(7, 1_000);
        check(u32::MAX, 1_000);
    }
}
