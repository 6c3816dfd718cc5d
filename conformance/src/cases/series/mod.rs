//! Series: metrics, and the audit trail.

pub(super) mod audit;
pub(super) mod audit_lines;
pub(super) mod metrics;
pub(super) mod moments;
pub(super) mod sequences;
