//! Shows how far checkpoints are copied to another storage engine: a bar on a terminal, else a line of the log now and then.

use std::io::IsTerminal;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use trandb_runtime::engine::{Conversion, Told};

/// Between two lines of the log.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is told of a conversion, and shows it.
pub(super) fn told() -> Told {
    if std::io::stderr().is_terminal() {
        // Made when there is something to show.
        let bar = std::sync::OnceLock::new();
        return Arc::new(move |conversion| show(bar.get_or_init(|| new_bar(conversion)), conversion));
    }
    let last = Mutex::new(None);
    Arc::new(move |conversion| {
        // What is guarded is whole at any time.
        let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due(&mut last, conversion, Instant::now()) {
            let Conversion { copied, partitions, versions, .. } = conversion;
            tracing::info!(copied, partitions, versions, "checkpoints are copied");
        }
    })
}

fn new_bar(conversion: &Conversion) -> indicatif::ProgressBar {
    let bar = indicatif::ProgressBar::new(conversion.partitions as u64);
    let style = indicatif::ProgressStyle::with_template("{prefix} {wide_bar} {pos}/{len} partitions {msg}");
    bar.set_style(style.expect("the template is well-formed"));
    bar.set_prefix(format!("checkpoints from {} to {}", conversion.from, conversion.to));
    bar
}

fn show(bar: &indicatif::ProgressBar, conversion: &Conversion) {
    bar.set_position(conversion.copied as u64);
    bar.set_message(format!("{} versions", conversion.versions));
    if conversion.copied == conversion.partitions {
        bar.finish();
    }
}

/// Whether a line is to be logged: at the beginning, now and then, and at the end.
fn is_due(last: &mut Option<Instant>, conversion: &Conversion, now: Instant) -> bool {
    let done = conversion.copied == conversion.partitions;
    let due = done || last.is_none_or(|last| now - last >= LINE_EVERY);
    if due {
        *last = Some(now);
    }
    due
}

#[cfg(test)]
mod tests {
    use super::*;
    use trandb_runtime::config::EngineKind;

    fn conversion(copied: usize) -> Conversion {
        Conversion { from: EngineKind::Sled, to: EngineKind::Fjall, partitions: 3, copied, versions: 7 }
    }

    #[test]
    fn lines_come_at_the_beginning_now_and_then_and_at_the_end() {
        let start = Instant::now();
        let mut last = None;
        let due = [(0, 0), (0, 1), (5, 1), (6, 2), (9, 2), (10, 2), (11, 3)]
            .map(|(at, copied)| is_due(&mut last, &conversion(copied), start + Duration::from_secs(at)));
        assert_eq!(due, [true, false, true, false, false, true, true]);
    }

    #[test]
    fn a_bar_stands_where_the_conversion_does() {
        let bar = new_bar(&conversion(0));
        bar.set_draw_target(indicatif::ProgressDrawTarget::hidden());
        show(&bar, &conversion(2));
        assert_eq!((bar.position(), bar.length(), bar.is_finished()), (2, Some(3), false));
        show(&bar, &conversion(3));
        assert!(bar.is_finished() && bar.message() == "7 versions");
    }
}
