//! Progress on a terminal, for what takes longer than a second.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shorter work finishes without a bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar that appears after a second, and goes when it is dropped.
pub(crate) struct Progress {
    bar: ProgressBar,
    what: Cow<'static, str>,
    total: Option<u64>,
    began: Instant,
    is_wanted: bool,
}

impl Progress {
    pub(crate) fn new(what: &'static str, total: Option<u64>, is_wanted: bool) -> Self {
        let bar = ProgressBar::hidden();
        Self { bar, what: what.into(), total, began: Instant::now(), is_wanted }
    }

    /// It is about something else now.
    #[cfg(feature = "bench")]
    pub(crate) fn name(&mut self, what: &str) {
        self.what = what.to_owned().into();
        self.bar.set_message(self.what.clone());
    }

    /// So much more is done.
    pub(crate) fn advance(&mut self, by: u64) {
        self.bar.inc(by);
        if self.is_wanted && self.began.elapsed() >= PATIENCE {
            self.is_wanted = false;
            self.appear();
        }
    }

    fn appear(&mut self) {
        let done = self.bar.position();
        self.bar = match self.total {
            Some(total) => ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr()),
            None => ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()),
        };
        let template = if self.total.is_some() {
            "{msg} {wide_bar} {human_pos}/{human_len} ({eta})"
        } else {
            "{spinner} {msg} {human_pos}"
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(self.what.clone());
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
