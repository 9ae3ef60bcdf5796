//! Serving a router on a listener: HTTP/1.1 and HTTP/2 on one port, within [`limits`](super::limits).

mod activity;
mod admission;
mod stream;

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::middleware::from_fn_with_state;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

use self::activity::{Activity, CountedBody};
use self::admission::{Admission, Place};
use self::stream::WatchedStream;
use super::edge::{Outer, outer_edge};
use super::limits::{
    ACCEPT_PAUSE, CLOSE_TIMEOUT, HEADER_BYTES_MAX, SHUTDOWN_GRACE, STREAMS_PER_CONNECTION_MAX,
};
use super::request::Closing;
use crate::handle::ClusterKit;

/// Serves `router` on `listener` until `stop` is cancelled, and then until the requests under way are
/// answered, for [`SHUTDOWN_GRACE`](super::limits::SHUTDOWN_GRACE) at most.
///
/// One port takes HTTP/1.1 and HTTP/2 without TLS, gRPC included when the router has it. Every answer
/// carries `ck-topology` and `x-request-id`, and a bare error of any route becomes a problem document.
/// What waits for news (long polls, streams of events) ends when `stop` is cancelled. The bounds stand
/// in [`limits`](super::limits).
pub async fn serve(ck: &ClusterKit, listener: TcpListener, router: Router, stop: CancellationToken) {
    let router = router.layer(from_fn_with_state(Outer::new(ck), outer_edge));
    let port =
        Port { router, stop: stop.clone(), abort: CancellationToken::new(), tracker: TaskTracker::new() };
    let admission = Admission::default();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => port.take(stream, peer, &admission),
                Err(error) => {
                    tracing::warn!(target: "clusterkit::http", %error, "a connection could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    port.wind_down().await;
}

/// What the connections of one port share.
#[derive(Clone)]
struct Port {
    router: Router,
    /// No new requests.
    stop: CancellationToken,
    /// The time for those under way is up.
    abort: CancellationToken,
    tracker: TaskTracker,
}

impl Port {
    fn take(&self, stream: TcpStream, peer: SocketAddr, admission: &Admission) {
        let Some(place) = admission.admit(peer.ip()) else {
            tracing::debug!(target: "clusterkit::http", %peer, "too many connections: this one is closed");
            return;
        };
        // Small answers leave at once; where that cannot be had, they are a little later.
        drop(stream.set_nodelay(true));
        self.tracker.spawn(self.clone().serve(stream, peer, place));
    }

    async fn wind_down(self) {
        self.tracker.close();
        if timeout(SHUTDOWN_GRACE, self.tracker.wait()).await.is_err() {
            self.abort.cancel();
            self.tracker.wait().await;
        }
    }

    /// Serves one connection to its end.
    async fn serve(self, stream: TcpStream, peer: SocketAddr, _place: Place) {
        let activity = Activity::new();
        let io = TokioIo::new(WatchedStream::new(stream, activity.clone()));
        let builder = builder(Tracked(self.tracker.clone()));
        let served = service_fn(|request| self.answer(request, peer, &activity));
        let mut connection = pin!(builder.serve_connection(io, served));
        let closing = tokio::select! {
            ended = connection.as_mut() => return note(ended, peer),
            () = activity.silence() => CLOSE_TIMEOUT,
            () = self.stop.cancelled() => SHUTDOWN_GRACE,
            () = self.abort.cancelled() => return,
        };
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            ended = timeout(closing, connection.as_mut()) => if let Ok(ended) = ended { note(ended, peer) },
            () = self.abort.cancelled() => {}
        }
    }

    fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
        activity: &Activity,
    ) -> impl Future<Output = Result<Response<CountedBody>, Infallible>> + Send + use<> {
        let count = activity.begin(request.version());
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        request.extensions_mut().insert(Closing(self.stop.clone()));
        let mut router = self.router.clone();
        async move { Ok(router.call(request).await?.map(|body| CountedBody::new(body, count))) }
    }
}

fn builder(executor: Tracked) -> Builder<Tracked> {
    let mut builder = Builder::new(executor);
    // Times are kept by `Activity`, for both protocols alike.
    builder.http1().header_read_timeout(None).max_buf_size(HEADER_BYTES_MAX);
    let header_bytes_max = u32::try_from(HEADER_BYTES_MAX).unwrap_or(u32::MAX);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(header_bytes_max);
    builder
}

fn note(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>, peer: SocketAddr) {
    if let Err(error) = ended {
        tracing::debug!(target: "clusterkit::http", %error, %peer, "a connection broke");
    }
}

/// Spawns the tasks of HTTP/2 requests where they are waited for.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> Executor<F> for Tracked
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn(future);
    }
}
