//! How answers are printed: tables for people, JSON and YAML for programs.

use std::io::{ErrorKind, Write};

use clap::ValueEnum;
use serde::Serialize;

/// Forms of an answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Tables
    #[default]
    Table,
    /// Tables with more columns
    Wide,
    /// One JSON object
    Json,
    /// One YAML document
    Yaml,
}

/// Forms of an answer that has no more columns to show.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Plain {
    /// Tables
    #[default]
    Table,
    /// One JSON object
    Json,
    /// One YAML document
    Yaml,
}

impl From<Plain> for Format {
    fn from(plain: Plain) -> Self {
        match plain {
            Plain::Table => Self::Table,
            Plain::Json => Self::Json,
            Plain::Yaml => Self::Yaml,
        }
    }
}

impl Format {
    /// The answer for a program; `None` when it is for people.
    pub fn of_program<T: Serialize>(self, answer: &T) -> Result<Option<String>, String> {
        match self {
            Self::Table | Self::Wide => Ok(None),
            Self::Json => serde_json::to_string_pretty(answer)
                .map(|text| Some(text + "\n"))
                .map_err(|error| error.to_string()),
            Self::Yaml => serde_saphyr::to_string(answer)
                .map(Some)
                .map_err(|error| error.to_string()),
        }
    }
}

/// Writes to standard output; whether somebody still reads it.
pub(super) fn write(text: &str) -> Result<bool, String> {
    let mut stdout = std::io::stdout();
    match stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
    {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(format!("standard output: {error}")),
    }
}

/// Waits until nobody reads standard output any more. Where it is no pipe, as
/// a terminal or a file, that does not happen.
pub(super) async fn reader_left() {
    #[cfg(unix)]
    {
        use std::os::fd::AsFd;

        use tokio::io::Interest;
        use tokio::net::unix::pipe;

        // The kernel reports it as an error of the pipe, and waits for no file.
        // Unchecked leaves the pipe, which others may have too, as it is: a
        // write waits until there is room.
        let stdout = std::io::stdout().as_fd().try_clone_to_owned();
        let stdout = stdout.and_then(pipe::Sender::from_owned_fd_unchecked);
        if let Ok(stdout) = stdout
            && stdout.ready(Interest::ERROR).await.is_ok()
        {
            return;
        }
    }
    // Elsewhere the next thing that is written tells.
    std::future::pending().await
}
