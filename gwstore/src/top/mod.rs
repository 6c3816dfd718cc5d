//! `gwstore top`: what a served store does, as it does it.
//!
//! All figures come from two texts of its metrics, so they are the same that a monitoring system has.

mod figures;
#[cfg(test)]
mod sample;
mod screen;
mod text;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ghostwire_store::{Error, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;

use crate::cli::TopArgs;
use crate::failure::{Failure, Outcome, one_line};
use crate::output::Shell;
use figures::Figures;
use screen::Status;
use text::Samples;

/// Where the metrics come from.
pub(crate) trait Numbers {
    /// Their text, as it is now.
    async fn metrics(&self) -> Result<String>;
}

const FASTEST: u64 = 1;
const SLOWEST: u64 = 60;

/// Shows it until a key ends that; with `--once` prints it.
pub(crate) async fn run(numbers: &impl Numbers, args: &TopArgs, shell: &mut Shell<'_>) -> Outcome {
    if args.once || shell.json {
        return once(numbers, args.interval, shell).await;
    }
    if !shell.is_terminal {
        let error = Error::invalid("standard output is no terminal");
        return Err(Failure::usage(
            error.with("help", "--once prints the figures, --json for programs"),
        ));
    }
    watch(numbers, args.interval).await
}

async fn once(numbers: &impl Numbers, interval: u64, shell: &mut Shell<'_>) -> Outcome {
    let first = Look::take(numbers).await?;
    tokio::time::sleep(Duration::from_secs(interval)).await;
    let figures = Look::take(numbers).await?.since(&first);
    if shell.json {
        return shell.object(&figures);
    }
    shell.line(screen::headline(&figures).join(", "))?;
    for section in screen::sections(&figures) {
        shell.line(format_args!("\n{}", section.title))?;
        let lines: Vec<_> =
            section.lines.iter().map(|line| (line.name.as_str(), line.value.clone())).collect();
        shell.pairs(&lines)?;
    }
    Ok(())
}

/// The metrics of one moment.
struct Look {
    samples: Samples,
    at: Instant,
}

impl Look {
    async fn take(numbers: &impl Numbers) -> Result<Self> {
        let text = numbers.metrics().await?;
        Ok(Self { samples: Samples::parse(&text), at: Instant::now() })
    }

    fn since(&self, before: &Self) -> Figures {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let elapsed = self.at.duration_since(before.at);
        Figures::between(&before.samples, &self.samples, elapsed, now.as_secs_f64())
    }
}

/// What a key asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    End,
    Pause,
    Slower,
    Faster,
    Redraw,
}

fn wish(event: &Event) -> Option<Wish> {
    let Event::Key(KeyEvent { code, modifiers, kind, .. }) = event else {
        return matches!(event, Event::Resize(..)).then_some(Wish::Redraw);
    };
    if *kind == KeyEventKind::Release {
        return None;
    }
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::End),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::End),
        KeyCode::Char('p' | ' ') => Some(Wish::Pause),
        KeyCode::Char('+') => Some(Wish::Slower),
        KeyCode::Char('-') => Some(Wish::Faster),
        _ => None,
    }
}

impl Status {
    /// Does as wished; false is the end.
    fn follow(&mut self, wish: Wish) -> bool {
        match wish {
            Wish::End => return false,
            Wish::Pause => self.is_paused = !self.is_paused,
            Wish::Slower => self.interval_seconds = (self.interval_seconds * 2).min(SLOWEST),
            Wish::Faster => self.interval_seconds = (self.interval_seconds / 2).max(FASTEST),
            Wish::Redraw => {}
        }
        true
    }
}

async fn watch(numbers: &impl Numbers, interval: u64) -> Outcome {
    let mut last = Look::take(numbers).await?;
    // It restores the terminal also if something panics.
    let mut terminal = ratatui::try_init()?;
    let mut wishes = keys();
    let mut status = Status { interval_seconds: interval, ..Status::default() };
    let mut figures: Option<Figures> = None;
    let ended = loop {
        let drawn = terminal.draw(|frame| screen::draw(frame, figures.as_ref(), &status));
        if let Err(error) = drawn {
            break Err(error.into());
        }
        tokio::select! {
            wish = wishes.recv() => if !wish.is_some_and(|wish| status.follow(wish)) {
                break Ok(());
            },
            () = tokio::time::sleep(Duration::from_secs(status.interval_seconds)), if !status.is_paused => {
                match Look::take(numbers).await {
                    Ok(look) => {
                        figures = Some(look.since(&last));
                        (last, status.trouble) = (look, None);
                    }
                    Err(error) => status.trouble = Some(one_line(&error)),
                }
            }
        }
    };
    ratatui::restore();
    ended
}

/// Reads keys on a thread of its own, which ends with whoever takes them.
fn keys() -> mpsc::Receiver<Wish> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::task::spawn_blocking(move || {
        while !sender.is_closed() {
            // A terminal that is gone gives errors.
            match event::poll(Duration::from_millis(100)) {
                Ok(false) => {}
                Ok(true) => {
                    let Ok(event) = event::read() else { break };
                    if let Some(wish) = wish(&event)
                        && sender.blocking_send(wish).is_err()
                    {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
    });
    receiver
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(code: KeyCode, modifiers: KeyModifiers) -> Option<Wish> {
        wish(&Event::Key(KeyEvent::new(code, modifiers)))
    }

    #[test]
    fn keys_do_what_the_screen_says() {
        assert_eq!(key(KeyCode::Char('q'), KeyModifiers::NONE), Some(Wish::End));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::CONTROL), Some(Wish::End));
        assert_eq!(key(KeyCode::Char('c'), KeyModifiers::NONE), None);
        assert_eq!(wish(&Event::Resize(1, 1)), Some(Wish::Redraw));
        let mut status = Status { interval_seconds: 2, ..Status::default() };
        assert!(status.follow(Wish::Slower) && status.interval_seconds == 4);
        (0..9).for_each(|_| assert!(status.follow(Wish::Faster)));
        assert_eq!(status.interval_seconds, FASTEST);
        (0..9).for_each(|_| assert!(status.follow(Wish::Slower)));
        assert_eq!(status.interval_seconds, SLOWEST);
        assert!(status.follow(Wish::Pause) && status.is_paused);
        assert!(!status.follow(Wish::End));
    }
}
