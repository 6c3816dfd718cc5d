//! What is measured.

use serde::{Deserialize, Serialize};

/// An operation of the control plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs)]
pub enum Operation {
    Register,
    SignIn,
    Heartbeat,
    Endpoints,
    Import,
    NodeById,
    NodeByKey,
    NodeByLabel,
    ListOnline,
    NetMap,
    NetMapUnchanged,
    PolicyInput,
    RouteLookup,
    ApiKey,
    Metrics,
    MetricRange,
    Audit,
    AuditQuery,
    Open,
    ReadsWhileWriting,
    Nothing,
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
    /// All of them, in the order of the report.
    pub const ALL: [Self; 21] = [
        Register,
        SignIn,
        Heartbeat,
        Endpoints,
        Audit,
        Import,
        NodeById,
        NodeByKey,
        NodeByLabel,
        ReadsWhileWriting,
        ListOnline,
        NetMap,
        NetMapUnchanged,
        PolicyInput,
        RouteLookup,
        ApiKey,
        Metrics,
        MetricRange,
        AuditQuery,
        Open,
        Nothing,
    ];

    /// By which it is chosen.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Register => "register",
            SignIn => "sign-in",
            Heartbeat => "heartbeat",
            Endpoints => "endpoints",
            Audit => "audit",
            Import => "import",
            NodeById => "node-by-id",
            NodeByKey => "node-by-key",
            NodeByLabel => "node-by-label",
            ReadsWhileWriting => "reads-while-writing",
            ListOnline => "list-online",
            NetMap => "net-map",
            NetMapUnchanged => "net-map-unchanged",
            PolicyInput => "policy-input",
            RouteLookup => "route-lookup",
            ApiKey => "api-key",
            Metrics => "metrics",
            MetricRange => "metric-range",
            AuditQuery => "audit-query",
            Open => "open",
            Nothing => "nothing",
        }
    }

    /// What it does, for a reader of the report.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Register => {
                "Register a node: check and use up its pre-auth key, give it addresses, insert, audit line"
            }
            SignIn => "Register a node whose user signed in: as register, without a pre-auth key",
            Heartbeat => "Heartbeat of a node",
            Endpoints => "Heartbeat of a node with new endpoints",
            Audit => "Append an audit line",
            Import => "Import whole nodes, 1,000 at a time, one batch after the other",
            NodeById => "Read a node by id",
            NodeByKey => "Read a node by node key",
            NodeByLabel => "Read a node by name (DNS label)",
            ReadsWhileWriting => "Read a node by id, one by one, while callers register nodes",
            ListOnline => "List the nodes that are online, every second one, in pages of 1,000",
            NetMap => {
                "Network map of one node: peers with presence, routes, users, a policy of 1,000 rules; the network changes before each"
            }
            NetMapUnchanged => {
                "Network map of one node, while the network is as it was at the last"
            }
            PolicyInput => {
                "What evaluating the policy needs: document, users, and each node's owner, tags and addresses"
            }
            RouteLookup => "Route with the longest prefix for an address",
            ApiKey => "Check an API key",
            Metrics => "Record metric points in batches of 1,000 (counted in points)",
            MetricRange => "A month of one node's metric: 8,640 points, in pages of 1,000",
            AuditQuery => "The newest 100 audit lines of a period",
            Open => "Open, in a process of its own",
            Nothing => "No operation: what the harness itself costs a read",
        }
    }

    /// How it is driven.
    #[must_use]
    pub fn kind(self) -> Kind {
        match self {
            Register | SignIn | Heartbeat | Endpoints | Audit | Metrics => Kind::Write,
            Import | Open | ReadsWhileWriting => Kind::Special,
            _ => Kind::Read,
        }
    }

    /// Whether one more node makes it do more by its nature, so that it is compared per row.
    #[must_use]
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
#[must_use]
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
