//! The progress of a transfer: drawn on stderr when that is a terminal, and nowhere else.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar for a transfer of so many bytes, or a counter when the total is unknown.
pub(crate) fn bar(total: Option<u64>) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{bar:40} {bytes}/{total_bytes}  {binary_bytes_per_sec}  {eta} left"),
        None => (ProgressBar::new_spinner(), "{spinner} {bytes}  {binary_bytes_per_sec}"),
    };
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}
