//! A certificate from files, as cert-manager's Secret mounts them.

use std::path::PathBuf;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
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
    errors: Counter,
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
                Err(why) => {
                    errors.inc();
                    warn!(file = %certificate.display(), why, "the certificate stays");
                }
            },
            Err(why) => {
                errors.inc();
                warn!(why, "the certificate stays");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::bundle::{Bundle, Terms};

    #[tokio::test]
    async fn files_are_read_again_when_both_fit() {
        let folder = std::env::temp_dir().join(format!("l2lb-webhook-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (certificate, key) = (folder.join("tls.crt"), folder.join("tls.key"));
        let make = |hours: u64| {
            let terms = Terms {
                leaf: Duration::from_secs(3600 * hours),
                ca: Duration::from_secs(36_000),
                settle: Duration::from_secs(1),
                names: vec!["a.b.svc".to_owned()],
            };
            Bundle::new(jiff::Timestamp::now(), &terms).unwrap()
        };
        let (first, second) = (make(1), make(2));
        let current = Current::default();
        let every = Duration::from_millis(10);
        let missing = follow_files(
            current.clone(),
            certificate.clone(),
            key.clone(),
            every,
            Counter::default(),
        )
        .await;
        assert!(missing.unwrap_err().contains("tls.crt"));

        std::fs::write(&certificate, &first.leaf.pem).unwrap();
        std::fs::write(&key, &first.leaf_key).unwrap();
        let following = follow_files(
            current.clone(),
            certificate.clone(),
            key.clone(),
            every,
            Counter::default(),
        );
        let task = tokio::spawn(following);
        let wait = || tokio::time::sleep(Duration::from_millis(100));
        wait().await;
        assert_eq!(current.until(), Some(first.leaf.until()));
        // The certificate alone does not fit the old key: nothing changes yet.
        std::fs::write(&certificate, &second.leaf.pem).unwrap();
        wait().await;
        assert_eq!(current.until(), Some(first.leaf.until()));
        std::fs::write(&key, &second.leaf_key).unwrap();
        wait().await;
        assert_eq!(current.until(), Some(second.leaf.until()));
        task.abort();
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
