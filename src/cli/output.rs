//! How answers are printed: tables for people, JSON and YAML for programs.

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
