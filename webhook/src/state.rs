//! The cluster as the watches show it.

use std::sync::{Arc, PoisonError, RwLock};

use jiff::Timestamp;
use l2lb::admission::wire::{Answer, Request};
use l2lb::controller::view::{News, View};
use l2lb::world::{Kind, Options};
use tokio::sync::mpsc;

/// The kinds that reviews look at.
pub const KINDS: [Kind; 9] = [
    Kind::Node,
    Kind::Namespace,
    Kind::AddressPool,
    Kind::LoadBalancer,
    Kind::Service,
    Kind::IpAddressPool,
    Kind::L2Advertisement,
    Kind::BgpAdvertisement,
    Kind::ServiceCidr,
];

/// The cluster as it is known. Clones speak of the same one.
#[derive(Clone)]
pub struct State(Arc<RwLock<View>>);

impl State {
    /// Nothing is known yet.
    pub fn new(options: Options) -> Self {
        Self(Arc::new(RwLock::new(View::new(Timestamp::now(), options))))
    }

    /// Takes in news for as long as there is some.
    pub async fn follow(self, mut news: mpsc::Receiver<News>) {
        const MANY: usize = 256;
        let mut batch = Vec::with_capacity(MANY);
        while news.recv_many(&mut batch, MANY).await > 0 {
            let mut view = self.0.write().unwrap_or_else(PoisonError::into_inner);
            view.set_time(Timestamp::now());
            batch.drain(..).for_each(|news| view.hear(news));
        }
    }

    /// The kinds that have not been listed yet, by name.
    pub fn missing(&self) -> Vec<&'static str> {
        let view = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let watched = |kind: &&str| {
            KINDS.iter().any(|k| k.as_str() == *kind) || *kind == "CustomResourceDefinition"
        };
        view.missing().into_iter().filter(watched).collect()
    }

    /// Answers a review.
    pub fn answer(&self, request: &Request) -> Answer {
        let view = self.0.read().unwrap_or_else(PoisonError::into_inner);
        request.answer(view.world())
    }
}
