//! As little HTTP as a lab needs: a client whose connections come from a
//! machine of the lab, and the server behind the load balancers.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;

use crate::netns::Netns;

/// The answer to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The body, as text.
    pub body: String,
}

/// Requests `path` over a new connection from a machine of the lab.
pub async fn get(from: &Netns, to: SocketAddr, path: &str, timeout: Duration) -> Result<Response> {
    tokio::time::timeout(timeout, exchange(from, to, path))
        .await
        .with_context(|| format!("{to} did not answer within {timeout:?}"))?
}

async fn exchange(from: &Netns, to: SocketAddr, path: &str) -> Result<Response> {
    Connection::open(from, to).await?.get(path).await
}

/// A connection on which nothing has been asked yet.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    to: SocketAddr,
}

impl Connection {
    /// Connects from a machine of the lab.
    pub async fn open(from: &Netns, to: SocketAddr) -> Result<Self> {
        let socket = from
            .run(move || {
                if to.is_ipv4() {
                    TcpSocket::new_v4()
                } else {
                    TcpSocket::new_v6()
                }
            })?
            .context("making a socket")?;
        let stream = socket
            .connect(to)
            .await
            .with_context(|| format!("connecting to {to}"))?;
        Ok(Self { stream, to })
    }

    /// Requests `path`, which ends the connection.
    pub async fn get(mut self, path: &str) -> Result<Response> {
        let to = self.to;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {to}\r\nConnection: close\r\n\r\n");
        self.stream
            .write_all(request.as_bytes())
            .await
            .context("sending the request")?;
        let mut answer = Vec::new();
        self.stream
            .read_to_end(&mut answer)
            .await
            .context("reading the answer")?;
        parse(&String::from_utf8_lossy(&answer))
    }
}

fn parse(answer: &str) -> Result<Response> {
    let Some((head, body)) = answer.split_once("\r\n\r\n") else {
        bail!("the answer is cut short")
    };
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Ok(Response {
        status: status.context("the answer has no status")?,
        body: body.to_owned(),
    })
}

/// An HTTP server that gives one answer to everything; it ends when dropped.
pub(crate) struct Backend {
    task: JoinHandle<()>,
}

impl Backend {
    pub fn start(netns: &Netns, address: SocketAddr, answer: String) -> Result<Self> {
        let listener = netns
            .run(move || std::net::TcpListener::bind(address))?
            .with_context(|| format!("listening on {address}"))?;
        listener
            .set_nonblocking(true)
            .context("making a listener asynchronous")?;
        let listener = TcpListener::from_std(listener).context("making a listener asynchronous")?;
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => match accepted {
                        Ok((stream, peer)) => {
                            connections.spawn(serve(stream, format!("{} {}\n", answer.trim_end(), peer.ip())));
                        }
                        Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                    },
                    Some(_) = connections.join_next() => {}
                }
            }
        });
        Ok(Self { task })
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, answer: String) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|window| window == b"\r\n\r\n") && request.len() < 65536 {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => request.extend_from_slice(&buffer[..length]),
        }
    }
    let length = answer.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream.write_all(format!("{head}{answer}").as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        let parsed = parse("HTTP/1.1 200 OK\r\nX: y\r\n\r\nhello").unwrap();
        assert_eq!(
            parsed,
            Response {
                status: 200,
                body: "hello".into()
            }
        );
        assert!(parse("HTTP/1.1 200 OK\r\n").is_err());
    }
}
