use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::*;

const LONG: Duration = Duration::from_secs(3_600);

struct Pair {
    net: MemNet,
    listener: Box<dyn Listener>,
    client: Connection,
    server: Connection,
}

/// A connection from host `a` to host `b`.
async fn pair() -> Pair {
    let net = MemNet::new();
    let mut listener = net.host("b").listen("b:7000").await.unwrap();
    let client = net.host("a").connect("b:7000").await.unwrap();
    let server = listener.accept().await.unwrap();
    Pair { net, listener, client, server }
}

async fn read(connection: &mut Connection) -> io::Result<String> {
    let mut buffer = [0; 64];
    let count = connection.read(&mut buffer).await?;
    Ok(String::from_utf8_lossy(&buffer[..count]).into_owned())
}

fn kind<T: fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
    result.unwrap_err().kind()
}

#[tokio::test(start_paused = true)]
async fn bytes_go_both_ways_and_the_end_is_seen() {
    let Pair { mut client, mut server, .. } = pair().await;
    assert_eq!((client.peer_addr(), server.peer_host()), ("b:7000", "a"));
    client.write_all(b"ask").await.unwrap();
    assert_eq!(read(&mut server).await.unwrap(), "ask");
    server.write_all(b"answer").await.unwrap();
    drop(server);
    assert_eq!(read(&mut client).await.unwrap(), "answer");
    assert_eq!(read(&mut client).await.unwrap(), "");
    assert_eq!(kind(client.write_all(b"x").await), io::ErrorKind::BrokenPipe);
}

#[tokio::test(start_paused = true)]
async fn writer_waits_for_a_reader_that_is_slow() {
    let Pair { mut client, mut server, .. } = pair().await;
    let bytes = vec![7; 1_000_000];
    assert!(timeout(LONG, client.write_all(&bytes)).await.is_err());
    let rest = tokio::spawn(async move {
        let mut read = Vec::new();
        server.read_to_end(&mut read).await.map(|_| read.len())
    });
    client.write_all(b"end").await.unwrap();
    drop(client);
    assert_eq!(rest.await.unwrap().unwrap(), 256 * 1024 + 3);
}

#[tokio::test(start_paused = true)]
async fn blocked_bytes_wait_and_arrive_when_the_block_is_lifted() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    net.block("a", "b");
    client.write_all(b"late").await.unwrap();
    assert!(timeout(LONG, read(&mut server)).await.is_err());
    server.write_all(b"other way").await.unwrap();
    assert_eq!(read(&mut client).await.unwrap(), "other way");
    let reading = tokio::spawn(async move { read(&mut server).await.unwrap() });
    tokio::task::yield_now().await;
    net.unblock("a", "b");
    assert_eq!(reading.await.unwrap(), "late");
}

#[tokio::test(start_paused = true)]
async fn partition_stops_connecting_until_it_heals() {
    let Pair { net, mut listener, .. } = pair().await;
    net.partition(&[&["a"], &["b", "c"]]);
    let (a, c) = (net.host("a"), net.host("c"));
    assert!(timeout(LONG, a.connect("b:7000")).await.is_err());
    c.connect("b:7000").await.unwrap();
    listener.accept().await.unwrap();
    let connecting = tokio::spawn(async move { a.connect("b:7000").await.map(drop) });
    tokio::task::yield_now().await;
    net.heal();
    connecting.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn killed_host_resets_and_refuses_until_it_lives_again() {
    let Pair { net, mut listener, mut client, mut server } = pair().await;
    let old = net.host("b");
    server.write_all(b"never read").await.unwrap();
    net.kill("b");
    assert_eq!(kind(read(&mut client).await), io::ErrorKind::ConnectionReset);
    assert_eq!(kind(read(&mut server).await), io::ErrorKind::ConnectionReset);
    assert_eq!(kind(server.write_all(b"x").await), io::ErrorKind::ConnectionReset);
    assert_eq!(kind(net.host("a").connect("b:7000").await), io::ErrorKind::ConnectionRefused);
    assert_eq!(kind(old.connect("a:1").await), io::ErrorKind::NetworkDown);
    assert_eq!(kind(old.listen("b:7000").await), io::ErrorKind::NetworkDown);
    assert_eq!(kind(listener.accept().await), io::ErrorKind::NetworkDown);

    let mut again = net.host("b").listen(":7000").await.unwrap();
    drop(listener);
    net.host("a").connect("b:7000").await.unwrap();
    again.accept().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn block_hides_that_the_other_host_was_killed() {
    let Pair { net, mut client, .. } = pair().await;
    net.partition(&[&["a"], &["b"]]);
    net.kill("b");
    client.write_all(b"unheard").await.unwrap();
    assert!(timeout(LONG, read(&mut client)).await.is_err());
    net.heal();
    assert_eq!(kind(read(&mut client).await), io::ErrorKind::ConnectionReset);
}

#[tokio::test(start_paused = true)]
async fn delay_holds_every_piece_for_as_long_and_no_longer() {
    let Pair { net, mut client, mut server, .. } = pair().await;
    let latency = Duration::from_millis(50);
    net.delay("a", "b", latency);
    let start = Instant::now();
    client.write_all(b"one").await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await; // tidy: the clock is paused
    client.write_all(b"two").await.unwrap();
    assert_eq!(read(&mut server).await.unwrap(), "one");
    assert_eq!(start.elapsed(), latency);
    assert_eq!(read(&mut server).await.unwrap(), "two");
    assert_eq!(start.elapsed(), latency + Duration::from_millis(20));
    server.write_all(b"back").await.unwrap();
    assert_eq!(read(&mut client).await.unwrap(), "back");
    assert_eq!(start.elapsed(), latency + Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn addresses_are_taken_once_and_belong_to_their_host() {
    let net = MemNet::new();
    let host = net.host("a");
    let listener = host.listen("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr();
    assert!(addr.starts_with("a:"));
    assert_eq!(kind(host.listen(&addr).await), io::ErrorKind::AddrInUse);
    assert_eq!(kind(host.listen("b:7000").await), io::ErrorKind::AddrNotAvailable);
    assert_eq!(kind(host.connect("b").await), io::ErrorKind::InvalidInput);
    drop(listener);
    assert_eq!(kind(host.connect(&addr).await), io::ErrorKind::ConnectionRefused);
    host.listen(&addr).await.unwrap();
}
