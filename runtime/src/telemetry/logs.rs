//! Log lines: their filter, their two formats, and the node's id on each.

use super::{TelemetryError, trace};
use crate::config::LogFormat;
use std::fmt;
use std::sync::{Arc, OnceLock};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{FmtContext, MakeWriter};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};
use trandb_cluster::NodeId;

/// A layer of the subscriber.
pub(super) type BoxedLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// What is logged unless `RUST_LOG` says otherwise. It stands before `RUST_LOG`, whose directives win where
/// they name the same target: a bare `RUST_LOG=debug` leaves the caps in place, since `ractor_cluster` prints
/// whole messages, keys and values among them, at debug, and `openraft` several lines per heartbeat, a warning for
/// each while a peer is down. That a peer is down, our own lines say once.
const BASE: &str = "info,ractor=warn,ractor_cluster=error,openraft=error,sled=warn,fjall=warn,lsm_tree=warn,hyper=info,h2=info,opentelemetry=warn";

/// Joins the base filter, whether request spans are on, and the text of `RUST_LOG`.
pub(super) fn filter(rust_log: Option<&str>, traced: bool) -> Result<EnvFilter, TelemetryError> {
    let spans = if traced { "info" } else { "off" };
    let mut directives = format!("{BASE},{}={spans}", trace::TARGET);
    if let Some(rust_log) = rust_log.filter(|text| !text.trim().is_empty()) {
        directives.push(',');
        directives.push_str(rust_log);
    }
    EnvFilter::try_new(directives).map_err(|error| TelemetryError::LogFilter(error.to_string()))
}

/// The layer that writes lines to `writer`.
pub(super) fn layer<W>(
    format: LogFormat,
    colour: bool,
    writer: W,
    filter: EnvFilter,
    label: NodeLabel,
) -> BoxedLayer
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .map_event_format(|format| Labelled { format, label, json: true })
            .with_filter(filter)
            .boxed(),
        LogFormat::Auto | LogFormat::Human => layer
            .with_ansi(colour)
            .map_event_format(|format| Labelled { format: format.with_ansi(colour), label, json: false })
            .with_filter(filter)
            .boxed(),
    }
}

/// Whose log it is: stands on every line once it is set. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct NodeLabel(Arc<OnceLock<NodeId>>);

impl NodeLabel {
    /// From now on lines carry this id. A process has one node: the first call counts.
    pub fn set(&self, node: NodeId) {
        self.0.get_or_init(|| node);
    }
}

/// A format with the node's id as the last field, where the event does not name a node itself.
struct Labelled<F> {
    format: F,
    label: NodeLabel,
    json: bool,
}

impl<S, N, F> FormatEvent<S, N> for Labelled<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let label = self.label.0.get().filter(|_| event.metadata().fields().field("node").is_none());
        let Some(node) = label else { return self.format.format_event(context, writer, event) };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        match line.strip_suffix('}').filter(|_| self.json) {
            Some(open) => writeln!(writer, "{open},\"node\":\"{node}\"}}"),
            None => writeln!(writer, "{line} node={node}"),
        }
    }
}
