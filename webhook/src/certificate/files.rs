//! A certificate from files, as cert-manager's Secret mounts them.

use std::path::PathBuf;
use std::time::Duration;

use tracing::{info, warn};

use super::Current;

/// Reads the files, and again whenever they change, for ever. Returns when
/// they cannot be read at the start.
///
/// # Errors
/// What is wrong with them.
pub async fn follow_files(
    current: Current,
    certificate: PathBuf,
    key: PathBuf,
    every: Duration,
) -> Result<(), String> {
    let read = || async {
        let text = |path: PathBuf| async move {
            tokio::fs::read_to_string(&path)
                .await
                .map_err(|error| format!("{}: {error}", path.display()))
        };
        Ok::<_, String>((text(certificate.clone()).await?, text(key.clone()).await?))
    };
    let mut used = read().await?;
    current.set(&used.0, &used.1)?;
    loop {
        tokio::time::sleep(every).await;
        match read().await {
            Ok(pair) if pair == used => {}
            Ok(pair) => match current.set(&pair.0, &pair.1) {
                Ok(()) => {
                    info!(file = %certificate.display(), "the certificate is read again");
                    used = pair;
                }
                // One file may have been written before the other.
                Err(why) => warn!(file = %certificate.display(), why, "the certificate stays"),
            },
            Err(why) => warn!(why, "the certificate stays"),
        }
    }
}
