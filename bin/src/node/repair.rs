//! `--repair`: a node that finds its data damaged puts it aside and has it rebuilt from the other nodes.

use super::drive::{EX_DATAERR, Failure};
use trandb_runtime::config::Config;
use trandb_runtime::datadir::DataDir;
use trandb_runtime::random::Random;

/// Whether damaged data may be put aside, which is done once: what is damaged again right after is beyond that.
pub(super) struct Repair<'a> {
    asked: bool,
    config: &'a Config,
}

impl<'a> Repair<'a> {
    pub(super) fn new(asked: bool, config: &'a Config) -> Self {
        Self { asked, config }
    }

    /// Makes room for a new start after this failure; false if it is not about damage, or that was not asked for.
    ///
    /// # Errors
    /// Why the data cannot be put aside. It stays where it was.
    pub(super) fn mend(&mut self, failure: &Failure) -> Result<bool, Failure> {
        if failure.exit_code != EX_DATAERR {
            return Ok(false);
        }
        if !self.asked {
            tracing::error!("--repair puts damaged data aside and rebuilds it from the other nodes");
            return Ok(false);
        }
        self.asked = false;
        let own = [&self.config.peer.addr, &self.advertised()];
        if self.config.node.seeds.iter().all(|seed| own.contains(&seed)) {
            let why =
                format!("{failure}; it cannot be rebuilt: no seed names another node that has the data");
            return Err(Failure::new(why, EX_DATAERR));
        }
        let random = Random::from_entropy();
        let aside = DataDir::open(&self.config.node.data_dir, || random.next_u64())
            .and_then(|mut directory| directory.put_aside(random.next_u64()));
        match aside {
            Ok(path) => {
                let path = path.display();
                tracing::warn!(%path, "put damaged data aside, to be rebuilt from the other nodes: {failure}");
                Ok(true)
            }
            Err(error) => {
                let code = error.exit_code();
                Err(Failure::new(format!("{failure}; it cannot be put aside: {error}"), code))
            }
        }
    }

    /// This node's peer address as others know it, where that is not the one bound to.
    fn advertised(&self) -> String {
        let port = self.config.peer.addr.rsplit_once(':').map_or("", |(_, port)| port);
        format!("{}:{port}", self.config.node.advertise)
    }
}
