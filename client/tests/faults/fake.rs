//! Nodes that misbehave on purpose: they speak the real wire types over in-memory streams, and a script says
//! how they react to each request. Time is paused, so waiting costs nothing and nothing depends on luck.

use bytes::{Bytes, BytesMut};
use futures_util::future::BoxFuture;
use futures_util::{SinkExt, StreamExt};
use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio_util::codec::{Framed, LengthDelimitedCodec};
use trandb_client::*;
use trandb_cluster::limits::CLIENT_FRAME_BYTES_MAX;
use trandb_cluster::wire::{self, Hello, PROTOCOL};

/// What a node does about a frame.
pub(crate) enum Reaction {
    /// Answers.
    Answer(Result<Response, Error>),
    /// Answers, and lets the client know that another node did the work.
    Forwarded(Response),
    /// Closes the connection.
    Close,
    /// Answers, then closes the connection when [`Net::leave`] says so.
    Farewell(Result<Response, Error>),
    /// Does nothing.
    Silence,
    /// Announces the end of the connection; a little later answers all that is held and this one.
    Refuse(Error),
    /// Sends these bytes as they are, outside of any frame.
    Raw(Vec<u8>),
    /// Keeps the request until the script answers `Release`.
    Hold,
    /// Answers all that are held, the last one first, then this one.
    Release,
}

/// Decides about the request; `None` stands for the Hello, whose `Answer` means Welcome.
pub(crate) type Script = Arc<dyn Fn(Option<&Request>) -> Reaction + Send + Sync>;

/// Makes a script of a closure for requests; the Hello is always welcome.
pub(crate) fn script(react: impl Fn(&Request) -> Reaction + Send + Sync + 'static) -> Script {
    Arc::new(move |request| request.map_or(Reaction::Answer(Ok(Response::Pong)), &react))
}

/// A network of fake nodes by address, and what they were sent.
#[derive(Clone, Default)]
pub(crate) struct Net {
    nodes: Arc<Mutex<BTreeMap<String, (NodeId, Script)>>>,
    log: Arc<Mutex<Vec<(u64, Request)>>>,
    in_flight_max: Option<u32>,
    leave: Arc<Notify>,
    cut_off: Arc<Mutex<Option<String>>>,
}

impl Net {
    /// A network whose nodes take that many requests at once.
    pub(crate) fn with_in_flight_max(in_flight_max: u32) -> Self {
        Self { in_flight_max: Some(in_flight_max), ..Self::default() }
    }

    /// Starts a node, or changes its script.
    pub(crate) fn set(&self, addr: &str, id: u64, script: Script) {
        self.nodes
            .lock()
            .expect("no test thread panics with it")
            .insert(addr.to_owned(), (NodeId(id), script));
    }

    /// Ends a connection that has said its farewell, or is about to.
    pub(crate) fn leave(&self) {
        self.leave.notify_one();
    }

    /// Who dials there hears nothing at all, not even a refusal.
    pub(crate) fn cut_off(&self, addr: &str) {
        *self.cut_off.lock().expect("no test thread panics with it") = Some(addr.to_owned());
    }

    /// Nothing listens there any more.
    pub(crate) fn stop(&self, addr: &str) {
        self.nodes.lock().expect("no test thread panics with it").remove(addr);
    }

    /// The nodes that got requests which `wanted` picks, in order.
    pub(crate) fn asked(&self, wanted: impl Fn(&Request) -> bool) -> Vec<u64> {
        let log = self.log.lock().expect("no test thread panics with it");
        log.iter().filter(|(_, request)| wanted(request)).map(|(node, _)| *node).collect()
    }

    /// Serves the node `addr` over real TCP within `runtime`; answers where, and lets know of each end of a connection.
    pub(crate) fn listen(&self, addr: &str, runtime: &Runtime) -> (String, Receiver<()>) {
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).expect("loopback has free ports");
        let bound = listener.local_addr().expect("is bound").to_string();
        let (ended, ends) = std::sync::mpsc::channel();
        let (this, addr) = (self.clone(), addr.to_owned());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                this.clone().serve(stream, addr.clone()).await;
                // The test may be over.
                let _ = ended.send(());
            }
        });
        (bound, ends)
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S, addr: String) -> Option<()> {
        let codec = LengthDelimitedCodec::builder().max_frame_length(CLIENT_FRAME_BYTES_MAX).new_codec();
        let mut framed = Framed::new(stream, codec);
        let mut held = Vec::new();
        let mut greeted = false;
        while let Some(Ok(frame)) = framed.next().await {
            // Looked up each time, so that a test can change its mind.
            let (node, script) =
                self.nodes.lock().expect("no test thread panics with it").get(&addr)?.clone();
            if !greeted {
                let hello: Hello = wire::decode(&frame).expect("a hello comes first");
                assert_eq!(hello.protocol, PROTOCOL);
                let welcome = match script(None) {
                    Reaction::Answer(_) => ServerFrame::Welcome(Welcome {
                        protocol: PROTOCOL,
                        node,
                        cluster: None,
                        version: "0".to_owned(),
                        in_flight_max: self.in_flight_max.unwrap_or(128),
                    }),
                    Reaction::Refuse(error) => {
                        send(&mut framed, ServerFrame::Refused(error)).await?;
                        return None;
                    }
                    Reaction::Raw(bytes) => {
                        framed.get_mut().write_all(&bytes).await.ok()?;
                        continue;
                    }
                    Reaction::Silence => continue,
                    _ => return None,
                };
                send(&mut framed, welcome).await?;
                greeted = true;
                continue;
            }
            let RequestFrame { id, deadline_ms, body, .. } = wire::decode(&frame).expect("a request");
            assert!(deadline_ms > 0, "every request has a deadline");
            self.log.lock().expect("no test thread panics with it").push((node.0, body.clone()));
            let answer = |id, forwarded, result| ServerFrame::Response { id, forwarded, result };
            match script(Some(&body)) {
                Reaction::Answer(result) => send(&mut framed, answer(id, false, result)).await?,
                Reaction::Forwarded(response) => send(&mut framed, answer(id, true, Ok(response))).await?,
                Reaction::Close => return None,
                Reaction::Farewell(result) => {
                    send(&mut framed, answer(id, false, result)).await?;
                    self.leave.notified().await;
                    return None;
                }
                Reaction::Silence => {}
                Reaction::Refuse(error) => {
                    send(&mut framed, ServerFrame::Refused(error)).await?;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    held.push((id, body));
                    release(&mut framed, &mut held).await?;
                }
                Reaction::Raw(bytes) => framed.get_mut().write_all(&bytes).await.ok()?,
                Reaction::Hold => held.push((id, body)),
                Reaction::Release => {
                    held.push((id, body));
                    release(&mut framed, &mut held).await?;
                }
            }
        }
        None
    }
}

type Server<S> = Framed<S, LengthDelimitedCodec>;

async fn release<S: AsyncRead + AsyncWrite + Unpin>(
    framed: &mut Server<S>,
    held: &mut Vec<(u64, Request)>,
) -> Option<()> {
    while let Some((id, body)) = held.pop() {
        let result = Ok(echo(&body));
        send(framed, ServerFrame::Response { id, forwarded: false, result }).await?;
    }
    Some(())
}

async fn send<S: AsyncRead + AsyncWrite + Unpin>(framed: &mut Server<S>, frame: ServerFrame) -> Option<()> {
    framed.send(Bytes::from(wire::encode(&frame))).await.ok()
}

/// An answer that shows which request it belongs to: a get's value is its key.
pub(crate) fn echo(request: &Request) -> Response {
    match request {
        Request::Get { key, .. } => {
            Response::Value(Some(Versioned { value: key.clone(), version: Timestamp(7) }))
        }
        Request::Put { .. } | Request::Delete { .. } => {
            Response::Written { version: Timestamp(8), previous: None }
        }
        Request::Topology => Response::Topology(Topology::default()),
        _ => Response::Pong,
    }
}

/// Answers everything at once.
pub(crate) fn well() -> Script {
    script(|request| Reaction::Answer(Ok(echo(request))))
}

impl Dialer for Net {
    fn dial<'a>(&'a self, addr: &'a str) -> BoxFuture<'a, io::Result<BoxedStream>> {
        Box::pin(async move {
            if self.cut_off.lock().expect("no test thread panics with it").as_deref() == Some(addr) {
                std::future::pending::<()>().await;
            }
            if !self.nodes.lock().expect("no test thread panics with it").contains_key(addr) {
                return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "nothing listens"));
            }
            // Small, so that large frames really move in pieces.
            let (ours, theirs) = tokio::io::duplex(4096);
            tokio::spawn(self.clone().serve(theirs, addr.to_owned()));
            Ok(Box::new(ours) as BoxedStream)
        })
    }
}

/// Bytes that no codec of ours ever made.
pub(crate) fn garbage() -> Vec<u8> {
    let mut bytes = BytesMut::from(&b"\x00\x00\x00\x05"[..]);
    bytes.extend_from_slice(b"\xff\xfe\xc1\xc1\xc1");
    bytes.to_vec()
}
