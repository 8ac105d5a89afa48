//! An API server in memory, as far as the plan loop can tell.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use jiff::Timestamp;
use l2lb::controller::answer::Answer;
use l2lb::controller::resource;
use l2lb::controller::view::News;
use l2lb::metallb::Capabilities;
use l2lb::plan::{Action, Change};
use l2lb::world::{Key, Kind, ObjectRef, Observed, ResourceVersion, ServiceRecord};
use serde_json::{Map, Value, json};

pub const METALLB: &str = "metallb-system";

/// The objects, and the news that every watch has yet to deliver.
#[derive(Default)]
pub struct Store {
    pub(super) objects: BTreeMap<ObjectRef, Value>,
    /// What we applied last, by object: its fields go when they are applied no more.
    applied: BTreeMap<ObjectRef, Value>,
    counter: u64,
    pub queues: BTreeMap<Kind, VecDeque<News>>,
    pub now: Timestamp,
    /// Whether a quota refuses Services.
    pub quota: bool,
    /// A kind that admission refuses to create or change.
    pub denied: Option<Kind>,
    pub writes: usize,
    /// The MetalLB that is installed.
    pub metallb: Capabilities,
}

pub fn object(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
    ObjectRef {
        kind,
        key: Key::new(namespace, name),
    }
}

fn read(kind: Kind, value: &Value) -> Observed {
    Observed::read(kind, value.clone()).unwrap()
}

impl Store {
    pub fn get(&self, object: &ObjectRef) -> Option<&Value> {
        self.objects.get(object)
    }

    pub fn all(&self, kind: Kind) -> impl Iterator<Item = (&ObjectRef, &Value)> {
        self.objects.iter().filter(move |(o, _)| o.kind == kind)
    }

    pub fn observe(&self, object: &ObjectRef) -> Option<Observed> {
        self.get(object).map(|value| read(object.kind, value))
    }

    /// A list and watch from now on, as after a start or an expired watch.
    pub fn relist(&mut self, kind: Kind) {
        let mut queue = VecDeque::from([News::ListStarted(kind)]);
        queue.extend(
            self.all(kind)
                .map(|(_, v)| News::Listed(Box::new(read(kind, v)))),
        );
        queue.push_back(News::ListDone(kind));
        self.queues.insert(kind, queue);
    }

    pub fn definitions(capabilities: Capabilities) -> News {
        News::Definitions {
            present: resource::KINDS
                .iter()
                .filter_map(|k| resource::definition(*k))
                .collect(),
            capabilities,
        }
    }

    /// Creates or replaces an object, as somebody else.
    pub fn put(&mut self, object: &ObjectRef, mut value: Value) {
        let resource = resource::api_resource(object.kind);
        value["apiVersion"] = json!(resource.api_version);
        value["kind"] = json!(resource.kind);
        value["metadata"]["name"] = json!(object.key.name);
        if !object.key.namespace.is_empty() {
            value["metadata"]["namespace"] = json!(object.key.namespace);
        }
        if !self.objects.contains_key(object) {
            self.counter += 1;
            value["metadata"]["uid"] = json!(format!("uid-{}", self.counter));
            value["metadata"]["creationTimestamp"] = json!(self.now.to_string());
        }
        self.commit(object, value);
    }

    /// Changes an object, if it exists.
    pub fn edit(&mut self, object: &ObjectRef, change: impl FnOnce(&mut Value)) {
        if let Some(mut value) = self.objects.get(object).cloned() {
            change(&mut value);
            self.commit(object, value);
        }
    }

    fn commit(&mut self, object: &ObjectRef, mut value: Value) {
        let before = self.objects.get(object);
        if let Some(before) = before {
            value["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
            if *before == value {
                return;
            }
            if object.kind == Kind::LoadBalancer || object.kind == Kind::AddressPool {
                let old = before["metadata"]["generation"].as_u64().unwrap_or(1);
                let changed = before["spec"] != value["spec"];
                value["metadata"]["generation"] = json!(old + u64::from(changed));
            }
        }
        self.counter += 1;
        value["metadata"]["resourceVersion"] = json!(self.counter.to_string());
        let finalizers = value["metadata"]["finalizers"]
            .as_array()
            .map_or(0, Vec::len);
        if !value["metadata"]["deletionTimestamp"].is_null() && finalizers == 0 {
            return self.remove(object);
        }
        self.objects.insert(object.clone(), value.clone());
        self.queue(
            object.kind,
            News::Applied(Box::new(read(object.kind, &value))),
        );
    }

    fn queue(&mut self, kind: Kind, news: News) {
        self.queues.entry(kind).or_default().push_back(news);
    }

    fn remove(&mut self, object: &ObjectRef) {
        let Some(value) = self.objects.remove(object) else {
            return;
        };
        self.applied.remove(object);
        self.counter += 1;
        let news = News::Deleted {
            object: object.clone(),
            uid: value["metadata"]["uid"].as_str().map(str::to_owned),
            version: ResourceVersion(self.counter),
        };
        self.queue(object.kind, news);
    }

    /// Deletes an object, as somebody else.
    pub fn delete(&mut self, object: &ObjectRef) {
        let now = self.now.to_string();
        let Some(value) = self.objects.get(object) else {
            return;
        };
        if value["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|f| !f.is_empty())
        {
            self.edit(object, |v| v["metadata"]["deletionTimestamp"] = json!(now));
        } else {
            self.remove(object);
        }
    }

    /// Carries out a write of the controller.
    pub fn write(&mut self, change: &Change) -> Answer {
        self.writes += 1;
        let object = &change.object;
        let live = self.objects.get(object).cloned();
        let refused =
            self.quota && object.kind == Kind::Service || self.denied == Some(object.kind);
        match &change.action {
            Action::Create(_) | Action::Apply(_) | Action::Patch(_) if refused => {
                Answer::Refused("exceeded quota, or denied".to_owned())
            }
            Action::Create(body) => match live {
                Some(_) if !self.applied.contains_key(object) => {
                    Answer::Taken(format!("{object} exists and is not ours"))
                }
                live => self.apply(object, live, &body.to_json()),
            },
            Action::Apply(body) => match live {
                None => Answer::Outdated("not found".to_owned()),
                Some(live) if is_other(&live, &body.to_json()) => {
                    Answer::Outdated("conflict".to_owned())
                }
                live => self.apply(object, live, &body.to_json()),
            },
            Action::Patch(body) => match live {
                None => Answer::Outdated("not found".to_owned()),
                Some(live) if is_other(&live, &body.to_json()) => {
                    Answer::Outdated("conflict".to_owned())
                }
                Some(mut live) => {
                    json_patch::merge(&mut live, &body.to_json());
                    self.commit(object, live);
                    self.stored(object)
                }
            },
            Action::ApplyStatus(body) => match live {
                None => Answer::Outdated("not found".to_owned()),
                Some(live) if is_other(&live, &body.to_json()) => {
                    Answer::Outdated("conflict".to_owned())
                }
                Some(mut live) => {
                    live["status"] = body.to_json()["status"].clone();
                    self.commit(object, live);
                    self.stored(object)
                }
            },
            Action::Delete {
                uid,
                resource_version,
            } => {
                let Some(live) = live else {
                    return Answer::Gone;
                };
                let meta = &live["metadata"];
                let is = |wanted: &Option<String>, field: &str| {
                    wanted.is_none() || wanted.as_deref() == meta[field].as_str()
                };
                if !is(uid, "uid") || !is(resource_version, "resourceVersion") {
                    return Answer::Outdated("conflict".to_owned());
                }
                self.delete(object);
                if self.objects.contains_key(object) {
                    self.stored(object)
                } else {
                    Answer::Gone
                }
            }
        }
    }

    fn stored(&self, object: &ObjectRef) -> Answer {
        self.observe(object)
            .map_or(Answer::Gone, |o| Answer::Stored(Box::new(o)))
    }

    fn apply(&mut self, object: &ObjectRef, live: Option<Value>, body: &Value) -> Answer {
        let before = self
            .applied
            .insert(object.clone(), body.clone())
            .unwrap_or_default();
        let is_new = live.is_none();
        let mut value = live.unwrap_or_else(|| json!({"metadata": {}}));
        if let Some(spec) = body.get("spec") {
            value["spec"] = spec.clone();
        }
        for field in ["labels", "annotations"] {
            let old = before["metadata"][field]
                .as_object()
                .cloned()
                .unwrap_or_default();
            let new = body["metadata"][field]
                .as_object()
                .cloned()
                .unwrap_or_default();
            let mut merged: Map<_, _> = value["metadata"][field]
                .as_object()
                .cloned()
                .unwrap_or_default();
            merged.retain(|key, _| !old.contains_key(key));
            merged.extend(new);
            value["metadata"][field] = Value::Object(merged);
        }
        for field in ["finalizers", "ownerReferences"] {
            match body["metadata"].get(field) {
                Some(list) => value["metadata"][field] = list.clone(),
                None => {
                    value["metadata"].as_object_mut().unwrap().remove(field);
                }
            }
        }
        if is_new {
            self.put(object, value);
        } else {
            self.commit(object, value);
        }
        // It may have gone with its last finalizer.
        self.stored(object)
    }

    /// The children and the addresses that each names.
    pub fn children(&self) -> Vec<(Key, Vec<IpAddr>)> {
        self.all(Kind::Service)
            .filter_map(|(_, value)| {
                match ServiceRecord::read(serde_json::from_value(value.clone()).unwrap()) {
                    ServiceRecord::Child(child) => Some((child.key.clone(), child.addresses)),
                    ServiceRecord::Foreign(_) => None,
                }
            })
            .collect()
    }
}

/// Whether a write is for another object, or another state of it.
fn is_other(live: &Value, body: &Value) -> bool {
    ["uid", "resourceVersion"].into_iter().any(|field| {
        let wanted = &body["metadata"][field];
        !wanted.is_null() && live["metadata"][field] != *wanted
    })
}
