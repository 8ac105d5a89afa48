//! The rules by name: labels of metrics, and ids in `lint -o sarif`.

macro_rules! rules {
    ($($name:ident $id:literal $doc:literal),+ $(,)?) => {
        /// A rule of admission.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rule { $(#[doc = $doc] $name),+ }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// Its name in metrics and reports.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $id),+ }
            }

            /// What it is about.
            pub fn description(self) -> &'static str {
                match self { $(Self::$name => $doc),+ }
            }
        }
    };
}

rules! {
    Unreadable "unreadable" "The object can be read as its kind.",
    Name "name" "Names leave room for the names that are made from them.",
    Field "field" "A field has a value that a Service or the planner can use.",
    Range "range" "Ranges are well formed, of one family and usable by hosts.",
    Selector "selector" "Selectors are valid by Kubernetes' rules.",
    Immutable "immutable" "Fields that cannot change stay as they are.",
    Overlap "overlap" "A pool overlaps no other pool, node or cluster network.",
    InUse "in-use" "A pool keeps the addresses that are in use or reserved.",
    Sizing "sizing" "Every balancer node gets an address of each family.",
    Headroom "headroom" "The pool has room for one more balancer node.",
    Pool "pool" "The pool exists and is accepted.",
    Namespace "namespace" "The pool may be used from the namespace.",
    Reserved "reserved" "Reserved addresses are in the pool and nobody else's.",
    ReservedKey "reserved-key" "Labels and annotations of controllers are theirs alone.",
    Dns "dns" "Names lie below the domains of the pool and belong to one namespace.",
    Nodes "nodes" "The selectors select the nodes that are meant.",
    Pods "pods" "The selector selects pods.",
    Pin "pin" "No other advertisement draws addresses to other nodes.",
    MetalLB "metallb" "The installed MetalLB can do what is asked of it.",
    Services "services" "The names of the Services are free.",
}

impl std::fmt::Display for Rule {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
