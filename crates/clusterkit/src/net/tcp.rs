//! The network of the machine.

use std::io;
use std::net::SocketAddr;

use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::{BoxFuture, Connection, Listener, Net};

/// TCP. A name in an address is looked up at each connect, so that a node may move to another
/// address of the same name. Small writes go out at once.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpNet;

impl Net for TcpNet {
    fn listen<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Box<dyn Listener>>> {
        Box::pin(async move {
            let listener = TcpListener::bind(unabbreviated(addr).as_str()).await?;
            let local = listener.local_addr()?.to_string();
            Ok(Box::new(Tcp { listener, local }) as Box<dyn Listener>)
        })
    }

    fn connect<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<Connection>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            let peer = stream.peer_addr()?;
            connection(stream, peer)
        })
    }

    /// Asks the system's routes, without a packet: the other side need not be up yet.
    fn local_host_towards<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<String>> {
        Box::pin(async move {
            let target = tokio::net::lookup_host(addr).await?.next();
            let target = target.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
            let any = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).await?;
            socket.connect(target).await?;
            let host = socket.local_addr()?.ip();
            Ok(if host.is_ipv6() { format!("[{host}]") } else { host.to_string() })
        })
    }
}

/// `:7000` means every address of the machine.
fn unabbreviated(addr: &str) -> String {
    if addr.starts_with(':') { format!("0.0.0.0{addr}") } else { addr.to_owned() }
}

fn connection(stream: TcpStream, peer: SocketAddr) -> io::Result<Connection> {
    stream.set_nodelay(true)?;
    let local = stream.local_addr()?.to_string();
    let (reader, writer) = stream.into_split();
    Ok(Connection::new(Box::new(reader), Box::new(writer), local, peer.to_string()))
}

#[derive(Debug)]
struct Tcp {
    listener: TcpListener,
    local: String,
}

impl Listener for Tcp {
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Connection>> {
        Box::pin(async move {
            let (stream, peer) = self.listener.accept().await?;
            connection(stream, peer).map_err(|_| io::ErrorKind::ConnectionAborted.into())
        })
    }

    fn local_addr(&self) -> String {
        self.local.clone()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn the_way_to_loopback_begins_at_loopback() {
        let host = TcpNet.local_host_towards("127.0.0.1:9").await.unwrap();
        assert_eq!(host, "127.0.0.1", "nobody has to listen there");
        assert!(TcpNet.local_host_towards("no such host:9").await.is_err());
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_the_end_is_seen() {
        let mut listener = TcpNet.listen("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr();
        let (client, server) = tokio::join!(TcpNet.connect(&addr), listener.accept());
        let (mut client, mut server) = (client.unwrap(), server.unwrap());
        assert_eq!(client.peer_addr(), addr);
        assert_eq!(client.local_addr(), server.peer_addr());
        assert_eq!(server.peer_host(), "127.0.0.1");

        client.write_all(b"ask").await.unwrap();
        let mut asked = [0; 3];
        server.read_exact(&mut asked).await.unwrap();
        server.write_all(b"answer").await.unwrap();
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!((&asked, &answer[..]), (b"ask", &b"answer"[..]));
    }

    #[tokio::test]
    async fn nobody_there_is_refused() {
        // Bound and not listening: nobody else can take the port meanwhile.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = socket.local_addr().unwrap().to_string();
        let error = TcpNet.connect(&addr).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }

    #[tokio::test]
    async fn port_alone_listens_on_every_address() {
        let listener = TcpNet.listen(":0").await.unwrap();
        assert!(listener.local_addr().starts_with("0.0.0.0:"));
    }
}
