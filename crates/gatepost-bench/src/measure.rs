//! What is measured with: a clock, CPU and memory of processes and threads, percentiles.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek as _, Write as _};
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

/// Ticks of `/proc/*/stat` a second: what Linux shows programs, whatever it counts in itself.
const TICKS: f64 = 100.0;

/// A clock all threads of a run share.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts at 1, so that 0 can mean "never".
    pub(super) fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// Nanoseconds since the start, never 0.
    pub(super) fn nanos(self) -> u64 {
        // 584 years fit.
        self.0.elapsed().as_nanos() as u64 + 1
    }

    /// The moment at which [`Stopwatch::nanos`] is `nanos`.
    pub(super) fn at(self, nanos: u64) -> Instant {
        self.0 + Duration::from_nanos(nanos.saturating_sub(1))
    }
}

/// CPU seconds, user and system, of whatever has this `stat` file; `None` where there is no `/proc`.
fn cpu_of(stat: &str) -> Option<f64> {
    cpu_in(&fs::read_to_string(stat).ok()?)
}

fn cpu_in(stat: &str) -> Option<f64> {
    // The name in parentheses may hold anything, even spaces and parentheses.
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let user: f64 = fields.nth(11)?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS)
}

/// CPU seconds of a process, its ended threads included.
pub(super) fn process_cpu(pid: u32) -> Option<f64> {
    cpu_of(&format!("/proc/{pid}/stat"))
}

/// CPU seconds of a thread of this process.
pub(super) fn thread_cpu(thread: &str) -> Option<f64> {
    cpu_of(&format!("/proc/self/task/{thread}/stat"))
}

/// The calling thread, for [`thread_cpu`].
pub(super) fn this_thread() -> String {
    let link = fs::read_link("/proc/thread-self").unwrap_or_default();
    link.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// CPU seconds of a process by the names of its threads.
pub(super) fn cpu_by_thread(pid: u32) -> BTreeMap<String, f64> {
    let mut by_name = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let path = task.path();
        let name = fs::read_to_string(path.join("comm")).unwrap_or_default();
        if let Some(cpu) = cpu_of(&path.join("stat").to_string_lossy()) {
            *by_name.entry(name.trim().to_owned()).or_insert(0.0) += cpu;
        }
    }
    by_name
}

/// Resident bytes of a process: now, and the most there ever were.
pub(super) fn resident(pid: u32) -> Option<(u64, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some((status_bytes(&status, "VmRSS:")?, status_bytes(&status, "VmHWM:")?))
}

fn status_bytes(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim_end().parse().ok()?;
    Some(kib * 1024)
}

/// How long it takes to write 4 KiB durably in `folder`, in nanoseconds, each of `count` times: at the
/// end of a growing file, or over what a file has already.
pub(super) fn flushes(folder: &Path, count: usize, growing: bool) -> std::io::Result<Vec<u64>> {
    let mut file = tempfile::tempfile_in(folder)?;
    let block = [0x5a; 4096];
    if !growing {
        for _ in 0..count {
            file.write_all(&block)?;
        }
        file.sync_all()?;
        file.rewind()?;
    }
    let watch = Stopwatch::start();
    let mut took = Vec::with_capacity(count);
    for _ in 0..count {
        let began = watch.nanos();
        file.write_all(&block)?;
        file.sync_data()?;
        took.push(watch.nanos() - began);
    }
    Ok(took)
}

/// The value below which `percent` of `values` lie (nearest rank); 0 of none. Sorts them.
pub(super) fn percentile(values: &mut [u64], percent: f64) -> u64 {
    if values.is_empty() {
        return 0;
    }
    values.sort_unstable();
    let rank = (percent / 100.0 * values.len() as f64).ceil() as usize;
    values[rank.clamp(1, values.len()) - 1]
}

/// The middle one, or the mean of the two in the middle; not a number of none.
pub(super) fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// Nanoseconds as milliseconds.
pub(super) fn millis(nanos: u64) -> f64 {
    nanos as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_name() {
        let line = "4242 (a) R (b 1 2) S 1 4242 4242 0 -1 4194560 1 2 3 4 150 50 7 8 20 0 9 0 12345 1 1";
        assert_eq!(cpu_in(line), Some(2.0));
        assert_eq!(cpu_in("no stat line"), None);
    }

    #[test]
    fn resident_bytes_are_read() {
        let status = "Name:\tgatepost\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        assert_eq!(status_bytes(status, "VmRSS:"), Some(1 << 20));
        assert_eq!(status_bytes(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(status_bytes(status, "VmSwap:"), None);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let mut hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(percentile(&mut hundred, 50.0), 50);
        assert_eq!(percentile(&mut hundred, 99.0), 99);
        assert_eq!(percentile(&mut hundred, 100.0), 100);
        assert_eq!(percentile(&mut [7], 1.0), 7);
        assert_eq!(percentile(&mut [], 50.0), 0);
    }

    #[test]
    fn medians_ignore_outliers() {
        assert_eq!(median(&[3.0, 1000.0, 1.0]), 3.0);
        assert_eq!(median(&[1.0, 2.0]), 1.5);
        assert!(median(&[]).is_nan());
    }
}
