//! What is measured.

use serde::{Deserialize, Serialize};

macro_rules! operations {
    ($($operation:ident, $name:literal, $title:literal;)+) => {
        /// An operation of the control plane.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "kebab-case")]
        pub enum Operation {
            $($operation,)+
        }

        impl Operation {
            /// All of them, in the order of the report.
            pub const ALL: [Self; [$($name),+].len()] = [$(Self::$operation),+];

            pub fn name(self) -> &'static str {
                match self { $(Self::$operation => $name,)+ }
            }

            /// What it does, for a reader of the report.
            pub fn title(self) -> &'static str {
                match self { $(Self::$operation => $title,)+ }
            }
        }
    };
}

operations! {
    Register, "register",
    "Register a node: check and use up its pre-auth key, give it addresses, insert, audit line";
    SignIn, "sign-in", "Register a node whose user signed in: as register, without a pre-auth key";
    Heartbeat, "heartbeat", "Heartbeat of a node";
    Endpoints, "endpoints", "Heartbeat of a node with new endpoints";
    Audit, "audit", "Append an audit line";
    Import, "import", "Import whole nodes, 1,000 at a time, one batch after the other";
    NodeById, "node-by-id", "Read a node by id";
    NodeByKey, "node-by-key", "Read a node by node key";
    NodeByLabel, "node-by-label", "Read a node by name (DNS label)";
    ReadsWhileWriting, "reads-while-writing",
    "Read a node by id, one by one, while callers register nodes";
    ListOnline, "list-online",
    "List the nodes that are online, every second one, in pages of 1,000";
    NetMap, "net-map",
    "Network map of one node: peers with presence, routes, users, a policy of 1,000 rules; the network changes before each";
    NetMapUnchanged, "net-map-unchanged",
    "Network map of one node, while the network is as it was at the last";
    PolicyInput, "policy-input",
    "What evaluating the policy needs: document, users, and each node's owner, tags and addresses";
    RouteLookup, "route-lookup", "Route with the longest prefix for an address";
    ApiKey, "api-key", "Check an API key";
    Metrics, "metrics", "Record metric points in batches of 1,000 (counted in points)";
    MetricRange, "metric-range", "A month of one node's metric: 8,640 points, in pages of 1,000";
    AuditQuery, "audit-query", "The newest 100 audit lines of a period";
    Open, "open", "Open, in a process of its own";
    Nothing, "nothing", "No operation: what the harness itself costs a read";
}

use Operation::*;

/// How an operation is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Durable writes by many callers at once.
    Write,
    /// Reads on one thread or two.
    Read,
    /// Something of its own.
    Special,
}

impl Operation {
    pub fn kind(self) -> Kind {
        match self {
            Register | SignIn | Heartbeat | Endpoints | Audit | Metrics => Kind::Write,
            Import | Open | ReadsWhileWriting => Kind::Special,
            _ => Kind::Read,
        }
    }

    /// Whether one more node makes it do more by its nature, so that it is compared per row.
    pub fn answers_with_all(self) -> bool {
        matches!(self, ListOnline | NetMap | PolicyInput)
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The known name that is most like this one.
pub fn nearest<'n>(name: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    known
        .into_iter()
        .max_by(|a, b| strsim::jaro_winkler(name, a).total_cmp(&strsim::jaro_winkler(name, b)))
}

impl std::str::FromStr for Operation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|operation| operation.name() == name).ok_or_else(|| {
            let known = nearest(name, Self::ALL.map(Self::name)).unwrap_or_default();
            format!("there is no operation {name:?}; did you mean {known:?}?")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_and_misspelt_ones_are_corrected() {
        for operation in Operation::ALL {
            assert_eq!(operation.name().parse(), Ok(operation));
            let json = serde_json::to_string(&operation).unwrap_or_default();
            assert_eq!(json, format!("{:?}", operation.name()), "one name everywhere");
        }
        let refused = "regsiter".parse::<Operation>();
        assert!(refused.is_err_and(|message| message.contains("\"register\"")));
    }
}
