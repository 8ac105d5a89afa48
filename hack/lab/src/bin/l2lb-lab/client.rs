//! Talking to a running lab.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;

use anyhow::{Context, Result, bail};
use l2lb_lab::place;

use crate::protocol::{Reply, Request, socket};

/// Connects to a lab.
pub fn connect(name: &str) -> Result<UnixStream> {
    UnixStream::connect(socket(&place::state_dir(), name)).with_context(|| {
        format!("no lab called {name} is running (l2lb-lab up --detach brings one up, l2lb-lab shell opens a shell in one)")
    })
}

/// Sends a request to a lab, and returns its answer.
pub fn ask(name: &str, request: &Request) -> Result<String> {
    let mut stream = connect(name)?;
    let line = serde_json::to_string(request).context("encoding the request")?;
    writeln!(stream, "{line}").context("sending the request")?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .context("reading the answer")?;
    match serde_json::from_str(&answer).context("the lab ended without an answer")? {
        Reply::Done(text) => Ok(text),
        Reply::Failed(why) => bail!("{why}"),
    }
}
