//! Results for people: a table for a terminal, a page with charts.

mod figures;
mod html;
mod svg;
mod text;

pub use html::page;
pub use text::text;
