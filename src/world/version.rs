//! Resource versions as numbers, to tell the newer of two states of an object.

/// A resource version. The API server's are counters of the store and may be
/// compared for objects of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceVersion(pub u64);

impl ResourceVersion {
    /// Reads the text of `metadata.resourceVersion`; what is no number (an
    /// object from a file) is older than everything.
    pub fn parse(text: Option<&str>) -> Self {
        Self(text.and_then(|t| t.parse().ok()).unwrap_or(0))
    }
}
