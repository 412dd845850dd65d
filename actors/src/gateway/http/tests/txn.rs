//! Transactions through the HTTP door: a golden list of answers, and what a list cannot show.

use super::*;
use goldenscript::{Command, Context, Runner};
use std::error::Error as StdError;
use std::fmt::Write as _;

/// Headers that a client is to act on.
const SHOWN_HEADERS: [&str; 4] = ["location", "etag", "retry-after", "allow"];

/// Sends each line's request and shows its answer: `METHOD "path" [header=value]… [body="…"]`. `idle ID` lets a
/// transaction's time run out.
struct Script {
    runtime: tokio::runtime::Runtime,
    door: Door,
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _: &Context) -> Result<String, Box<dyn StdError>> {
        let mut args = command.consume_args();
        let target = args.next_pos().ok_or("no path")?.to_owned();
        if command.name == "idle" {
            self.door.database.abort_idle(target.parse()?);
            return Ok(String::new());
        }
        let (mut headers, mut body) = (Vec::new(), String::new());
        while let Some((name, value)) = args.next_key() {
            match name {
                "body" => value.clone_into(&mut body),
                name => headers.push((name, value)),
            }
        }
        args.reject_next()?;
        let answer =
            self.runtime.block_on(send(&self.door, &command.name, &target, &headers, body.as_bytes()));
        Ok(show(&answer))
    }
}

fn show(answer: &Answer) -> String {
    let mut shown = answer.status.to_string();
    for name in SHOWN_HEADERS {
        if let Some(value) = answer.headers.get(name) {
            let _ = write!(shown, " {name}={value}");
        }
    }
    if answer.headers.get("content-type").is_some_and(|kind| kind == "application/problem+json") {
        if !answer.body.is_empty() {
            let _ =
                write!(shown, "\n{}: {}", answer.problem(), answer.json()["detail"].as_str().expect("text"));
        }
    } else if !answer.body.is_empty() {
        let _ = write!(shown, "\n{}", String::from_utf8_lossy(&answer.body));
    }
    shown
}

#[test]
fn answers_are_those_of_the_golden_list() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .expect("a runtime");
    let door = runtime.block_on(open());
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/gateway/http/tests/txn_answers.golden");
    if let Err(error) = goldenscript::run(&mut Script { runtime, door }, path) {
        panic!("{error}");
    }
}

async fn begin(door: &Door) -> String {
    send(door, "POST", "/txn", &[], b"").await.headers["location"].clone()
}

#[tokio::test]
async fn a_lock_is_waited_for_one_second_and_no_longer() {
    let door = open().await;
    let (holder, waiter) = (begin(&door).await, begin(&door).await);
    assert_eq!(send(&door, "POST", &format!("{holder}/keys/k/lock"), &[], b"").await.status, 204);
    let started = Instant::now();
    let answer = get(&door, &format!("{waiter}/keys/k?for_update=true")).await;
    assert_eq!((answer.status, answer.problem()), (503, "unavailable".to_owned()));
    assert_eq!(answer.headers["retry-after"], "1");
    let waited_ms = started.elapsed().as_millis();
    assert!((1000..3000).contains(&waited_ms), "{waited_ms} ms");

    let path = format!("{waiter}/keys/k/lock");
    let waiting = send(&door, "POST", &path, &[], b"");
    let release = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        send(&door, "POST", &format!("{holder}/abort"), &[], b"").await
    };
    let (waiting, release) = tokio::join!(waiting, release);
    assert_eq!((waiting.status, release.status), (204, 204));
}

#[tokio::test]
async fn the_largest_value_fits_into_a_transaction_and_a_batch() {
    let door = open().await;
    let txn = begin(&door).await;
    let largest = filled(VALUE_BYTES_MAX);
    let path = format!("{txn}/keys/large");
    assert_eq!(send(&door, "PUT", &path, &[], &largest).await.status, 200);
    assert_eq!(get(&door, &path).await.body, largest);
    let over = send(&door, "PUT", &path, &[], &filled(VALUE_BYTES_MAX + 1)).await;
    assert_eq!((over.status, over.problem()), (413, "too_large".to_owned()));
    assert_eq!(send(&door, "POST", &format!("{txn}/commit"), &[], b"").await.status, 200);
    assert_eq!(get(&door, "/keys/large").await.body, largest);

    use base64::Engine;
    // Bytes that are no text, so that every one of them counts in base64.
    let value = vec![0xff; VALUE_BYTES_MAX];
    let batch = |value: &[u8]| {
        let value = base64::engine::general_purpose::STANDARD.encode(value);
        format!("{{\"ops\":[{{\"op\":\"put\",\"key\":\"b\",\"value_base64\":\"{value}\"}}]}}")
    };
    assert_eq!(send(&door, "POST", "/batch", &[], batch(&value).as_bytes()).await.status, 200);
    assert_eq!(get(&door, "/keys/b").await.body, value);
    let over = send(&door, "POST", "/batch", &[], batch(&vec![0xff; VALUE_BYTES_MAX + 1]).as_bytes()).await;
    assert_eq!((over.status, over.problem()), (413, "too_large".to_owned()));
    assert_eq!(over.json()["detail"], "operation 0: the value has 4194305 bytes, the limit is 4194304");
    let over = send(&door, "POST", "/batch", &[], &filled(body::BATCH_BYTES_MAX + 1)).await;
    assert_eq!(over.json()["detail"], "the batch has 6291457 bytes, the limit is 6291456");
}

#[tokio::test]
async fn a_batch_has_a_bounded_number_of_operations() {
    use trandb_cluster::limits::TXN_OPS_MAX;
    let door = open().await;
    let batch = |count| format!("{{\"ops\":[{}]}}", vec![r#"{"op":"get","key":"k"}"#; count].join(","));
    let most = send(&door, "POST", "/batch", &[], batch(TXN_OPS_MAX).as_bytes()).await;
    assert_eq!(most.status, 200);
    let over = send(&door, "POST", "/batch", &[], batch(TXN_OPS_MAX + 1).as_bytes()).await;
    assert_eq!((over.status, over.problem()), (413, "too_large".to_owned()));
    assert_eq!(over.json()["detail"], "the batch has more than 10000 operations");
}

#[tokio::test]
async fn bodies_take_what_the_document_names_and_nothing_else() {
    let door = open().await;
    let document = get(&door, "/openapi.json").await.json();
    let schemas = &document["components"]["schemas"];
    let names = |schema: &Value| -> Vec<String> {
        assert_eq!(schema["additionalProperties"], false);
        schema["properties"].as_object().expect("properties").keys().cloned().collect()
    };
    let mut cases = vec![
        ("/txn", "{\"more\":1}".to_owned(), names(&schemas["Begin"])),
        ("/batch", "{\"more\":1}".to_owned(), names(&schemas["Batch"])),
    ];
    for op in schemas["BatchOp"]["oneOf"].as_array().expect("operations") {
        let tag = &op["properties"]["op"]["const"];
        let fields = names(op).into_iter().filter(|name| name != "op").collect();
        cases.push(("/batch", format!("{{\"ops\":[{{\"op\":{tag},\"more\":1}}]}}"), fields));
    }
    assert_eq!(cases.len(), 6);
    for (path, body, documented) in cases {
        let answer = send(&door, "POST", path, &[], body.as_bytes()).await;
        assert_eq!((answer.status, answer.problem()), (400, "invalid".to_owned()), "{body}");
        // The refusal names what is wrong, then all that would have been right.
        let detail = answer.json()["detail"].as_str().expect("text").to_owned();
        let named: Vec<&str> = detail.split('`').skip(1).step_by(2).collect();
        assert_eq!(named[0], "more", "{detail}");
        let taken: BTreeSet<&str> = named[1..].iter().copied().collect();
        assert_eq!(taken, documented.iter().map(String::as_str).collect(), "{detail}");
    }
}

#[tokio::test]
async fn a_commit_that_is_not_answered_is_unknown_and_a_read_is_not() {
    let database = FakeDatabase::new();
    database.gate.send_replace(false);
    let gateway = GatewayOptions { request_timeout_ms: 10, ..GatewayOptions::default() };
    let options = HttpOptions {
        gateway,
        metrics: Arc::new(String::new),
        version: String::new(),
        commit: String::new(),
    };
    let http = Http::new(Arc::new(database), options);
    let router = || routes::router(Arc::new(Http::new(http.backend.clone(), http.options.clone())));
    for (method, path, status) in [
        ("POST", "/txn/1-1/commit", 504),
        ("PUT", "/txn/1-1/keys/k", 504),
        ("POST", "/batch", 504),
        ("GET", "/txn/1-1/keys/k", 503),
        ("POST", "/txn/1-1/abort", 503),
        ("GET", "/txn/1-1", 503),
        ("POST", "/txn", 503),
    ] {
        let body = if path == "/batch" { r#"{"ops":[{"op":"get","key":"k"}]}"# } else { "" };
        let request = Request::builder().method(method).uri(path).body(body.into()).expect("a request");
        let response = answer::answer(&http, router(), request).await;
        assert_eq!(response.status().as_u16(), status, "{method} {path}");
    }
}
