//! `/healthz`, `/readyz` and `/metrics`.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use super::metrics::{Metrics, text};

/// A leader whose loop shows no sign of life for this long is not healthy.
const STUCK: Duration = Duration::from_secs(120);

/// Where to listen, if at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listen {
    /// Nowhere.
    Off,
    /// At this address.
    At(SocketAddr),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "0" || text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::At).map_err(|_| {
            "expected an address and a port, as in 0.0.0.0:8080 or [::]:8080, or 0 for none"
                .to_owned()
        })
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("0"),
            Self::At(address) => address.fmt(f),
        }
    }
}

#[derive(Debug)]
struct Probe {
    ready: bool,
    what: String,
    /// Last sign of life of the loop, once it has begun.
    alive: Option<Instant>,
}

/// What the probes are told. Clones speak of the same process.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<Probe>>);

impl Health {
    /// Not ready: starting.
    pub fn new() -> Self {
        let what = "starting".to_owned();
        Self(Arc::new(Mutex::new(Probe {
            ready: false,
            what,
            alive: None,
        })))
    }

    /// Sets whether the process is ready, and a word on what it does or waits for.
    pub fn set(&self, ready: bool, what: impl Into<String>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.ready = ready;
        state.what = what.into();
    }

    /// A sign of life of the loop.
    pub fn beat(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).alive = Some(Instant::now());
    }

    fn readiness(&self) -> (StatusCode, String) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let code = if state.ready {
            StatusCode::OK
        } else {
            StatusCode::SERVICE_UNAVAILABLE
        };
        (code, format!("{}\n", state.what))
    }

    fn liveness(&self) -> (StatusCode, &'static str) {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match state.alive {
            Some(alive) if alive.elapsed() > STUCK => {
                (StatusCode::SERVICE_UNAVAILABLE, "the loop is stuck\n")
            }
            _ => (StatusCode::OK, "ok\n"),
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

/// Binds the address.
///
/// # Errors
/// A sentence with the remedy.
pub async fn bind(listen: Listen) -> Result<Option<TcpListener>, String> {
    let Listen::At(address) = listen else {
        return Ok(None);
    };
    TcpListener::bind(address).await.map(Some).map_err(|error| {
        format!(
            "cannot listen on {address}: {error}; choose another address with --listen, \
             or --listen=0 for none"
        )
    })
}

/// Serves the probes and metrics for as long as the process lives.
pub async fn serve(listener: TcpListener, health: Health, metrics: Metrics) {
    if let Err(error) = axum::serve(listener, router(health, metrics)).await {
        tracing::error!(%error, "probes and metrics are no longer served");
    }
}

fn router(health: Health, metrics: Metrics) -> Router {
    let live = health.clone();
    Router::new()
        .route("/healthz", get(move || async move { live.liveness() }))
        .route("/readyz", get(move || async move { health.readiness() }))
        .route("/metrics", get(expose))
        .with_state(metrics)
}

/// OpenMetrics for those who ask for it, else what every scraper reads.
async fn expose(State(metrics): State<Metrics>, headers: HeaderMap) -> Response {
    let accepts = |value: &header::HeaderValue| {
        value
            .to_str()
            .is_ok_and(|v| v.contains("application/openmetrics-text"))
    };
    let openmetrics = headers.get_all(header::ACCEPT).iter().any(accepts);
    match metrics.text() {
        Ok(text) if openmetrics => {
            ([(header::CONTENT_TYPE, text::OPENMETRICS)], text).into_response()
        }
        Ok(text) => {
            let text = text::classic(&text);
            ([(header::CONTENT_TYPE, text::CLASSIC)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        assert_eq!("0".parse(), Ok(Listen::Off));
        assert!(matches!("[::]:8080".parse(), Ok(Listen::At(_))));
        assert!(
            "8080"
                .parse::<Listen>()
                .unwrap_err()
                .contains("0.0.0.0:8080")
        );
    }

    #[tokio::test]
    async fn a_port_in_use_is_explained() {
        let taken = bind(Listen::At("127.0.0.1:0".parse().unwrap()))
            .await
            .unwrap()
            .unwrap();
        let again = bind(Listen::At(taken.local_addr().unwrap()))
            .await
            .unwrap_err();
        assert!(again.contains("--listen"), "{again}");
    }

    #[tokio::test]
    async fn metrics_come_in_the_form_that_is_asked_for() {
        let metrics = Metrics::new();
        let mut headers = HeaderMap::new();
        let kind = |response: &Response| response.headers()[header::CONTENT_TYPE].clone();
        let classic = expose(State(metrics.clone()), headers.clone()).await;
        assert_eq!(kind(&classic), text::CLASSIC);
        let prometheus = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
        headers.insert(header::ACCEPT, prometheus.parse().unwrap());
        let openmetrics = expose(State(metrics), headers).await;
        assert_eq!(kind(&openmetrics), text::OPENMETRICS);
    }

    #[test]
    fn readiness_says_what_is_waited_for() {
        let health = Health::new();
        health.set(false, "waiting for Node");
        let (code, text) = health.readiness();
        assert_eq!(
            (code, text.as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "waiting for Node\n")
        );
        health.beat();
        assert_eq!(health.liveness().0, StatusCode::OK);
    }
}
