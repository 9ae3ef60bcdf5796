//! What one connection is doing, and when it has been silent for too long.

use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use hyper::Version;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::http::limits::{FIRST_REQUEST_TIMEOUT, HEADER_TIMEOUT, IDLE_TIMEOUT};

/// The activity of one connection. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct Activity(watch::Sender<Phase>);

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Nothing since the connection began.
    New { since: Instant },
    /// The head of a request arrives.
    Head { since: Instant },
    /// So many requests are being answered.
    Busy { count: usize, http2: bool },
    /// Nothing since the last answer.
    Idle { since: Instant, http2: bool },
}

impl Phase {
    /// When the connection has been like that for too long.
    fn deadline(self) -> Option<Instant> {
        match self {
            Self::New { since } => Some(since + FIRST_REQUEST_TIMEOUT),
            Self::Head { since } => Some(since + HEADER_TIMEOUT),
            Self::Busy { .. } => None,
            Self::Idle { since, .. } => Some(since + IDLE_TIMEOUT),
        }
    }

    /// Bytes came. On HTTP/2 they may be about the connection alone, so that they begin no request.
    fn read(self, now: Instant) -> Self {
        match self {
            Self::New { .. } | Self::Idle { http2: false, .. } => Self::Head { since: now },
            other => other,
        }
    }

    fn begun(self, http2: bool) -> Self {
        let count = if let Self::Busy { count, .. } = self { count + 1 } else { 1 };
        Self::Busy { count, http2 }
    }

    fn ended(self, now: Instant) -> Self {
        match self {
            Self::Busy { count, http2 } if count > 1 => Self::Busy { count: count - 1, http2 },
            Self::Busy { http2, .. } => Self::Idle { since: now, http2 },
            other => other,
        }
    }
}

impl Activity {
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(Phase::New { since: Instant::now() }))
    }

    /// Bytes came.
    pub(super) fn read(&self) {
        self.change(|phase| phase.read(Instant::now()));
    }

    /// A request came; it lasts until what is returned is dropped.
    pub(super) fn begin(&self, version: Version) -> Count {
        self.change(|phase| phase.begun(version == Version::HTTP_2));
        Count(self.clone())
    }

    /// Ends when the connection should: it did nothing useful for too long.
    pub(super) async fn silence(&self) {
        let mut phases = self.0.subscribe();
        loop {
            let phase = *phases.borrow_and_update();
            // The sender lives in `self`, so that only a change or the deadline ends the wait.
            match phase.deadline() {
                None => drop(phases.changed().await),
                Some(deadline) => {
                    if timeout_at(deadline, phases.changed()).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn change(&self, next: impl FnOnce(Phase) -> Phase) {
        self.0.send_if_modified(|phase| {
            let before = std::mem::replace(phase, next(*phase));
            before != *phase
        });
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct Count(Activity);

impl Drop for Count {
    fn drop(&mut self) {
        self.0.change(|phase| phase.ended(Instant::now()));
    }
}

/// A body whose request counts as being answered until its end.
#[derive(Debug)]
pub(super) struct CountedBody {
    body: Body,
    _count: Count,
}

impl CountedBody {
    pub(super) fn new(body: Body, count: Count) -> Self {
        Self { body, _count: count }
    }
}

impl HttpBody for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn silent_after(activity: &Activity) -> Duration {
        let start = Instant::now();
        activity.silence().await;
        start.elapsed().round_to_seconds()
    }

    trait RoundToSeconds {
        fn round_to_seconds(self) -> Duration;
    }

    impl RoundToSeconds for Duration {
        fn round_to_seconds(self) -> Duration {
            Duration::from_secs_f64(self.as_secs_f64().round())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_says_nothing_ends() {
        assert_eq!(silent_after(&Activity::new()).await, FIRST_REQUEST_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_drips_in_ends_the_connection_all_the_same() {
        let activity = Activity::new();
        let dripping = activity.clone();
        let drip = async move {
            loop {
                dripping.read();
                tokio::time::sleep(Duration::from_secs(3)).await; // tidy: the pace of a slow client, in virtual time
            }
        };
        tokio::select! {
            () = drip => unreachable!("it drips for ever"),
            after = silent_after(&activity) => assert_eq!(after, HEADER_TIMEOUT),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_under_way_keeps_the_connection() {
        let activity = Activity::new();
        let (first, second) = (activity.begin(Version::HTTP_11), activity.begin(Version::HTTP_11));
        drop(first);
        let long = timeout_at(Instant::now() + IDLE_TIMEOUT * 10, activity.silence()).await;
        assert!(long.is_err(), "one request is under way");
        drop(second);
        assert_eq!(silent_after(&activity).await, IDLE_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_without_a_request_are_a_head_on_http_1_only() {
        let check = |version| async move {
            let activity = Activity::new();
            drop(activity.begin(version));
            activity.read();
            silent_after(&activity).await
        };
        assert_eq!(check(Version::HTTP_11).await, HEADER_TIMEOUT);
        assert_eq!(check(Version::HTTP_2).await, IDLE_TIMEOUT);
    }
}
