//! Leases and gates on clocks that the test sets.

mod gate;
mod lease;
mod walk;

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use clusterkit_core::id::{Epoch, NodeId, PartitionId, PartitionVersion};
use clusterkit_core::time::Instant;
use tokio::sync::watch;

use super::*;
use crate::net::{BoxFuture, Clock, WallTime};

pub(super) const PARTITION: PartitionId = PartitionId(5);

/// `millis` after the clock's origin.
pub(super) fn at(millis: u64) -> Instant {
    Instant::at(Duration::from_millis(millis))
}

/// The holders of a record: so many nodes.
fn holders(count: u64) -> Arc<[NodeId]> {
    (1..=count).map(|number| NodeId::new(&format!("n{number}")).expect("a node id")).collect()
}

/// Stands still until it is set.
#[derive(Default)]
pub(super) struct HandClock {
    time: watch::Sender<Instant>,
    /// What happens after the next look at the clock, before the one who looked goes on.
    after_look: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    sleeps: AtomicUsize,
}

impl HandClock {
    fn set(&self, now: Instant) {
        self.time.send_replace(now);
    }

    fn after_look(&self, act: impl FnOnce() + Send + 'static) {
        *self.after_look.lock().expect("no panic") = Some(Box::new(act));
    }
}

impl fmt::Debug for HandClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("HandClock").field(&*self.time.borrow()).finish()
    }
}

impl Clock for HandClock {
    fn now(&self) -> Instant {
        let now = *self.time.borrow();
        let act = self.after_look.lock().expect("no panic").take();
        if let Some(act) = act {
            act();
        }
        now
    }

    fn wall(&self) -> WallTime {
        WallTime(0)
    }

    fn sleep_until(&self, deadline: Instant) -> BoxFuture<'static, ()> {
        self.sleeps.fetch_add(1, Ordering::Relaxed);
        let mut time = self.time.subscribe();
        Box::pin(async move {
            let reached = time.wait_for(|now| *now >= deadline).await;
            assert!(reached.is_ok(), "the clock outlives who sleeps");
        })
    }
}

/// The leases of one node on a clock set by hand.
struct House {
    clock: Arc<HandClock>,
    leases: Leases,
    gate: Arc<Gate>,
}

impl House {
    fn new() -> Self {
        let clock = Arc::new(HandClock::default());
        let leases = Leases::new(Arc::new(Support::new(clock.clone())));
        let gate = leases.gate(PARTITION);
        Self { clock, leases, gate }
    }

    /// Supported for so long, leading under epoch 1 and version 1.
    fn leading(until: Instant) -> Self {
        let house = Self::new();
        house.leases.support().extend(until);
        house.open(1, 1);
        house
    }

    fn open(&self, epoch: u64, version: u64) {
        self.gate.open(Epoch(epoch), PartitionVersion(version), holders(version));
    }

    fn adopt(&self, version: u64) {
        self.gate.adopt(PartitionVersion(version), holders(version));
    }

    fn lead(&self) -> Lease {
        self.leases.lead(PARTITION).expect("it leads")
    }
}

/// A future that is polled only when it was woken.
struct Waiting<T> {
    future: Pin<Box<dyn Future<Output = T>>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl<T> Waiting<T> {
    fn new(future: impl Future<Output = T> + 'static) -> Self {
        Self { future: Box::pin(future), woken: Arc::new(Woken(AtomicBool::new(true))) }
    }

    fn poll(&mut self) -> Poll<T> {
        if !self.woken.0.swap(false, Ordering::Relaxed) {
            return Poll::Pending;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        self.future.as_mut().poll(&mut Context::from_waker(&waker))
    }
}
