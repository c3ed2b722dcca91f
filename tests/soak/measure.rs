//! The server's own figures over time, and whether they grow.
//!
//! A line is fitted to each figure (least squares), from the end of the warm-up on. What it rises
//! from there to the end must be within a fiftieth of the mean and a little slack.

use crate::clients::Result;
use crate::sum;

/// Name, unit of the server's figure, and how much it may rise beside a fiftieth.
const FIGURES: [(&str, &str, f64, f64); 9] = [
    ("resident memory, KiB", "process_resident_memory_bytes", 1024.0, 1024.0),
    ("other descriptors", "process_open_fds", 1.0, 500.0),
    ("other connections", "tidings_connections", 1.0, 500.0),
    ("channels", "tidings_channels", 1.0, 500.0),
    ("messages kept", "tidings_messages_kept", 1.0, 1000.0),
    ("history, KiB", "tidings_history_bytes", 1024.0, 512.0),
    ("keys", "tidings_idempotency_keys", 1.0, 500.0),
    ("waiting input, KiB", "tidings_intake_bytes", 1024.0, 64.0),
    ("waiting output, KiB", "tidings_output_bytes", 1024.0, 64.0),
];

#[derive(Debug, Default)]
pub struct Samples {
    /// Minutes, and each figure then.
    taken: Vec<(f64, [f64; FIGURES.len()])>,
}

impl Samples {
    /// Connections, and their descriptors, are counted but for those of the guests who are there: how
    /// many these are is the guests' affair.
    pub fn take(&mut self, now_ms: u64, metrics: &str, guests: usize) {
        let figures = FIGURES.map(|(name, series, unit, _)| {
            let theirs = if name.starts_with("other ") { guests as f64 } else { 0.0 };
            sum(metrics, series) / unit - theirs
        });
        self.taken.push((now_ms as f64 / 60_000.0, figures));
    }

    /// Prints all figures; fails if one grows.
    pub fn judge(&self, warm_up_ms: u64) -> Result<()> {
        let warm = warm_up_ms as f64 / 60_000.0;
        let taken: Vec<_> = self.taken.iter().filter(|(minutes, _)| *minutes >= warm).collect();
        let [first, .., last] = taken[..] else { return Err("fewer than two samples after the warm-up".into()) };
        let middle = taken[taken.len() / 2];
        println!(
            "{:<22} {:>12} {:>12} {:>12} {:>14}",
            "",
            format!("{:.1} min", first.0),
            format!("{:.1} min", middle.0),
            format!("{:.1} min", last.0),
            "a minute"
        );
        let mut growing = Vec::new();
        for (nth, (name, _, _, slack)) in FIGURES.iter().enumerate() {
            let points: Vec<(f64, f64)> = taken.iter().map(|(minutes, figures)| (*minutes, figures[nth])).collect();
            let (mean, slope) = fitted(&points);
            println!("{name:<22} {:>12.0} {:>12.0} {:>12.0} {slope:>+14.2}", first.1[nth], middle.1[nth], last.1[nth]);
            let rise = slope * (last.0 - first.0);
            if rise > mean / 50.0 + slack {
                growing.push(format!("{name}: {rise:.0} more in the end, {mean:.0} in the mean"));
            }
        }
        if growing.is_empty() { Ok(()) } else { Err(growing.join("; ")) }
    }
}

/// The mean, and the slope of the line nearest to these points.
fn fitted(points: &[(f64, f64)]) -> (f64, f64) {
    let count = points.len() as f64;
    let x_mean = points.iter().map(|(x, _)| x).sum::<f64>() / count;
    let y_mean = points.iter().map(|(_, y)| y).sum::<f64>() / count;
    let covariance: f64 = points.iter().map(|(x, y)| (x - x_mean) * (y - y_mean)).sum();
    let variance: f64 = points.iter().map(|(x, _)| (x - x_mean).powi(2)).sum();
    (y_mean, covariance / variance)
}

#[test]
fn a_line_is_fitted() {
    let (mean, slope) = fitted(&[(1.0, 5.0), (2.0, 7.5), (3.0, 8.5), (4.0, 11.0)]);
    assert_eq!(mean, 8.0);
    assert!((slope - 1.9).abs() < 1e-9, "{slope}");
    let flat = Samples { taken: (0..100).map(|nth| (f64::from(nth), [5000.0; FIGURES.len()])).collect() };
    assert_eq!(flat.judge(0), Ok(()));
    let growing =
        Samples { taken: (0..100).map(|nth| (f64::from(nth), [f64::from(nth) * 20.0; FIGURES.len()])).collect() };
    assert!(growing.judge(0).is_err_and(|why| why.contains("resident memory, KiB: 1980 more in the end")));
}
