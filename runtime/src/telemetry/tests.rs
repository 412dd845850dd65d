use super::*;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use tracing_subscriber::fmt::MakeWriter;

/// Log lines, kept.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("no writer panics").clone()).expect("logs are text")
    }
}

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no writer panics").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Lines {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

fn logged(format: LogFormat, rust_log: Option<&str>, log: impl FnOnce()) -> String {
    logged_by(NodeLabel::default(), format, rust_log, log)
}

fn logged_by(label: NodeLabel, format: LogFormat, rust_log: Option<&str>, log: impl FnOnce()) -> String {
    let lines = Lines::default();
    let filter = logs::filter(rust_log, false).expect("a valid filter");
    let subscriber =
        tracing_subscriber::registry().with(logs::layer(format, false, lines.clone(), filter, label));
    tracing::subscriber::with_default(subscriber, log);
    lines.text()
}

#[test]
fn json_lines_carry_fields_at_the_top() {
    let text = logged(LogFormat::Json, None, || tracing::info!(node = "n1", partition = "p3", "leads"));
    assert!(text.starts_with('{') && text.ends_with("}\n") && text.lines().count() == 1, "{text}");
    for part in [
        "\"level\":\"INFO\"",
        "\"message\":\"leads\"",
        "\"node\":\"n1\"",
        "\"partition\":\"p3\"",
        "\"timestamp\":",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let text = logged(LogFormat::Human, None, || tracing::info!(node = "n1", "leads"));
    assert!(text.contains("INFO") && text.contains("leads node=\"n1\""), "{text}");
}

#[test]
fn lines_carry_the_nodes_id_once_it_is_known() {
    let label = NodeLabel::default();
    let log = || {
        tracing::info!("starting");
        label.set(trandb_cluster::NodeId(3));
        tracing::info!(term = 2, "leads");
        tracing::info!(node = "n7", "joined");
    };
    let json = logged_by(label.clone(), LogFormat::Json, None, log);
    let lines: Vec<&str> = json.lines().collect();
    assert!(!lines[0].contains("node"), "{json}");
    assert!(lines[1].starts_with('{') && lines[1].ends_with(",\"node\":\"n3\"}"), "{json}");
    assert!(lines[2].contains("\"node\":\"n7\"") && !lines[2].contains("n3"), "{json}");
    let human = logged_by(label.clone(), LogFormat::Human, None, || tracing::info!(term = 2, "leads"));
    assert!(human.ends_with("leads term=2 node=n3\n"), "{human}");
}

#[test]
fn chatty_libraries_stay_capped_unless_named() {
    let log = || {
        tracing::debug!("ours");
        tracing::debug!(target: "ractor_cluster::node", "payload");
        tracing::info!(target: "openraft::core", "heartbeat");
        tracing::warn!(target: "openraft::core", "unreachable");
        tracing::error!(target: "openraft::core", "trouble");
    };
    let quiet = logged(LogFormat::Human, None, log);
    assert!(!quiet.contains("ours") && !quiet.contains("heartbeat") && quiet.contains("trouble"), "{quiet}");
    assert!(!quiet.contains("unreachable"), "{quiet}");
    let debug = logged(LogFormat::Human, Some("debug"), log);
    assert!(debug.contains("ours") && !debug.contains("payload") && !debug.contains("heartbeat"), "{debug}");
    let named = logged(LogFormat::Human, Some("ractor_cluster=debug,openraft=info"), log);
    assert!(named.contains("payload") && named.contains("heartbeat") && !named.contains("ours"), "{named}");
    let error = logs::filter(Some("trandb=loudly"), false).expect_err("no such level");
    assert!(error.to_string().starts_with("RUST_LOG: "), "{error}");
}

#[test]
fn traces_follow_the_standard_variables() {
    let read = |variables: &[(&'static str, &str)]| {
        let variables: BTreeMap<_, _> =
            variables.iter().map(|(name, value)| (*name, value.to_string())).collect();
        TraceOptions::from_environment(|name| variables.get(name).cloned())
            .map(|options| options.map(|options| options.endpoint))
            .map_err(|error| error.to_string())
    };
    let on = |endpoint: &str| Ok(Some(endpoint.to_string()));
    let shared = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
    assert_eq!(read(&[]), Ok(None));
    assert_eq!(read(&[shared]), on("http://collector:4318/v1/traces"));
    assert_eq!(read(&[shared, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t/x")]), on("http://t/x"));
    assert_eq!(read(&[("OTEL_TRACES_EXPORTER", "otlp")]), on("http://localhost:4318/v1/traces"));
    assert_eq!(read(&[shared, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
    assert_eq!(read(&[shared, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
    assert_eq!(
        read(&[("OTEL_TRACES_EXPORTER", "zipkin")]),
        Err("OTEL_TRACES_EXPORTER: \"zipkin\" is neither otlp nor none".into())
    );
    assert_eq!(
        read(&[shared, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]),
        Err("OTEL_EXPORTER_OTLP_PROTOCOL: \"grpc\" is not http/protobuf, the only one built".into())
    );
    assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c")]).expect_err("no TLS").contains("TLS"));
}

#[test]
fn without_export_spans_cost_and_carry_nothing() {
    let filter = logs::filter(Some("trace"), false).expect("valid");
    let layer = logs::layer(LogFormat::Human, false, Lines::default(), filter, NodeLabel::default());
    let subscriber = tracing_subscriber::registry().with(layer);
    tracing::subscriber::with_default(subscriber, || {
        let span = span_with_parent("get", None);
        assert!(span.is_none() && child_span("apply").is_none());
        span.in_scope(|| assert_eq!(current_trace_context(), None));
    });
}

/// Takes one request as a collector would; answers it and gives back its path and body.
fn collect_one(listener: &TcpListener) -> (String, Vec<u8>) {
    let (stream, _) = listener.accept().expect("the exporter connects");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request line");
    let path = line.split(' ').nth(1).expect("a path").to_string();
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).expect("a header");
        if header.trim().is_empty() {
            break;
        }
        if let Some(value) = header.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a number");
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("the body");
    reader.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("answered");
    (path, body)
}

/// The spans in an export request, by name.
fn spans_in(request: &[u8]) -> BTreeMap<String, Span> {
    let request = ExportTraceServiceRequest::decode(request).expect("an export request");
    let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    scopes.flat_map(|scope| scope.spans).map(|span| (span.name.clone(), span)).collect()
}

#[test]
#[allow(
    clippy::disallowed_methods,
    reason = "the collector stands for another program, with time of its own"
)]
fn one_request_over_two_nodes_is_exported_as_one_tree() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}/v1/traces", listener.local_addr().expect("bound"));
    let collector = std::thread::spawn(move || collect_one(&listener));
    let options = TraceOptions { endpoint, service_name: Some("test".into()) };
    let provider = trace::provider(&options, "0").expect("a provider");
    let filter = logs::filter(None, true).expect("valid");
    let lines = logs::layer(LogFormat::Human, false, Lines::default(), filter, NodeLabel::default());
    let layers = vec![lines, trace::layer(&provider)];
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layers), || {
        let request = span_with_parent("put", None);
        let carried = request.in_scope(|| {
            let step = child_span("propose");
            step.in_scope(|| current_trace_context().expect("a request is being traced"))
        });
        assert!(carried.sampled);
        let remote = span_with_parent("append", Some(&carried));
        remote.in_scope(|| {
            let there = current_trace_context().expect("it goes on");
            assert_eq!(there.trace_id, carried.trace_id);
            assert_ne!(there.span_id, carried.span_id);
        });
        // Not ours to export.
        tracing::info_span!("noise").in_scope(|| tracing::info!("noise"));
    });
    provider.shutdown_with_timeout(FLUSH_TIMEOUT).expect("exported");

    let (path, body) = collector.join().expect("collected");
    assert_eq!(path, "/v1/traces");
    let spans = spans_in(&body);
    assert_eq!(spans.keys().collect::<Vec<_>>(), ["append", "propose", "put"]);
    let (put, propose, append) = (&spans["put"], &spans["propose"], &spans["append"]);
    assert!(put.parent_span_id.is_empty(), "the request is the root");
    assert_eq!(propose.parent_span_id, put.span_id);
    assert_eq!(append.parent_span_id, propose.span_id);
    assert_eq!(put.trace_id.len(), 16);
    assert!([propose, append].iter().all(|span| span.trace_id == put.trace_id), "one trace");
}

#[test]
fn the_table_of_metrics_keeps_its_own_rules() {
    let mut names = std::collections::BTreeSet::new();
    for Metric { name, kind, labels, help } in METRICS {
        assert!(names.insert(name), "{name} stands twice");
        assert!(name.starts_with("trandb_"), "{name}");
        assert_eq!(*kind == MetricKind::Counter, name.ends_with("_total"), "{name}");
        assert!(help.ends_with('.') && labels.len() <= 2, "{name}");
        if let MetricKind::Histogram(buckets) = kind {
            assert!(buckets.bounds().is_sorted());
            assert_eq!(*buckets == Buckets::Seconds, name.ends_with("_seconds"), "{name}");
        }
    }
}

#[test]
fn histograms_have_buckets_and_the_process_shows_itself() {
    let recorder = metrics::recorder();
    let rendered = ::metrics::with_local_recorder(&recorder, || {
        metrics::describe();
        ::metrics::histogram!("trandb_request_seconds", "kind" => "get").record(0.000_3);
        ::metrics::histogram!("trandb_wal_batch_records").record(3.0);
        ::metrics::counter!("trandb_requests_total", "kind" => "get", "outcome" => "ok").increment(2);
        Metrics::of(&recorder).render()
    });
    for line in [
        "# HELP trandb_request_seconds Time from a request's arrival to its answer.",
        "# TYPE trandb_request_seconds histogram",
        "trandb_request_seconds_bucket{kind=\"get\",le=\"0.0002\"} 0",
        "trandb_request_seconds_bucket{kind=\"get\",le=\"0.0005\"} 1",
        "trandb_request_seconds_bucket{kind=\"get\",le=\"+Inf\"} 1",
        "trandb_wal_batch_records_bucket{le=\"4\"} 1",
        "trandb_requests_total{kind=\"get\",outcome=\"ok\"} 2",
    ] {
        assert!(rendered.lines().any(|rendered| rendered == line), "{line} is not in\n{rendered}");
    }
    assert!(rendered.contains("\ntrandb_process_resident_bytes "), "{rendered}");
}

fn sources_below(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            sources_below(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The names in `text` that a macro of the `metrics` crate records.
fn names_recorded(text: &str) -> Vec<&str> {
    ["counter!(", "gauge!(", "histogram!("]
        .into_iter()
        .flat_map(|call| text.split(call).skip(1))
        .filter_map(|after| after.trim_start().strip_prefix("\"trandb_")?.split('"').next())
        .collect()
}

#[test]
fn the_table_holds_the_metrics_that_are_recorded_and_no_others() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut sources = Vec::new();
    for part in ["runtime/src", "actors/src", "bin/src"] {
        sources_below(&root.join(part), &mut sources);
    }
    let mut recorded = std::collections::BTreeSet::new();
    for source in sources.into_iter().filter(|source| !source.ends_with("telemetry/tests.rs")) {
        let text = std::fs::read_to_string(&source).expect("readable");
        for name in names_recorded(&text) {
            recorded.insert(format!("trandb_{name}"));
            let known = METRICS.iter().any(|metric| metric.name.strip_prefix("trandb_") == Some(name));
            assert!(known, "trandb_{name}, recorded in {}, is not in the table", source.display());
        }
    }
    for metric in METRICS {
        assert!(recorded.contains(metric.name), "{} is in the table, and nobody records it", metric.name);
    }
}
