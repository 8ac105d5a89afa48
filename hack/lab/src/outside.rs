//! A lab as its client outside the cluster sees it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::http;
use crate::lab::Lab;
use crate::netns::Netns;
use crate::probe::Probe;
use crate::segment::Answer;
use crate::topology::{CLIENT, SECOND};

/// How long somebody who has an address gets to say so.
const ANSWER: Duration = Duration::from_millis(500);

/// Whether an address is one of the second segment's.
fn is_on_second(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.octets()[..3] == SECOND.v4.octets()[..3],
        IpAddr::V6(_) => false,
    }
}

impl Lab {
    /// All different answers to an ARP request (or neighbour solicitation)
    /// for an address, as the client hears them.
    pub async fn answers(&self, address: IpAddr, timeout: Duration) -> Result<Vec<Answer>> {
        let segment = match &self.second {
            Some(second) if is_on_second(address) => second,
            _ => &self.segment,
        };
        segment.ask(address, timeout).await
    }

    /// All different answers for an address on the segment that it is not of.
    ///
    /// # Errors
    /// That there is no second segment.
    pub async fn answers_elsewhere(
        &self,
        address: IpAddr,
        timeout: Duration,
    ) -> Result<Vec<Answer>> {
        let second = self.second.as_ref().context("there is one segment")?;
        let segment = if is_on_second(address) {
            &self.segment
        } else {
            second
        };
        segment.ask(address, timeout).await
    }

    /// The node that answers ARP (or NDP) for an address, if any does within
    /// half a second; an error if two do.
    pub async fn who_answers(&self, address: IpAddr) -> Result<Option<String>> {
        let answers = self.answers(address, ANSWER).await?;
        self.only_one(address, &answers)
    }

    /// The same on the segment that the address is not of.
    ///
    /// # Errors
    /// That two nodes answer, or that there is no second segment.
    pub async fn who_answers_elsewhere(&self, address: IpAddr) -> Result<Option<String>> {
        let answers = self.answers_elsewhere(address, ANSWER).await?;
        self.only_one(address, &answers)
    }

    /// The node that an address's answers came from.
    fn only_one(&self, address: IpAddr, answers: &[Answer]) -> Result<Option<String>> {
        let names: Vec<String> = answers
            .iter()
            .map(|answer| {
                self.cluster
                    .node_of(answer.mac)
                    .unwrap_or_else(|| answer.mac.to_string())
            })
            .collect();
        match names.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some(one.clone())),
            several => bail!("{} all answer for {address}", several.join(" and ")),
        }
    }

    /// Waits until exactly the named node answers for an address; says how
    /// long it took.
    pub async fn wait_for_answer(
        &self,
        address: IpAddr,
        node: &str,
        timeout: Duration,
    ) -> Result<Duration> {
        let start = Instant::now();
        loop {
            let found = match self.who_answers(address).await {
                Ok(Some(name)) if name == node => return Ok(start.elapsed()),
                Ok(Some(name)) => name,
                Ok(None) => "nobody".into(),
                Err(error) => format!("{error:#}"),
            };
            if start.elapsed() > timeout {
                bail!("{node} does not answer for {address} after {timeout:?}: {found}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Waits until another node than `node` answers for an address, and names it.
    pub async fn wait_for_another(
        &self,
        address: IpAddr,
        node: &str,
        timeout: Duration,
    ) -> Result<String> {
        let start = Instant::now();
        loop {
            if let Ok(Some(name)) = self.who_answers(address).await
                && name != node
            {
                return Ok(name);
            }
            if start.elapsed() > timeout {
                bail!("nobody took {address} over from {node} within {timeout:?}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Requests `/` from the client, over a new connection. The backends
    /// answer with the names of their node and pod and the client's address.
    pub async fn http_get(&self, address: IpAddr, port: u16) -> Result<http::Response> {
        let client = Netns::Named(CLIENT.into());
        http::get(
            &client,
            SocketAddr::new(address, port),
            "/",
            Duration::from_secs(2),
        )
        .await
    }

    /// A connection from the client on which nothing has been asked yet.
    pub async fn connect(&self, to: SocketAddr) -> Result<http::Connection> {
        http::Connection::open(&Netns::Named(CLIENT.into()), to).await
    }

    /// Requests `/` from the client again and again until it answers 200:
    /// kube-proxy learns of a Service some time after MetalLB does.
    pub async fn wait_for_http(
        &self,
        address: IpAddr,
        port: u16,
        timeout: Duration,
    ) -> Result<http::Response> {
        let start = Instant::now();
        let client = Netns::Named(CLIENT.into());
        let mut last = anyhow::anyhow!("there was no attempt");
        while start.elapsed() < timeout {
            let attempt = Duration::from_millis(500);
            match http::get(&client, SocketAddr::new(address, port), "/", attempt).await {
                Ok(response) if response.status == 200 => return Ok(response),
                Ok(response) => last = anyhow::anyhow!("it answers {response:?}"),
                Err(error) => last = error,
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err(last).with_context(|| format!("no HTTP through {address} after {timeout:?}"))
    }

    /// Watches addresses from the client, each once an interval.
    #[must_use]
    pub fn probe(&self, targets: Vec<SocketAddr>, interval: Duration) -> Probe {
        Probe::start(&self.cluster, &self.segment, targets, interval)
    }
}
