//! The HTTPS server that the API server calls.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use k8s_openapi::api::core::v1::Pod;
use kube::Client;
use kube::api::{Api, ListParams};
use l2lb::admission::wire::{Answer, Request};
use tokio::task::JoinError;
use tracing::{debug, error, info};

use crate::certificate::Current;
use crate::metrics::Reviews;
use crate::state;

/// An object may have 3 MiB and comes twice on an update.
const BODY_LIMIT: usize = 8 << 20;
/// How long pods are looked for; without an answer nothing is said of them.
const PODS: Duration = Duration::from_millis(500);
/// A denial is judged again after this: what was stored just before, say by
/// the same `kubectl apply`, may not have come through the watches yet.
const SECOND_LOOK: Duration = Duration::from_millis(250);
/// How long requests under way may take when the process ends.
const GRACE: Duration = Duration::from_secs(10);

/// What a review needs.
#[derive(Clone)]
pub struct App {
    /// The cluster.
    pub state: state::State,
    /// For a look at pods; `None` to do without.
    pub client: Option<Client>,
    /// Counts.
    pub reviews: Reviews,
}

/// Every path answers the same; the paths tell the configurations apart in logs of the API server.
pub fn router(app: App) -> Router {
    Router::new()
        .route("/validate", post(review))
        .route("/advise", post(review))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(app)
}

/// A running server.
pub struct Server {
    handle: Handle<std::net::SocketAddr>,
    task: tokio::task::JoinHandle<()>,
}

impl Server {
    /// Starts serving.
    ///
    /// # Errors
    /// A sentence, when TLS or the socket cannot be set up.
    pub fn start(listener: TcpListener, current: &Current, router: Router) -> Result<Self, String> {
        let config = RustlsConfig::from_config(current.server_config()?);
        let handle = Handle::new();
        let server = axum_server::from_tcp_rustls(listener, config)
            .map_err(|error| format!("cannot serve: {error}"))?
            .handle(handle.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = server.serve(router.into_make_service()).await {
                error!(%error, "reviews are no longer answered");
            }
        });
        Ok(Self { handle, task })
    }

    /// Lets what is under way end.
    pub async fn stop(self) {
        self.handle.graceful_shutdown(Some(GRACE));
        let _ended = self.task.await;
    }
}

/// Binds the address.
///
/// # Errors
/// A sentence with the remedy.
pub fn bind(address: std::net::SocketAddr) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(address).and_then(|l| {
        l.set_nonblocking(true)?;
        Ok(l)
    });
    listener.map_err(|error| {
        format!("cannot listen on {address}: {error}; choose another address with --webhook-listen")
    })
}

async fn review(State(app): State<App>, body: Bytes) -> Response {
    let started = Instant::now();
    let missing = app.state.missing();
    if !missing.is_empty() {
        let text = format!("not ready: waiting for {}\n", missing.join(", "));
        return (StatusCode::SERVICE_UNAVAILABLE, text).into_response();
    }
    let mut request = match Request::parse(&body) {
        Ok(request) => request,
        Err(malformed) => {
            app.reviews.answered("", "", "malformed", started.elapsed());
            return (StatusCode::BAD_REQUEST, format!("{malformed}\n")).into_response();
        }
    };
    if let (Some(client), Some((namespace, labels))) = (&app.client, request.pods()) {
        request.set_selects_pods(selects_pods(client, &namespace, &labels).await);
    }
    let (kind, operation) = (request.kind.clone(), request.operation.clone());
    let request = Arc::new(request);
    let mut answered = answer(&app.state, &request).await;
    if matches!(&answered, Ok(answer) if answer.outcome == "denied") {
        tokio::time::sleep(SECOND_LOOK).await;
        answered = answer(&app.state, &request).await;
    }
    let answer = match answered {
        Ok(answer) => answer,
        Err(failure) => {
            error!(kind, operation, %failure, "a review failed");
            app.reviews
                .answered(&kind, &operation, "failed", started.elapsed());
            let text = "the review failed; see the log of l2lb-webhook\n";
            return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
        }
    };
    app.reviews.found(&answer.verdict);
    app.reviews
        .answered(&kind, &operation, answer.outcome, started.elapsed());
    for denial in &answer.verdict.denials {
        info!(object = %denial.object, operation, rule = %denial.rule, "denied: {denial}");
    }
    debug!(kind, operation, outcome = answer.outcome, took = ?started.elapsed(), "answered");
    (
        [(header::CONTENT_TYPE, "application/json")],
        answer.body.to_string(),
    )
        .into_response()
}

/// Judges on a thread of its own: many reviews at once keep nobody from being
/// heard, and a mistake in a rule ends one review only.
async fn answer(state: &state::State, request: &Arc<Request>) -> Result<Answer, JoinError> {
    let (state, request) = (state.clone(), Arc::clone(request));
    tokio::task::spawn_blocking(move || state.answer(&request)).await
}

/// Whether there is a pod with these labels; `None` when that is not known in time.
async fn selects_pods(client: &Client, namespace: &str, labels: &str) -> Option<bool> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().labels(labels).limit(1);
    let found = tokio::time::timeout(PODS, pods.list_metadata(&params)).await;
    match found {
        Ok(Ok(list)) => Some(!list.items.is_empty()),
        Ok(Err(error)) => {
            debug!(%error, "pods cannot be listed");
            None
        }
        Err(_) => None,
    }
}
