//! Looks at a cluster again and again while a node is emptied, which may take
//! an API server down with it.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::cli::cluster::{Cluster, Kept, Nodes, Target, within};
use crate::world::World;

/// How long is waited between two looks, at first and at last: most nodes are
/// empty within a second, and those that are not take long.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(3));
/// How long a look may take, and one at everything.
const ANSWER: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(30));

/// Looks at one cluster for the sake of one node.
pub(super) struct Looks<'a> {
    target: &'a Target,
    cluster: Cluster,
    kept: Kept<'a>,
    /// When patience ends, if ever.
    end: Option<Instant>,
    wait: Duration,
    /// Why the last look failed, if it did.
    trouble: Option<String>,
}

impl<'a> Looks<'a> {
    /// Connects, and looks for the first time.
    ///
    /// # Errors
    /// What went wrong: a wrong kubeconfig does not mend while one waits.
    pub async fn begin(
        target: &'a Target,
        node: &'a str,
        patience: Duration,
    ) -> Result<(Self, World), String> {
        Self::at(target.connect().await?, target, node, patience).await
    }

    async fn at(
        cluster: Cluster,
        target: &'a Target,
        node: &'a str,
        patience: Duration,
    ) -> Result<(Self, World), String> {
        let (kept, world) = Kept::first(&cluster, Nodes::One(node)).await?;
        let looks = Self {
            target,
            cluster,
            kept,
            end: Instant::now().checked_add(patience),
            wait: WAIT.0,
            trouble: None,
        };
        Ok((looks, world))
    }

    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Whether patience has ended.
    pub fn are_over(&self) -> bool {
        self.end.is_some_and(|end| Instant::now() >= end)
    }

    /// What an end should say of a last look that failed.
    pub fn trouble(&self) -> String {
        self.trouble
            .as_ref()
            .map_or_else(String::new, |why| format!(" (the last look failed: {why})"))
    }

    /// Waits, and looks again. Nothing when that failed, which is said when it
    /// begins.
    pub async fn again(&mut self) -> Option<World> {
        let next = Instant::now() + self.wait;
        sleep_until(self.end.map_or(next, |end| end.min(next))).await;
        self.wait = (self.wait * 3 / 2).min(WAIT.1);
        match self.look().await {
            Ok(world) => {
                if self.trouble.take().is_some() {
                    eprintln!("the cluster can be read again");
                }
                Some(world)
            }
            Err(why) => {
                if self.trouble.is_none() {
                    eprintln!("the cluster cannot be read now, which is tried again: {why}");
                }
                self.trouble = Some(why);
                None
            }
        }
    }

    async fn look(&mut self) -> Result<World, String> {
        let limit = if self.kept.is_old() {
            ANSWER.1
        } else {
            ANSWER.0
        };
        let Self {
            target,
            cluster,
            kept,
            ..
        } = self;
        let again = async |cluster: &Cluster| kept.again(cluster).await;
        within(limit, cluster, target, again).await
    }
}

#[cfg(test)]
mod tests;
