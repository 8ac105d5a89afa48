//! What is said over a lab's control socket: one request, one answer, each
//! a line of JSON.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Something that a running lab is asked to do.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Request {
    /// Add a node.
    AddNode {
        /// Its name, if it matters.
        node: Option<String>,
    },
    /// Cut a node's power.
    KillNode {
        /// The node.
        node: String,
    },
    /// Give a node its power back.
    ReviveNode {
        /// The node.
        node: String,
    },
    /// Say who answers for addresses.
    Who {
        /// The addresses; none stands for those of all Services.
        addresses: Vec<IpAddr>,
    },
    /// Request / from the client.
    Get {
        /// Where.
        target: SocketAddr,
    },
    /// Describe the lab.
    Status,
    /// End the lab.
    Down,
}

/// What a lab answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    /// Text for a person.
    Done(String),
    /// Why it did not work.
    Failed(String),
}

/// A lab's control socket.
pub fn socket(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.sock"))
}

/// Reads where to send a request; the port is 80 unless given.
pub fn target(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .or_else(|_| {
            text.parse::<IpAddr>()
                .map(|address| SocketAddr::new(address, 80))
        })
        .map_err(|_| format!("{text} is neither an address nor an address with a port"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        assert_eq!(target("192.0.2.1").unwrap().to_string(), "192.0.2.1:80");
        assert_eq!(
            target("192.0.2.1:8080").unwrap().to_string(),
            "192.0.2.1:8080"
        );
        assert_eq!(
            target("2001:db8::1").unwrap().to_string(),
            "[2001:db8::1]:80"
        );
        assert_eq!(
            target("[2001:db8::1]:81").unwrap().to_string(),
            "[2001:db8::1]:81"
        );
        assert!(target("web").is_err());
    }
}
