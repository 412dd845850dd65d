//! One request, one trace: spans of the node that took it and of the node that did it, as a collector gets them.

use crate::harness::{Cluster, eventually, within};
use axum::Router;
use axum::body::Bytes;
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1;
use prost::Message;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The longest that the export of a trace may take before another request is tried.
const EXPORT: Duration = Duration::from_secs(10);

/// The span of whoever asks.
const CALLER: &str = "00f067aa0ba902b7";

/// A span as it was exported, its ids in hexadecimal.
#[derive(Debug, Clone)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: String,
    node: String,
}

impl From<v1::Span> for Span {
    fn from(span: v1::Span) -> Self {
        let hexadecimal = |id: Vec<u8>| id.iter().map(|byte| format!("{byte:02x}")).collect();
        let node = span.attributes.into_iter().find(|attribute| attribute.key == "node");
        let node = node.and_then(|node| node.value?.value);
        Self {
            name: span.name,
            trace: hexadecimal(span.trace_id),
            id: hexadecimal(span.span_id),
            parent: hexadecimal(span.parent_span_id),
            node: if let Some(Value::StringValue(node)) = node { node } else { String::new() },
        }
    }
}

/// Takes spans over HTTP, until it is dropped.
struct Collector {
    _runtime: Runtime,
    addr: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    fn start() -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let bound = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        let listener = bound.expect("a free port");
        let addr = listener.local_addr().expect("bound");
        let spans = Arc::<Mutex<Vec<Span>>>::default();
        let taken = spans.clone();
        let take = post(async move |body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).expect("an export request");
            let scopes = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
            taken.lock().expect("no panic").extend(scopes.flat_map(|scope| scope.spans).map(Span::from));
        });
        runtime.spawn(async move { axum::serve(listener, Router::new().route("/v1/traces", take)).await });
        Self { _runtime: runtime, addr, spans }
    }

    fn trace(&self, id: &str) -> Vec<Span> {
        self.spans.lock().expect("no panic").iter().filter(|span| span.trace == id).cloned().collect()
    }

    /// Three nodes that send it their spans.
    fn cluster(&self) -> Cluster {
        let environment = vec![
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.addr)),
            ("OTEL_BSP_SCHEDULE_DELAY", "100".into()),
        ];
        Cluster::start_with(3, &[], environment)
    }
}

/// What says of which trace a request is.
fn traceparent(id: &str) -> String {
    format!("00-{id}-{CALLER}-01")
}

/// Whether a span of that name is part of one of the other name.
fn has(spans: &[Span], name: &str, parent: &str) -> bool {
    spans.iter().any(|span| {
        span.name == name && spans.iter().any(|above| above.id == span.parent && above.name == parent)
    })
}

#[test]
fn a_request_is_one_trace_over_the_nodes_that_serve_it() {
    let collector = Collector::start();
    let cluster = collector.cluster();

    // Whoever leads the key's partition, two of the three nodes have to ask another one.
    for (number, node) in cluster.nodes.iter().enumerate() {
        let requests =
            [(1, "PUT", "/keys/traced"), (2, "GET", "/keys/traced"), (3, "GET", "/keys?prefix=traced")];
        for (kind, method, path) in requests {
            let parent = traceparent(&format!("{kind}{number:031x}"));
            // Again while a leader is being elected: a trace may then hold more than one request.
            let answer = node.http(method, path, &[("traceparent", &parent)], b"v");
            assert_eq!(answer.status, 200, "{method} {path}: {}", answer.text());
        }
    }

    let mut crossings = BTreeSet::new();
    for number in 0..cluster.nodes.len() {
        for (kind, outer, inner) in [
            (1, "PUT /keys/{key}", "partition write"),
            (2, "GET /keys/{key}", "partition read"),
            (3, "GET /keys", "partition scan"),
        ] {
            let id = format!("{kind}{number:031x}");
            let wanted: BTreeSet<&str> =
                if kind == 1 { [outer, inner, "replicate"].into() } else { [outer, inner].into() };
            let spans = eventually(&format!("the export of {outer} with {inner}"), || {
                let spans = collector.trace(&id);
                let names: BTreeSet<&str> = spans.iter().map(|span| span.name.as_str()).collect();
                let here = |id: &str| id == CALLER || spans.iter().any(|span| span.id == id);
                let whole = names.is_superset(&wanted) && spans.iter().all(|span| here(&span.parent));
                if whole { Ok(spans) } else { Err(format!("{spans:?}")) }
            });
            let by_id: BTreeMap<&str, &Span> = spans.iter().map(|span| (span.id.as_str(), span)).collect();
            for span in &spans {
                match span.name.as_str() {
                    "replicate" => assert_eq!(by_id[span.parent.as_str()].name, inner, "{spans:?}"),
                    name if name == inner => {
                        let request = by_id[span.parent.as_str()];
                        assert_eq!(request.name, outer, "{spans:?}");
                        assert!(!span.node.is_empty() && !request.node.is_empty(), "{spans:?}");
                        if span.node != request.node {
                            crossings.insert((kind, request.node.clone()));
                        }
                    }
                    _ => assert_eq!((span.name.as_str(), span.parent.as_str()), (outer, CALLER), "{spans:?}"),
                }
            }
        }
    }
    for kind in 1..=3 {
        let crossed = crossings.iter().filter(|(crossed, _)| *crossed == kind).count();
        assert!(crossed >= 2, "traces of kind {kind} that go to another node: {crossings:?}");
    }
}

/// The phases of a transaction, each with the span that it is a part of.
const PHASES: &[(&str, &str)] = &[
    ("txn begin", "POST /batch"),
    ("txn prepare", "POST /batch"),
    ("partition prepare", "txn prepare"),
    ("txn decide", "POST /batch"),
    ("partition decide", "txn decide"),
    ("txn resolve", "POST /batch"),
    ("partition resolve", "txn resolve"),
    ("partition finish", "txn resolve"),
];

#[test]
fn each_phase_of_a_batch_is_a_span_of_its_request() {
    let collector = Collector::start();
    let cluster = collector.cluster();
    cluster.wait_spread();
    let ops: Vec<String> =
        (0..32).map(|key| format!(r#"{{"op":"put","key":"phases/{key}","value":"v"}}"#)).collect();
    let batch = format!("{{\"ops\":[{}]}}", ops.join(","));

    // One trace of one batch over all partitions, so over all nodes, each of which exports by itself. Again should leadership have
    // moved, so that a node had no part in it.
    let mut number = 0;
    let spans = eventually("the export of all phases by all nodes", || {
        number += 1;
        let id = format!("4{number:031x}");
        let parent = traceparent(&id);
        let answer = cluster.nodes[0].http("POST", "/batch", &[("traceparent", &parent)], batch.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        within(EXPORT, || {
            let spans = collector.trace(&id);
            // The anchor prepares nothing, and may be all that its node leads.
            let partitions = spans.iter().filter(|span| span.name.starts_with("partition "));
            let leading = partitions.map(|span| &span.node).collect::<BTreeSet<_>>().len();
            let all = leading == 3 && PHASES.iter().all(|(name, parent)| has(&spans, name, parent));
            if all { Ok(spans) } else { Err(format!("{spans:?}")) }
        })
    });
    for (name, parent) in PHASES {
        for span in spans.iter().filter(|span| span.name == *name) {
            let above = spans.iter().find(|above| above.id == span.parent);
            assert_eq!(above.map(|above| above.name.as_str()), Some(*parent), "{span:?}");
        }
    }
    assert!(has(&spans, "replicate", "partition prepare"), "{spans:?}");
}

#[test]
fn each_step_of_a_transaction_is_a_span_of_its_own_request() {
    let collector = Collector::start();
    let cluster = collector.cluster();
    let ask = |node: usize, method: &str, path: &str, id: &str, status: u16| {
        let parent = traceparent(id);
        let answer = cluster.nodes[node].http(method, path, &[("traceparent", &parent)], b"");
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text());
        answer
    };

    // A lock that is waited for, and a commit in one partition, each asked for through another node.
    let (begun, lock, commit) = (format!("5{:031x}", 1), format!("6{:031x}", 1), format!("7{:031x}", 1));
    let answer = ask(1, "POST", "/txn", &begun, 201).json();
    let txn = answer["id"].as_str().expect("an id");
    let path = format!("/txn/{txn}/keys/locked");
    ask(2, "POST", &format!("{path}/lock"), &lock, 204);
    assert_eq!(cluster.nodes[0].http("PUT", &path, &[], b"v").status, 200);
    ask(2, "POST", &format!("/txn/{txn}/commit"), &commit, 200);
    for (id, name, parent) in [
        (&begun, "txn begin", "POST /txn"),
        (&lock, "txn lock wait", "/txn/{id}/keys"),
        (&commit, "txn commit", "POST /txn/{id}/commit"),
        (&commit, "partition commit", "txn commit"),
    ] {
        eventually(&format!("the export of {name} within {parent}"), || {
            let spans = collector.trace(id);
            if has(&spans, name, parent) { Ok(()) } else { Err(format!("{spans:?}")) }
        });
    }
}
