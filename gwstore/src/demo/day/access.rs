//! Programs and people that prove who they are, and what machines report of themselves.

use std::time::Duration;

use ghostwire_store::domain::{
    Clock, MetricPoint, NewApiKey, NewSession, Sample, SessionOwner, Text, WriterId,
};
use ghostwire_store::{ErrorKind, Result};

use super::{Day, WAVE, broken, check, refused};
use crate::demo::sample;

/// Batches of metrics, and points in each.
const BATCHES: u64 = 24;
const POINTS: usize = 500;

impl Day<'_> {
    pub(super) async fn credentials(&mut self) -> Result<()> {
        let store = self.store;
        let calls = (0..8).map(|_| store.api_keys().create(NewApiKey::default()));
        let made = self.waves("create API key", calls).await?;
        let imported = format!("gwapi-sampledashboard-{}", sample::SECRET);
        let mut texts: Vec<&str> = made.iter().map(|(_, secret)| secret.expose()).collect();
        texts.push(&imported);
        // The first use of a key in a minute is recorded in the background. The write behind it
        // waits for that, so that the uses below have nothing to record, whatever the timing.
        for text in &texts {
            store.api_keys().authenticate(text).await?;
        }
        let (first, _) = made.first().ok_or_else(|| broken("there are no API keys"))?;
        store.api_keys().revoke(first.id).await?;
        let revoked = store.api_keys().authenticate(texts.first().copied().unwrap_or_default());
        refused(&revoked.await, &ErrorKind::PermissionDenied, "a revoked key was accepted")?;
        for number in 0..8 * WAVE * self.scale {
            let text = texts.get(1 + number % (texts.len() - 1)).copied().unwrap_or_default();
            self.measure.call("check API key", store.api_keys().authenticate(text)).await?;
        }
        self.sessions().await
    }

    async fn sessions(&mut self) -> Result<()> {
        let store = self.store;
        let view = store.view();
        let mut calls = Vec::new();
        let ends = self.clock.now().saturating_add(Duration::from_secs(3600));
        for user in view.users().iter() {
            calls.push(store.sessions().begin(NewSession {
                owner: SessionOwner::User(user.id),
                node: None,
                client: Some(Text::new("a browser")?),
                expires_at: ends,
            }));
        }
        let begun = self.waves("begin session", calls).await?;
        let calls = begun.iter().map(|(_, token)| store.sessions().authenticate(token.expose()));
        self.waves("check session", calls).await?;
        let calls = begun.iter().step_by(2).map(|(session, _)| store.sessions().end(session.id));
        self.waves("end session", calls).await.map(|_| ())
    }

    #[allow(clippy::cast_precision_loss)] // The numbers are small.
    pub(super) async fn metrics(&mut self) -> Result<()> {
        let store = self.store;
        let view = store.view();
        let writer = WriterId::from_bytes(self.draw()?);
        let nodes: Vec<_> = view.nodes().iter().map(|node| node.id).collect();
        let mut batches = Vec::new();
        for sequence in 1..=BATCHES {
            let at = self.clock.now().saturating_add(Duration::from_secs(sequence));
            let mut points = Vec::new();
            for node in nodes.iter().cycle().take(POINTS) {
                let value = Sample::new(f64::from(u16::from_le_bytes(self.draw()?)))?;
                let metric = "rx_bytes_total".parse()?;
                points.push(MetricPoint { node: Some(*node), metric, at, value });
            }
            batches.push((sequence, points));
        }
        let calls = batches
            .iter()
            .cloned()
            .map(|(sequence, points)| store.metrics().record_batch(writer, sequence, points));
        self.waves("metrics (500 points)", calls).await?;
        // A batch whose answer was lost comes again, and does nothing.
        let before = store.digests().await?.metrics;
        if let Some((sequence, points)) = batches.pop() {
            store.metrics().record_batch(writer, sequence, points).await?;
        }
        check(store.digests().await?.metrics == before, "a repeated batch was recorded twice")
    }
}
