//! The machines of the sample network, where they can be reached, and what is behind them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ghostwire_store::command::{NodeCommand, PresenceCommand, RouteCommand};
use ghostwire_store::domain::{
    Admission, DiscoKey, Endpoint, EndpointList, MachineKey, Node, NodeId, NodeKey, Prefix,
    RegisterMethod, Registration, RouteId, SessionNumber, Update,
};
use ghostwire_store::{Error, ErrorKind, Result};
use ghostwire_store_core::state::Reply;

use super::people::{ADMIN, People};
use super::world::{World, unexpected};

/// Who vouches for machines.
enum By {
    User(&'static str),
    Key(&'static str),
}

/// So many machines of one kind.
struct Kind {
    name: &'static str,
    count: u32,
    os: &'static str,
    by: By,
}

const fn of(name: &'static str, count: u32, os: &'static str, user: &'static str) -> Kind {
    Kind { name, count, os, by: By::User(user) }
}

const fn with(name: &'static str, count: u32, os: &'static str, key: &'static str) -> Kind {
    Kind { name, count, os, by: By::Key(key) }
}

/// 150 machines.
const KINDS: [Kind; 26] = [
    of("ada-laptop", 1, "macOS", "ada"),
    of("ada-phone", 1, "iOS", "ada"),
    of("ada-workstation", 10, "linux", "ada"),
    of("bruno-laptop", 1, "linux", "bruno"),
    of("bruno-phone", 1, "android", "bruno"),
    of("bruno-vm", 10, "linux", "bruno"),
    of("chiara-laptop", 1, "windows", "chiara"),
    of("chiara-tablet", 1, "android", "chiara"),
    of("chiara-sandbox", 10, "linux", "chiara"),
    of("ops-desk", 10, "linux", "ops"),
    of("ops-wallboard", 4, "linux", "ops"),
    of("lab-board", 9, "linux", "lab"),
    of("lab-camera", 4, "linux", "lab"),
    with("lab-nas", 1, "freebsd", "sampleonce1"),
    with("lab-printer", 1, "linux", "sampleonce2"),
    with("lab-gateway", 1, "openbsd", "sampleonce3"),
    with("web", 24, "linux", "sampleweb"),
    with("db", 12, "linux", "sampledb"),
    with("monitor", 6, "linux", "samplemonitoring"),
    with("build", 10, "linux", "samplebuild"),
    with("runner", 24, "linux", "sampleci"),
    with("router-north", 2, "linux", "samplerouter"),
    with("router-south", 2, "linux", "samplerouter"),
    with("router-islands", 1, "linux", "samplerouter"),
    with("router-six", 1, "linux", "samplerouter"),
    with("exit", 2, "linux", "sampleexit"),
];

/// What is behind each machine whose name begins so. Two routers lead to each of the first two.
const ROUTES: [(&str, &[&str]); 5] = [
    ("router-north", &["10.20.0.0/16"]),
    ("router-south", &["10.30.0.0/16"]),
    ("router-islands", &["192.168.50.0/24", "192.168.51.0/24"]),
    ("router-six", &["2001:db8:40::/48"]),
    ("exit", &["0.0.0.0/0", "::/0"]),
];

/// Registers all machines and connects most of them.
pub(super) fn add(world: &mut World, people: &People) -> Result<()> {
    let mut nodes = Vec::new();
    for kind in &KINDS {
        for number in 1..=kind.count {
            let name = if kind.count == 1 {
                kind.name.to_owned()
            } else {
                format!("{}-{number:02}", kind.name)
            };
            nodes.push(register(world, people, kind, &name)?);
            world.pass(Duration::from_secs(11));
        }
    }
    for (index, node) in nodes.iter().enumerate() {
        routes(world, node)?;
        let endpoints = Update::Set(endpoints(world, index)?);
        let session = SessionNumber::new(1)?;
        let connect = PresenceCommand::Connect { node: node.id, session, endpoints };
        world.run("control", connect)?;
    }
    // Some are switched off; of runners that finished, a few are not removed yet.
    for node in &nodes {
        let name = node.hostname.as_str();
        if name.starts_with("lab-camera") || name.ends_with("-10") {
            let session = SessionNumber::new(1)?;
            world.run("control", PresenceCommand::Disconnect { node: node.id, session })?;
        }
    }
    Ok(())
}

fn register(world: &mut World, people: &People, kind: &Kind, name: &str) -> Result<Arc<Node>> {
    let missing = || Error::new(ErrorKind::Unexpected, "the sample names nobody");
    let (admission, actor) = match kind.by {
        By::User(user) => {
            let id = people.users.get(user).copied().ok_or_else(missing)?;
            let oidc = matches!(user, "ada" | "bruno" | "chiara");
            let method = if oidc { RegisterMethod::Oidc } else { RegisterMethod::Cli };
            (Admission::User { user: id, method }, format!("user:{user}"))
        }
        By::Key(key) => {
            let id = people.keys.get(key).copied().ok_or_else(missing)?;
            (Admission::PreAuthKey(id), "control".to_owned())
        }
    };
    let routes =
        ROUTES.iter().find(|(start, _)| name.starts_with(start)).map(|(_, routes)| *routes);
    let mut info = serde_json::json!({
        "IPNVersion": format!("1.{}.{}", 4 + world.below(3)?, world.below(9)?),
        "OS": kind.os,
        "Hostname": name,
    });
    if let (Some(routes), Some(fields)) = (routes, info.as_object_mut()) {
        fields.insert("RoutableIPs".to_owned(), routes.into());
    }
    let of_a_person = matches!(kind.by, By::User("ada" | "bruno" | "chiara"));
    let registration = Registration {
        machine_key: MachineKey::from_bytes(world.draw()?)?,
        node_key: NodeKey::from_bytes(world.draw()?)?,
        disco_key: Some(DiscoKey::from_bytes(world.draw()?)?),
        hostname: name.parse()?,
        host_info: info.to_string().parse()?,
        admission,
        expires_at: of_a_person
            .then(|| world.now().saturating_add(Duration::from_secs(180 * 86_400))),
    };
    let id = world.id(NodeId::time_ordered)?;
    let command = NodeCommand::Register { id, registration: Box::new(registration) };
    match world.run(&actor, command)? {
        Reply::Node(node) => Ok(node),
        other => Err(unexpected(&other)),
    }
}

fn routes(world: &mut World, node: &Node) -> Result<()> {
    for (start, prefixes) in ROUTES {
        if !node.hostname.as_str().starts_with(start) {
            continue;
        }
        for approve in [false, true] {
            let mut named = Vec::new();
            for prefix in prefixes {
                let prefix: Prefix = prefix.parse()?;
                named.push((world.id(RouteId::time_ordered)?, prefix));
            }
            if approve {
                world.run(ADMIN, RouteCommand::Approve { node: node.id, prefixes: named })?;
            } else {
                world.run("control", RouteCommand::Advertise { node: node.id, prefixes: named })?;
            }
        }
    }
    Ok(())
}

/// Addresses from the blocks for documentation: RFC 5737 and RFC 3849.
fn endpoints(world: &World, index: usize) -> Result<EndpointList> {
    const BLOCKS: [[u8; 3]; 3] = [[192, 0, 2], [198, 51, 100], [203, 0, 113]];
    let seen_at = world.now();
    let host = u8::try_from(index % 250).unwrap_or(0) + 1;
    let [a, b, c] = BLOCKS.get(index % BLOCKS.len()).copied().unwrap_or([192, 0, 2]);
    let port = 40_000 + u16::try_from(world.below(20_000)?).unwrap_or(0);
    let mut list = vec![
        Endpoint { addr: SocketAddr::new(Ipv4Addr::new(a, b, c, host).into(), port), seen_at },
        Endpoint {
            addr: SocketAddr::new(Ipv4Addr::new(192, 168, 1, host).into(), 41_641),
            seen_at,
        },
    ];
    if index.is_multiple_of(3) {
        let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x100, 0, 0, 0, 0, u16::from(host));
        list.push(Endpoint { addr: SocketAddr::new(IpAddr::V6(v6), 41_641), seen_at });
    }
    EndpointList::new(list)
}
