//! What a node shows of itself: logs, traces and metrics.
//!
//! [`Telemetry::start`] is called once per process, before anything else logs or counts. Everywhere else the
//! macros of `tracing` and `metrics` are used directly; where nothing was started (the simulation, tests)
//! they cost nothing.
//!
//! - **Logs** go to standard error, for people or as JSON. Fields carry the names `node`, `partition`, `txn`
//!   and `request_id`. Never keys or values at info or above. `RUST_LOG` decides what is logged; libraries
//!   that print payloads or heartbeats are capped unless it names them.
//! - **Traces** are exported by OTLP over HTTP when the usual `OTEL_` variables ask for it. Only spans made
//!   by [`span_with_parent`] and [`child_span`] are exported: one tree per request, continued on other nodes
//!   by carrying [`current_trace_context`] in the message. Without OTLP all three are no-ops.
//! - **Metrics** have one table of names in `metrics`; [`Metrics::render`] is what `/metrics` answers.

mod logs;
mod metrics;
mod process;
#[cfg(test)]
mod tests;
mod trace;

pub use logs::NodeLabel;
pub use metrics::{Buckets, METRICS, Metric, MetricKind, Metrics, UPKEEP_INTERVAL_MS};
pub use process::ProcessUsage;
pub(crate) use process::resident_bytes;
pub use trace::{TraceOptions, child_span, current_trace_context, span_with_parent};

use crate::config::LogFormat;
use opentelemetry_sdk::trace::SdkTracerProvider;
use std::time::Duration;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// How long spans may take to leave at the end. A collector that does not answer must not hold up a node
/// that is done.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// What telemetry needs to know.
#[derive(Debug, Clone)]
pub struct TelemetryOptions {
    /// How log lines look; [`LogFormat::Auto`] counts as human.
    pub log_format: LogFormat,
    /// Whether log lines may be coloured.
    pub colour: bool,
    /// The text of `RUST_LOG`, if set.
    pub log_filter: Option<String>,
    /// Where spans go, if anywhere.
    pub trace: Option<TraceOptions>,
    /// The program's version, for `trandb_build_info` and the trace resource.
    pub version: &'static str,
    /// The commit it was built from.
    pub commit: &'static str,
}

/// Why telemetry cannot start.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `RUST_LOG` cannot be understood.
    #[error("RUST_LOG: {0}")]
    LogFilter(String),
    /// An `OTEL_` variable cannot be honoured.
    #[error("{variable}: {message}")]
    Variable {
        /// Its name.
        variable: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The exporter cannot be built.
    #[error("cannot export traces: {0}")]
    Exporter(String),
    /// Somebody else already records logs or metrics in this process.
    #[error("telemetry is already started: {0}")]
    AlreadyStarted(String),
}

/// Telemetry of this process, running.
#[derive(Debug)]
pub struct Telemetry {
    metrics: Metrics,
    node: NodeLabel,
    tracer: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logs, metrics and, if asked for, traces. Once per process.
    ///
    /// # Errors
    /// A filter or variable that cannot be honoured, or a second start.
    pub fn start(options: &TelemetryOptions) -> Result<Self, TelemetryError> {
        let tracer =
            options.trace.as_ref().map(|trace| trace::provider(trace, options.version)).transpose()?;
        let filter = logs::filter(options.log_filter.as_deref(), tracer.is_some())?;
        let node = NodeLabel::default();
        let mut layers =
            vec![logs::layer(options.log_format, options.colour, std::io::stderr, filter, node.clone())];
        layers.extend(tracer.as_ref().map(trace::layer));
        tracing_subscriber::registry()
            .with(layers)
            .try_init()
            .map_err(|error| TelemetryError::AlreadyStarted(error.to_string()))?;
        let metrics = Metrics::install(options.version, options.commit)?;
        Ok(Self { metrics, node, tracer })
    }

    /// The metrics of this process.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// What puts the node's id on log lines, once it is known.
    pub fn node_label(&self) -> &NodeLabel {
        &self.node
    }

    /// Sends the spans that are still here. Blocks for three seconds at the most; call it outside the runtime.
    pub fn shutdown(self) {
        if let Some(tracer) = self.tracer
            && let Err(error) = tracer.shutdown_with_timeout(FLUSH_TIMEOUT)
        {
            tracing::warn!(%error, "the last spans may not have been exported");
        }
    }
}
