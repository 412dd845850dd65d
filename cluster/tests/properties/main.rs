//! The clever parts against dumb twins, on random inputs.

mod decided;
mod engine;
mod oracle;
mod partition;
mod placement;
mod twin;
