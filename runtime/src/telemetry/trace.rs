//! Request spans and their export by OTLP (protobuf over HTTP).
//!
//! ```text
//!   span_with_parent ──▶ tracing ──▶ OpenTelemetry layer ──▶ batch thread ──▶ Exporter ──▶ collector
//!   (this target only)                (sampler)               (bounded queue,    (own small
//!                                                              drops when full)   runtime)
//! ```
//!
//! The batch thread is not part of our runtime, and the HTTP client needs one: the exporter brings its own
//! single-threaded runtime, so that exporting neither waits for the node nor the node for a collector.
//!
//! **Caveats.** No TLS: an `https` endpoint is refused; run a collector next to the node. Only the OTLP
//! exporter and its protobuf form exist here.

use super::TelemetryError;
use super::logs::BoxedLayer;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use tracing::{Level, Span, field};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::filter_fn;
use trandb_cluster::wire::TraceContext;

/// Target of the spans that are exported, and of no others.
pub(super) const TARGET: &str = "trandb::request";

/// Where traces go under an endpoint that is shared by all signals.
const TRACES_PATH: &str = "v1/traces";

/// Where spans go. Headers, sampler, batch sizes and resource attributes are read from their own `OTEL_`
/// variables by the OpenTelemetry libraries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceOptions {
    /// The whole URL, `http://host:4318/v1/traces`.
    pub endpoint: String,
    /// Name of the service; none takes `OTEL_SERVICE_NAME` or `trandb`.
    pub service_name: Option<String>,
}

impl TraceOptions {
    /// Reads the standard variables through `lookup`. Traces are on when an endpoint is set or
    /// `OTEL_TRACES_EXPORTER` is `otlp`; `OTEL_SDK_DISABLED=true` and `OTEL_TRACES_EXPORTER=none` win.
    ///
    /// # Errors
    /// An exporter, protocol or endpoint that this program cannot do.
    pub fn from_environment(
        lookup: impl Fn(&'static str) -> Option<String>,
    ) -> Result<Option<Self>, TelemetryError> {
        let lookup = |variable| lookup(variable).filter(|value| !value.trim().is_empty());
        if lookup("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Ok(None);
        }
        let exporter = lookup("OTEL_TRACES_EXPORTER");
        let specific = lookup("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let shared = lookup("OTEL_EXPORTER_OTLP_ENDPOINT");
        match exporter.as_deref().map(str::trim) {
            Some("none") => return Ok(None),
            Some("otlp") => {}
            Some(other) => {
                let message = format!("\"{other}\" is neither otlp nor none");
                return Err(TelemetryError::Variable { variable: "OTEL_TRACES_EXPORTER", message });
            }
            None if specific.is_none() && shared.is_none() => return Ok(None),
            None => {}
        }
        for variable in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if let Some(protocol) = lookup(variable).filter(|protocol| protocol != "http/protobuf") {
                let message = format!("\"{protocol}\" is not http/protobuf, the only one built");
                return Err(TelemetryError::Variable { variable, message });
            }
        }
        let (variable, endpoint) = match (specific, shared) {
            (Some(endpoint), _) => ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint),
            (None, Some(base)) => {
                ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("{}/{TRACES_PATH}", base.trim_end_matches('/')))
            }
            (None, None) => ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://localhost:4318/{TRACES_PATH}")),
        };
        if !endpoint.starts_with("http://") {
            let message = format!("\"{endpoint}\" does not start with http://, and TLS is not built in");
            return Err(TelemetryError::Variable { variable, message });
        }
        Ok(Some(Self { endpoint, service_name: lookup("OTEL_SERVICE_NAME") }))
    }
}

/// A span for a request that came in, or for its part that another node asked for. Part of the trace that
/// `parent` names, or the root of a new one. A no-op without export. Its fields `node`, `partition`, `txn` and
/// `request_id` can be recorded later.
pub fn span_with_parent(name: &'static str, parent: Option<&TraceContext>) -> Span {
    if !enabled() {
        return Span::none();
    }
    let span = tracing::info_span!(
        target: TARGET,
        parent: None,
        "request",
        otel.name = name,
        otel.kind = "server",
        node = field::Empty,
        partition = field::Empty,
        txn = field::Empty,
        request_id = field::Empty,
    );
    if let Some(parent) = parent {
        // It can only fail when the span is not exported, and then it has no parent to miss.
        let _ = span.set_parent(Context::new().with_remote_span_context(span_context(parent)));
    }
    span
}

/// A span for a step of what the current span does on this node. A no-op without export.
pub fn child_span(name: &'static str) -> Span {
    if !enabled() {
        return Span::none();
    }
    tracing::info_span!(target: TARGET, "step", otel.name = name, partition = field::Empty, node = field::Empty)
}

/// The current span as it travels in a message; none when nothing is exported or no request span is entered.
pub fn current_trace_context() -> Option<TraceContext> {
    if !enabled() {
        return None;
    }
    let context = Span::current().context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| TraceContext {
        trace_id: u128::from_be_bytes(span.trace_id().to_bytes()),
        span_id: u64::from_be_bytes(span.span_id().to_bytes()),
        sampled: span.is_sampled(),
    })
}

/// Whether anything listens to request spans. A cached flag of this one place in the code.
fn enabled() -> bool {
    tracing::enabled!(target: TARGET, Level::INFO)
}

fn span_context(context: &TraceContext) -> SpanContext {
    SpanContext::new(
        TraceId::from_bytes(context.trace_id.to_be_bytes()),
        SpanId::from_bytes(context.span_id.to_be_bytes()),
        TraceFlags::default().with_sampled(context.sampled),
        true,
        TraceState::default(),
    )
}

/// The layer that turns request spans into OpenTelemetry's.
pub(super) fn layer(provider: &SdkTracerProvider) -> BoxedLayer {
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer("trandb"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_filter(filter_fn(|metadata| metadata.target() == TARGET))
        .boxed()
}

/// Builds the pipeline from spans to the collector.
pub(super) fn provider(
    options: &TraceOptions,
    version: &'static str,
) -> Result<SdkTracerProvider, TelemetryError> {
    let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", version));
    let named = options.service_name.clone();
    // Without a name the libraries would call every service `unknown_service`.
    resource = resource.with_service_name(named.unwrap_or_else(|| "trandb".into()));
    Ok(SdkTracerProvider::builder()
        .with_resource(resource.build())
        .with_batch_exporter(Exporter::new(&options.endpoint)?)
        .build())
}

/// The OTLP exporter together with the runtime that its HTTP client needs.
#[derive(Debug)]
struct Exporter {
    otlp: opentelemetry_otlp::SpanExporter,
    /// Taken out when the exporter goes, wherever that may be.
    runtime: Mutex<Option<tokio::runtime::Runtime>>,
    /// The last batch was lost: said once, not once per batch.
    failing: AtomicBool,
}

impl Exporter {
    fn new(endpoint: &str) -> Result<Self, TelemetryError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| TelemetryError::Exporter(error.to_string()))?;
        let otlp = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(endpoint)
            .with_protocol(Protocol::HttpBinary)
            .build()
            .map_err(|error| TelemetryError::Exporter(error.to_string()))?;
        Ok(Self { otlp, runtime: Mutex::new(Some(runtime)), failing: AtomicBool::new(false) })
    }

    /// Runs on the batch thread, which belongs to no runtime.
    fn export_here(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(runtime) = runtime.as_ref() else { return Err(OTelSdkError::AlreadyShutdown) };
        let result = runtime.block_on(self.otlp.export(batch));
        match &result {
            Err(error) if !self.failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(spans, %error, "spans are lost until the trace collector answers");
            }
            Ok(()) if self.failing.swap(false, Ordering::Relaxed) => {
                tracing::info!(spans, "the trace collector answers again");
            }
            _ => {}
        }
        result
    }
}

impl SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.export_here(batch)
    }

    fn shutdown_with_timeout(&self, timeout: std::time::Duration) -> OTelSdkResult {
        self.otlp.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        // A plain drop would panic if the last owner happens to be a task of another runtime.
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }
}
