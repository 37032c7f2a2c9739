//! Threads whose log lines can be traced to whoever started them.

use std::io;
use std::thread::{Builder, JoinHandle};

/// Starts a thread that does `work` inside a span of the caller's, which carries the thread's name.
pub fn start<T: Send + 'static>(
    name: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<JoinHandle<T>> {
    let span = tracing::trace_span!("thread", name);
    Builder::new().name(name.to_owned()).spawn(move || span.in_scope(work))
}
