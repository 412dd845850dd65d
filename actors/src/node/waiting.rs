//! A start that meets a full disk waits for room.
//!
//! A running node waits in its log, which is not there yet while the storage engine is opened and partitions load; and an
//! engine that has met the full disk is good for nothing. So what was started is ended, and all of it is started again once
//! there is room. Meanwhile the HTTP door says why at `/readyz`, and refuses all else.
//!
//! # Caveats
//!
//! Room is what the file system says is free. A quota is not seen, and ends the node.

use super::room::ENGINE_ROOM;
use super::{NodeOptions, RunningNode, StartError, StorageDoor, bind, http_options, start};
use crate::gateway::{HttpOptions, serve_waiting};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use trandb_runtime::disk::{has_room, lacks_room};
use trandb_runtime::net::Net;

/// Between two looks for room.
const LOOK: Duration = Duration::from_secs(1);

/// Exit code of what a full disk fails with.
const EX_IOERR: u8 = 74;

/// [`start`], again as soon as there is room, should it have failed for lack of it. `options` is asked for what each try is
/// started with. To be dropped if it is not wanted any more.
///
/// # Errors
/// See [`StartError`], if there was room.
pub async fn start_when_there_is_room(
    mut options: impl FnMut() -> NodeOptions,
) -> Result<RunningNode, StartError> {
    loop {
        let options = options();
        let lobby = Lobby::of(&options);
        match (start(options).await, lobby) {
            (Err(error), Some(lobby)) if error.exit_code() == EX_IOERR && lobby.lacks_room() => {
                lobby.wait(&error).await?;
            }
            (started, _) => return started,
        }
    }
}

/// Where a node waits.
struct Lobby {
    directory: PathBuf,
    net: Arc<dyn Net>,
    addr: String,
    http: HttpOptions,
}

impl Lobby {
    /// None for a node without a directory.
    fn of(options: &NodeOptions) -> Option<Self> {
        let config = &options.config;
        let on_disk = matches!(options.storage, StorageDoor::Configured) && !config.node.ephemeral;
        on_disk.then(|| Self {
            directory: config.node.data_dir.clone(),
            net: options.net.clone(),
            addr: config.http.addr.clone(),
            http: http_options(config, options.doors.clone()),
        })
    }

    /// A directory that is none is another trouble.
    fn lacks_room(&self) -> bool {
        lacks_room(&self.directory, ENGINE_ROOM)
    }

    fn has_room(&self) -> bool {
        has_room(&self.directory, ENGINE_ROOM)
    }

    async fn wait(self, error: &StartError) -> Result<(), StartError> {
        let why = why(error, &self.directory);
        let listener = bind(&*self.net, "http", &self.addr).await?;
        tracing::error!("{why}");
        let closing = CancellationToken::new();
        // Also when this is dropped.
        let close = closing.clone().drop_guard();
        let door = tokio::spawn(serve_waiting(listener, why, self.http.clone(), closing));
        while !self.has_room() {
            tokio::time::sleep(LOOK).await;
        }
        tracing::info!(directory = %self.directory.display(), "there is room on the disk again; the node starts");
        drop(close);
        // The next start needs its port. A door that panicked has let go of it.
        let _ = door.await;
        Ok(())
    }
}

fn why(error: &StartError, directory: &Path) -> String {
    let mib = ENGINE_ROOM >> 20;
    format!(
        "the node waits for {mib} MiB of room on the disk of its data directory {} before it starts: {error}",
        directory.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use trandb_runtime::disk::SimDisk;
    use trandb_runtime::net::{Net, RealNet};

    async fn ask(addr: &str, path: &str) -> String {
        let mut stream = loop {
            // The door may not be open yet.
            match TcpStream::connect(addr).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let request = format!("GET {path} HTTP/1.1\r\nhost: t\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn who_waits_says_why_and_goes_on_when_there_is_room() {
        let home = tempfile::tempdir().unwrap();
        // Whose room cannot be told has none.
        let directory = home.path().join("later");
        let free = RealNet.bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let mut options = testing::options(&SimDisk::new(), |config| {
            config.node.data_dir = directory.clone();
            config.http.addr = free.to_string();
        });
        assert!(Lobby::of(&options).is_none(), "it has no directory");
        options.storage = StorageDoor::Configured;
        let lobby = Lobby::of(&options).unwrap();
        let waiting = tokio::spawn(async move {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            lobby.wait(&StartError::Checkpoint(full)).await
        });
        let addr = free.to_string();
        let told = tokio::time::timeout(Duration::from_secs(20), ask(&addr, "/readyz"));
        let told = told.await.expect("an answer");
        assert!(told.starts_with("HTTP/1.1 503"), "{told}");
        for part in ["64 MiB of room", "no storage space", &*directory.to_string_lossy()] {
            assert!(told.contains(part), "{told}");
        }
        let refused = ask(&addr, "/keys/k").await;
        assert!(refused.starts_with("HTTP/1.1 503") && refused.contains("64 MiB of room"), "{refused}");
        assert!(ask(&addr, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(!waiting.is_finished());

        std::fs::create_dir(&directory).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(20), waiting).await.expect("it goes on");
        ended.unwrap().unwrap();
        // The port is free again.
        RealNet.bind(&addr).await.unwrap();
    }
}
