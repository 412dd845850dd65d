//! Threads whose work can wait. On a busy machine a small request waits for its turn on a core several times before it is
//! answered, each time behind whatever else wants to run: that should not be a checkpoint.

/// The calling thread, and those that it starts from now on, get a core where others want it, too, for about a quarter of
/// the time: enough that what they do for the node never comes to a stop, and that checkpoints follow writes which take all
/// that there is. With a tenth of the time the log was a third longer then.
///
/// A system that refuses, or has no such thing for single threads, leaves them as they are.
pub(crate) fn can_wait() {
    /// A thread's weight is 1024 at 0, and 335 at 5.
    #[cfg(target_os = "linux")]
    const NICE: i32 = 5;
    // Linux takes "this process" to mean the calling thread.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread's priority was not lowered");
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::can_wait;

    /// What the system says of the calling thread.
    fn nice() -> i32 {
        rustix::process::getpriority_process(None).expect("the system knows this thread")
    }

    #[test]
    #[allow(clippy::disallowed_methods, reason = "about threads")]
    fn a_thread_that_can_wait_takes_the_threads_that_it_starts_along_and_no_other() {
        let before = nice();
        let (own, child) = std::thread::spawn(|| {
            can_wait();
            (nice(), std::thread::spawn(nice).join().expect("no panic"))
        })
        .join()
        .expect("no panic");
        assert!(own > before || before >= 5, "{own} after {before}");
        assert_eq!(child, own);
        assert_eq!(nice(), before);
    }
}
