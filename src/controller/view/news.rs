//! What the watches tell.

use std::collections::BTreeSet;

use super::{Known, View};
use crate::controller::resource;
use crate::external_dns::Availability;
use crate::metallb::Capabilities;
use crate::world::{Kind, ObjectRef, Observed, ResourceVersion};

/// A piece of news from a watch.
#[derive(Clone, Debug)]
pub enum News {
    /// A list begins: the first one, or a new one after the watch fell behind.
    ListStarted(Kind),
    /// An object in the list.
    Listed(Box<Observed>),
    /// An object in the list that cannot be read; what is known of it stays.
    Unreadable(ObjectRef),
    /// The list is complete.
    ListDone(Kind),
    /// An object was created or changed.
    Applied(Box<Observed>),
    /// An object was deleted.
    Deleted {
        /// Which.
        object: ObjectRef,
        /// Its UID.
        uid: Option<String>,
        /// Resource version of the deletion.
        version: ResourceVersion,
    },
    /// The API server does not serve this kind.
    NotServed(Kind),
    /// The resource definitions that exist, by name, and what they say of MetalLB.
    Definitions {
        /// Those of this project, of MetalLB and of ExternalDNS.
        present: BTreeSet<String>,
        /// What the installed MetalLB can do.
        capabilities: Capabilities,
    },
}

impl View {
    /// Takes in a piece of news.
    pub fn hear(&mut self, news: News) {
        match news {
            News::ListStarted(kind) => drop(self.listings.insert(kind, Default::default())),
            News::Listed(observed) => {
                let object = observed.object();
                self.listings
                    .entry(object.kind)
                    .or_default()
                    .insert(object.key);
                self.store(*observed, false);
            }
            News::Unreadable(object) => {
                if let Some(listing) = self.listings.get_mut(&object.kind) {
                    listing.insert(object.key);
                }
            }
            News::ListDone(kind) => self.list_done(kind),
            News::Applied(observed) => self.store(*observed, false),
            News::Deleted {
                object,
                uid,
                version,
            } => self.deleted(&object, uid, version),
            News::NotServed(kind) => self.not_served(kind),
            News::Definitions {
                present,
                capabilities,
            } => {
                self.world.set_capabilities(capabilities);
                self.definitions = Some(present);
                for kind in resource::KINDS {
                    if self.is_undefined(kind) {
                        self.not_served(kind);
                    }
                }
            }
        }
    }

    /// Forgets what the list did not show, unless the list may be older than
    /// what is known: then the object itself is asked for.
    fn list_done(&mut self, kind: Kind) {
        self.listed.insert(kind);
        if kind == Kind::DnsEndpoint {
            self.world.set_external_dns(Availability::Served);
        }
        let shown = self.listings.remove(&kind).unwrap_or_default();
        let now = self.world.now;
        let absent: Vec<(ObjectRef, bool)> = self
            .known
            .get(&kind)
            .into_iter()
            .flatten()
            .filter(|(key, _)| !shown.contains(*key))
            .map(|(key, known)| {
                (
                    ObjectRef {
                        kind,
                        key: key.clone(),
                    },
                    known.ahead,
                )
            })
            .collect();
        for (object, ahead) in absent {
            if ahead {
                self.unsettled.entry(object).or_insert(super::Unsettled {
                    not_before: now,
                    lands_until: None,
                });
            } else {
                self.remove(&object, None);
            }
        }
    }

    fn deleted(&mut self, object: &ObjectRef, uid: Option<String>, version: ResourceVersion) {
        match self.known(object) {
            // Another object of that name has been created since.
            Some(Known {
                uid: known,
                version: newer,
                ..
            }) if *known != uid && *newer > version => {}
            Some(_) => return self.remove(object, uid),
            None => {}
        }
        if let Some(uid) = uid {
            self.gone.insert(uid);
        }
    }

    /// MetalLB's kinds may come and go with MetalLB. Ours may not: a missing
    /// definition of ours is waited for, and must not look like the wish to
    /// delete every load balancer.
    fn not_served(&mut self, kind: Kind) {
        self.listings.remove(&kind);
        if resource::is_ours(kind) {
            if self.is_undefined(kind) {
                self.listed.remove(&kind);
            }
            return;
        }
        // Something in front of the API server answers for it.
        if resource::is_always_served(kind) {
            return;
        }
        // Defined and not served: the API server is starting, or was just told.
        if resource::definition(kind).is_some() && !self.is_undefined(kind) {
            return;
        }
        self.listed.insert(kind);
        if kind == Kind::DnsEndpoint {
            self.world.set_external_dns(Availability::Missing);
        }
        let all: Vec<_> = self
            .known
            .get(&kind)
            .into_iter()
            .flat_map(|k| k.keys().cloned())
            .collect();
        for key in all {
            self.remove(&ObjectRef { kind, key }, None);
        }
    }

    /// Whether the kind is a custom one whose definition is known not to exist.
    fn is_undefined(&self, kind: Kind) -> bool {
        match (resource::definition(kind), &self.definitions) {
            (Some(name), Some(present)) => !present.contains(&name),
            _ => false,
        }
    }
}
