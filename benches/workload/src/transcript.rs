//! What a subject answers after the same few writes: equal transcripts mean that subjects do the
//! same job.

use std::net::Ipv4Addr;

use crate::credential::{self, Purpose};
use crate::data::{self, POINT_INTERVAL, POINTS_PER_MONTH};
use crate::machine::scratch;
use crate::rows::{NodeRow, PresenceRow};
use crate::subject::{Answer, Candidate, Read, Result, Subject, Write, load};
use crate::{Content, targets::now};

/// What there is before.
const CONTENT: Content = Content {
    nodes: 25,
    routes: 40,
    rules: 3,
    api_keys: 2,
    preauth_keys: 3,
    points: 1_500,
    audit: 120,
};

/// Whether all candidates answer as the first one does.
pub async fn compare(candidates: &[Candidate]) -> Result<()> {
    let mut expected = None;
    for candidate in candidates {
        let name = &candidate.about.name;
        let directory = scratch(&std::env::temp_dir())?;
        let subject = candidate.open(directory.path().to_owned()).await?;
        let found =
            transcript(subject.as_ref()).await.map_err(|error| format!("{name}: {error}"))?;
        let known = expected.get_or_insert_with(|| found.clone());
        if found.len() != known.len() {
            return Err(format!("{name}: {} answers, not {}", found.len(), known.len()).into());
        }
        for ((read, answer), (_, known)) in found.iter().zip(known) {
            if answer != known {
                return Err(format!("{name}: {read} is {answer:?}, not {known:?}").into());
            }
        }
        subject.close().await?;
    }
    Ok(())
}

/// Writes a little, then reads everything in every way.
async fn transcript(subject: &dyn Subject) -> Result<Vec<(String, Answer)>> {
    load(subject, CONTENT).await?;
    let first = CONTENT.nodes;
    let key = |number| credential::text(Purpose::PreAuthKey, &data::preauth_key(number));
    subject.write(registration(first, Some(key(first)))).await?;
    let mut wrong = key(first + 2);
    wrong.pop();
    for refused in [key(first), wrong, "gwauth-000000000000-00".to_owned(), String::new()] {
        if subject.write(registration(first + 1, Some(refused.clone()))).await.is_ok() {
            return Err(format!("the pre-auth key {refused:?} admitted a node").into());
        }
    }
    subject.write(registration(first + 1, None)).await?;
    subject.write(registration(first + 2, Some(key(first + 2)))).await?;
    let (node, at) = (data::node_id(4), now());
    subject.write(Write::Heartbeat { node, at, endpoints: None }).await?;
    let endpoints = Some(data::endpoints(4, 7, at));
    subject.write(Write::Heartbeat { node, at, endpoints }).await?;
    let mut point = data::point(3, CONTENT.measured_nodes());
    point.value = 42.5;
    subject.write(Write::Metrics(vec![point])).await?;
    subject.write(Write::Audit(data::audit(CONTENT.audit))).await?;
    subject.settle().await?;

    let mut transcript = Vec::new();
    let mut read = async |read: Read<'_>| -> Result<()> {
        let answer = subject.answer(&read).await?;
        let items = subject.read(&read).await?;
        if items != answer.items() {
            return Err(format!("{read:?} found {items} rows, and {}", answer.items()).into());
        }
        transcript.push((format!("{read:?}"), comparable(answer)));
        Ok(())
    };
    for number in [0, 24, first, first + 1, first + 2, first + 3] {
        read(Read::NodeById(data::node_id(number))).await?;
        read(Read::NodeByKey(&data::machine(number).node_key)).await?;
        read(Read::NodeByLabel(&data::label(number))).await?;
    }
    read(Read::OnlineNodes).await?;
    read(Read::NetMap(data::node_id(3))).await?;
    read(Read::PolicyInput).await?;
    for number in 0..CONTENT.routes {
        let (network, _) = data::prefix(number);
        read(Read::Route(Ipv4Addr::from(u32::from(network) | 1))).await?;
    }
    read(Read::Route(Ipv4Addr::new(203, 0, 113, 9))).await?;
    let good = credential::text(Purpose::ApiKey, &data::api_key(1));
    for text in [good.as_str(), &good.replace('-', ""), "gwapi-x-y", ""] {
        read(Read::ApiKey(text)).await?;
    }
    let span = i64::try_from(POINTS_PER_MONTH).unwrap_or_default() * POINT_INTERVAL;
    let (from, to) = (data::EPOCH, data::EPOCH + span);
    read(Read::MetricRange { node: data::node_id(0), from, to }).await?;
    read(Read::MetricRange { node: data::node_id(0), from, to: from + POINT_INTERVAL }).await?;
    read(Read::MetricRange { node: data::node_id(9), from, to }).await?;
    read(Read::AuditPage { from, to }).await?;
    read(Read::AuditPage { from, to: from + 100 }).await?;
    Ok(transcript)
}

fn registration(number: u64, preauth_key: Option<String>) -> Write {
    let machine = Box::new(data::machine(number));
    Write::Register { machine, preauth_key, user: data::user_id(number) }
}

/// Without what each subject chooses for itself: identifiers and times of what is new.
fn comparable(mut answer: Answer) -> Answer {
    match &mut answer {
        Answer::Node(Some(node)) => settle_node(node),
        Answer::Nodes(nodes) => nodes.iter_mut().for_each(settle_node),
        Answer::NetMap(map) => {
            for (node, presence) in &mut map.peers {
                settle_node(node);
                presence.iter_mut().for_each(settle_presence);
            }
            map.peers.sort_by(|(a, _), (b, _)| a.label.cmp(&b.label));
        }
        Answer::Policy(policy) => {
            let known = |id: &[u8; 16]| (0..CONTENT.nodes).any(|n| data::node_id(n) == *id);
            policy
                .nodes
                .iter_mut()
                .filter(|node| !known(&node.0))
                .for_each(|node| node.0 = [0; 16]);
            policy.nodes.sort();
        }
        _ => {}
    }
    answer
}

fn settle_node(node: &mut NodeRow) {
    if node.created_at > data::EPOCH + POINT_INTERVAL {
        (node.id, node.created_at, node.updated_at) = ([0; 16], 0, 0);
    }
}

fn settle_presence(presence: &mut PresenceRow) {
    if presence.last_seen > data::EPOCH {
        presence.last_seen = 0;
        presence.endpoints.iter_mut().for_each(|endpoint| endpoint.seen_at = 0);
    }
}
