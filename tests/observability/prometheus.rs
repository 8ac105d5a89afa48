//! A real Prometheus in the lab.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use kube::{Client, Config};
use l2lb_lab::{Lab, Process, Spec};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tokio::io::AsyncWriteExt;

/// Where it listens, in the control plane's namespace.
const ADDRESS: &str = "127.0.0.1:9090";
/// Where its configuration and data are; it ends with the lab.
const FOLDER: &str = "/run/lab/prometheus";

/// One series of an answer.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Its labels, with `__name__`.
    pub labels: BTreeMap<String, String>,
    /// Seconds since 1970, and values.
    pub points: Vec<(f64, f64)>,
}

/// The running Prometheus.
pub struct Prometheus {
    client: Client,
    began: Timestamp,
    _process: Process,
}

/// A program of Debian's package prometheus.
fn program(name: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([PathBuf::from("/usr/bin"), PathBuf::from("/usr/local/bin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file());
    found.with_context(|| {
        format!("{name} is not installed: it is in Debian's package prometheus, which hack/tools/system-packages.sh --tests installs")
    })
}

/// Runs promtool; returns whether it succeeded and what it printed.
pub async fn promtool(args: &[&str], input: &str) -> Result<(bool, String)> {
    let mut child = tokio::process::Command::new(program("promtool")?)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting promtool")?;
    let mut stdin = child.stdin.take().context("promtool has no input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    Ok((output.status.success(), text))
}

impl Prometheus {
    /// Starts it with a configuration and waits until it answers.
    pub async fn start(lab: &Lab, config: &Value) -> Result<Self> {
        std::fs::create_dir_all(FOLDER)?;
        let file = Path::new(FOLDER).join("prometheus.yml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string())?;
        let spec = Spec::new("prometheus", program("prometheus")?).args([
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={FOLDER}/data"),
            format!("--web.listen-address={ADDRESS}"),
        ]);
        let process = lab.start(spec)?;
        let client = Client::try_from(Config::new(format!("http://{ADDRESS}").parse()?))?;
        let began = Timestamp::now();
        let prometheus = Self {
            client,
            began,
            _process: process,
        };
        let start = Instant::now();
        loop {
            match prometheus.get("/api/v1/status/config").await {
                Ok(_) => return Ok(prometheus),
                Err(error) if start.elapsed() > Duration::from_secs(60) => {
                    return Err(error.context("Prometheus does not start"));
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    /// The present.
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Asks its API; returns `data` of the answer.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let request = http::Request::get(path).body(Vec::new())?;
        let answer: Value = self.client.request(request).await?;
        ensure!(answer["status"] == "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// A query now.
    pub async fn query(&self, query: &str) -> Result<Vec<Series>> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        series(&self.get(&format!("/api/v1/query?query={query}")).await?)
    }

    /// A query over all that was scraped, second by second.
    pub async fn range(&self, query: &str) -> Result<Vec<Series>> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let (from, to) = (self.began.as_second(), self.now().as_second());
        let path = format!("/api/v1/query_range?query={query}&start={from}&end={to}&step=1");
        series(&self.get(&path).await?)
    }

    /// The values that a label of a metric had in all that was scraped.
    pub async fn values(&self, metric: &str, label: &str) -> Result<Vec<String>> {
        let metric = utf8_percent_encode(metric, NON_ALPHANUMERIC);
        let (from, to) = (self.began.as_second(), self.now().as_second());
        let path =
            format!("/api/v1/label/{label}/values?match%5B%5D={metric}&start={from}&end={to}");
        Ok(serde_json::from_value(self.get(&path).await?)?)
    }

    /// Waits until a query finds something.
    pub async fn until(&self, query: &str, patience: Duration) -> Result<()> {
        let start = Instant::now();
        while self.query(query).await?.is_empty() {
            if start.elapsed() > patience {
                bail!("{query} finds nothing after {patience:?}");
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }
}

fn series(data: &Value) -> Result<Vec<Series>> {
    let result = data["result"].as_array().context("no result")?;
    let point = |pair: &Value| -> Result<(f64, f64)> {
        let value = pair[1].as_str().context("a value is no text")?;
        Ok((pair[0].as_f64().context("no time")?, value.parse()?))
    };
    result
        .iter()
        .map(|found| {
            let labels = serde_json::from_value(found["metric"].clone())?;
            let points = match found["values"].as_array() {
                Some(values) => values.iter().map(point).collect::<Result<_>>()?,
                None => vec![point(&found["value"])?],
            };
            Ok(Series { labels, points })
        })
        .collect()
}
