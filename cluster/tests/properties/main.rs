//! The clever parts against dumb twins, on random inputs.

mod audit;
mod check;
mod decided;
mod engine;
mod oracle;
mod partition;
mod placement;
mod steps;
mod twin;
