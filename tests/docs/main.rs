//! What the documentation says, held against the code: links lead somewhere,
//! commands can be given, manifests would be admitted, and the GitOps tools
//! judge our statuses as docs/gitops.md says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod claims;
mod commands;
mod completion;
mod gitops;
mod links;
mod manifests;
mod observability;
mod pages;
mod shell;
mod transcripts;
