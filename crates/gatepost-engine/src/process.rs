//! What the system says of this process, in the words every exporter has for it (`process_…`).

use std::fmt::Write as _;

/// Clock ticks a second in `/proc`: fixed in Linux's interface to programs.
const TICKS: f64 = 100.0;

/// OpenMetrics text; empty where the system does not tell.
pub(crate) fn metrics() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    text(
        &read("/proc/self/stat"),
        &read("/proc/self/status"),
        &read("/proc/stat"),
        &read("/proc/self/limits"),
        open_files(),
    )
}

fn open_files() -> Option<usize> {
    // The listing itself is one of them.
    std::fs::read_dir("/proc/self/fd").ok().map(|files| files.count().saturating_sub(1))
}

fn text(stat: &str, status: &str, system: &str, limits: &str, open: Option<usize>) -> String {
    // The program's name, in brackets, may have anything in it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |at: usize| fields.get(at)?.parse::<f64>().ok();
    let kib = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim_start_matches(':').split_whitespace().next()?.parse::<f64>().ok()
    };
    let booted = system.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
    let most =
        limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next()?.parse().ok());
    let cpu = ticks(11).zip(ticks(12)).map(|(user, system)| (user + system) / TICKS);
    let started = booted.zip(ticks(19)).map(|(booted, after)| booted + after / TICKS);
    let mut out = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: Option<f64>| {
        let Some(value) = value else { return };
        let suffix = if kind == "counter" { "_total" } else { "" };
        // Writing to a String cannot fail.
        let _ = write!(out, "# HELP {name} {help}.\n# TYPE {name} {kind}\n{name}{suffix} {value}\n");
    };
    let bytes = |name: &str| kib(name).map(|kib| kib * 1024.0);
    metric("process_cpu_seconds", "counter", "Time of processors used, in user and system mode", cpu);
    metric("process_resident_memory_bytes", "gauge", "Memory in use", bytes("VmRSS"));
    metric("process_virtual_memory_bytes", "gauge", "Memory addressed", bytes("VmSize"));
    metric("process_start_time_seconds", "gauge", "When the process began, since 1970", started);
    metric("process_open_fds", "gauge", "Descriptors open", open.map(|open| open as f64));
    metric("process_max_fds", "gauge", "Descriptors that may be open", most);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_tells_is_read_and_what_it_does_not_tell_is_left_out() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 50 0 0 20 0 9 0 1000 0 0";
        let status = "Name:\ta\nVmSize:\t    2048 kB\nVmRSS:\t    1024 kB\n";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 4096                 files\n";
        let told = text(stat, status, "cpu 1\nbtime 1700000000\n", limits, Some(12));
        for line in [
            "process_cpu_seconds_total 2\n",
            "process_resident_memory_bytes 1048576\n",
            "process_virtual_memory_bytes 2097152\n",
            "process_start_time_seconds 1700000010\n",
            "process_open_fds 12\n",
            "process_max_fds 1024\n",
        ] {
            assert!(told.contains(line), "{line} is not in {told}");
        }
        assert_eq!(text("", "", "", "", None), "");
    }
}
