//! Logs: to stderr, as text or JSON.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;
use crate::failure::{Failure, Outcome};

/// Libraries that say at `info` what concerns only their authors. They come first, so that a filter
/// that names one of them has the last word.
const QUIET: &str = "refinery_core=warn,refinery=warn,hickory_resolver=warn,hickory_net=warn,hickory_proto=warn,\
                     hyper=warn,hyper_util=warn,rustls=warn,h2=warn";

/// Whether `filter` is one that can be used.
///
/// # Errors
/// Says what is wrong with it. A lone word that is no level is refused: it would be taken for a
/// module's name, and nothing would be logged at all.
pub fn check_filter(filter: &str) -> Result<(), String> {
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    for directive in filter.split(',').map(str::trim) {
        let word = !directive.is_empty() && !directive.contains(['=', '[', ']', '/', '"']);
        if word && !LEVELS.iter().any(|level| directive.eq_ignore_ascii_case(level)) {
            let levels = LEVELS.join(", ");
            return Err(format!("has {directive:?}, which is none of {levels}; for one module write {directive}=info"));
        }
    }
    match EnvFilter::builder().parse(filter) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("is {filter:?}, no log filter such as info or warn,gatepost_engine=debug: {error}")),
    }
}

/// The collector of spans the environment names, by OpenTelemetry's own variables: which of them, and its URL.
pub fn collector() -> Option<(&'static str, String)> {
    ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"].into_iter().find_map(|name| {
        let url = std::env::var(name).ok().filter(|url| !url.is_empty())?;
        Some((name, url))
    })
}

/// Starts logging, panics included: of a task that panics nobody else would hear, and the usual
/// report on stderr would break the lines of JSON.
///
/// # Errors
/// A bad filter, or logging was started before.
pub fn start(filter: &str, format: LogFormat) -> Outcome {
    let filter = EnvFilter::builder()
        .parse(format!("{QUIET},{filter}"))
        .map_err(|error| Failure::usage(format!("the log filter cannot be read: {error}")))?;
    let registry = tracing_subscriber::registry().with(filter);
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Text => registry.with(lines.with_ansi(std::io::stderr().is_terminal())).try_init(),
        LogFormat::Json => {
            registry.with(lines.json().flatten_event(true).with_current_span(true).with_span_list(false)).try_init()
        }
    };
    started.map_err(|error| Failure::failed(format!("logging cannot be started: {error}")))?;
    std::panic::set_hook(Box::new(|panic| {
        let message = panic.payload_as_str().unwrap_or("(no message)");
        let location = panic.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current();
        let backtrace = std::backtrace::Backtrace::capture();
        tracing::error!(
            thread = thread.name().unwrap_or("?"),
            location,
            backtrace = (backtrace.status() == std::backtrace::BacktraceStatus::Captured)
                .then(|| tracing::field::display(&backtrace)),
            "a thread panicked: {message}"
        );
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_judged() {
        for good in
            ["info", "WARN", "warn,gatepost_engine=debug", "gatepost[publish]=trace", "off", "info,", "hyper=trace"]
        {
            assert_eq!(check_filter(good), Ok(()), "{good}");
        }
        for bad in ["loud", "info,gatepost", "gatepost=loud", "a=b=c", "[", "info debug"] {
            assert!(check_filter(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_list_of_quiet_libraries_is_a_filter() {
        assert!(EnvFilter::builder().parse(QUIET).is_ok());
    }
}
