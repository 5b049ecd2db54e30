//! Being told to stop.

use crate::failure::{Failure, Outcome};

/// SIGTERM and SIGINT (elsewhere than on Unix: Ctrl-C).
pub(super) struct Signals {
    #[cfg(unix)]
    term: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// From now on the signals come here and no longer end the process by themselves.
    pub(super) fn new() -> Outcome<Signals> {
        #[cfg(unix)]
        {
            use tokio::signal::unix::{SignalKind, signal};
            let open = || std::io::Result::Ok((signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?));
            let (term, interrupt) =
                open().map_err(|error| Failure::failed(format!("signals cannot be listened to: {error}")))?;
            Ok(Signals { term, interrupt })
        }
        #[cfg(not(unix))]
        Ok(Signals {})
    }

    /// The next signal.
    pub(super) async fn next(&mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
        #[cfg(not(unix))]
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The next signal; the one after it ends the process at once, whatever is still being finished.
    pub(super) async fn next_then_exit(mut self) {
        self.next().await;
        self.exit_on_next();
    }

    /// From now on a signal ends the process at once.
    pub(super) fn exit_on_next(mut self) {
        tokio::spawn(async move {
            self.next().await;
            std::process::exit(1);
        });
    }
}
