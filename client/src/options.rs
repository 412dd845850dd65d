//! What can be set about a client.

use crate::breaker::BreakerOptions;
use crate::client::Client;
use crate::dial::{Dialer, TcpDialer};
use crate::retry::RetryBudget;
use std::sync::Arc;
use std::time::Duration;
use trandb_cluster::Error;

/// Everything that a [`Builder`] sets.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) name: String,
    pub(crate) timeout: Duration,
    pub(crate) attempt_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) connections_per_node: usize,
    pub(crate) retry_pause: Duration,
    pub(crate) retry_pause_max: Duration,
    pub(crate) retry_budget: RetryBudget,
    pub(crate) conflict_budget: RetryBudget,
    pub(crate) breaker: BreakerOptions,
    pub(crate) leader_hints: bool,
    pub(crate) dialer: Arc<dyn Dialer>,
    pub(crate) seed: Option<u64>,
}

/// Sets up a [`Client`].
///
/// ```no_run
/// # async fn example() -> Result<(), trandb_client::Error> {
/// use std::time::Duration;
/// let client = trandb_client::Client::builder()
///     .timeout(Duration::from_secs(2))
///     .connections_per_node(4)
///     .connect("10.0.0.1:7400,10.0.0.2:7400")
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Builder {
    options: Options,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            options: Options {
                name: concat!("trandb-client/", env!("CARGO_PKG_VERSION")).to_owned(),
                timeout: Duration::from_secs(10),
                attempt_timeout: Duration::from_secs(2),
                connect_timeout: Duration::from_secs(2),
                connections_per_node: 2,
                retry_pause: Duration::from_millis(10),
                retry_pause_max: Duration::from_millis(300),
                retry_budget: RetryBudget::default(),
                // Every transaction that comes through pays for two that have to be run again.
                conflict_budget: RetryBudget { burst: 1000, per_second: 500.0, per_success: 2.0 },
                breaker: BreakerOptions::default(),
                leader_hints: true,
                dialer: Arc::new(TcpDialer),
                seed: None,
            },
        }
    }
}

macro_rules! setters {
    ($($(#[$doc:meta])* $name:ident: $type:ty),* $(,)?) => {
        $(
            $(#[$doc])*
            #[must_use]
            pub fn $name(mut self, $name: $type) -> Self {
                self.options.$name = $name;
                self
            }
        )*
    };
}

impl Builder {
    setters! {
        /// How long a call may take in all, retries included. Default: 10 s.
        timeout: Duration,
        /// How long a read, or a commit, waits for one node before another is asked; and how long a call within
        /// [`Client::transact`] may take before its transaction is run again. Default: 2 s.
        attempt_timeout: Duration,
        /// How long connecting to one node may take. Default: 2 s.
        connect_timeout: Duration,
        /// Connections to each node at the most; the second is opened when the first is busy. Default: 2.
        connections_per_node: usize,
        /// The pause before the first retry; it doubles with each. Default: 10 ms, and half of every pause is random.
        retry_pause: Duration,
        /// The longest pause between retries. Default: 300 ms.
        retry_pause_max: Duration,
        /// How many retries all calls together may make.
        retry_budget: RetryBudget,
        /// How many runs of transactions that lost a conflict may be repeated, by all calls of
        /// [`Client::transact`] together. Default: 1000 at once, 500 per second, and two for each that comes through.
        conflict_budget: RetryBudget,
        /// When a failing node is left alone.
        breaker: BreakerOptions,
        /// Whether to send requests straight to the leader of the key's partition. Default: yes.
        leader_hints: bool,
    }

    /// The name that nodes see in their logs. Default: this library's name and version.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.options.name = name.into();
        self
    }

    /// How connections are made. Default: [`TcpDialer`].
    #[must_use]
    pub fn dialer(mut self, dialer: impl Dialer) -> Self {
        self.options.dialer = Arc::new(dialer);
        self
    }

    /// Makes the jitter of retries reproducible. Default: seeded by the operating system.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.options.seed = Some(seed);
        self
    }

    #[cfg(test)]
    pub(crate) fn options(self) -> Options {
        self.options
    }

    /// A client that connects on first use. Must be called within a tokio runtime to be used there.
    ///
    /// # Errors
    /// `invalid` when `addrs` names no address.
    pub fn build(self, addrs: impl Addresses) -> Result<Client, Error> {
        Client::new(addrs.addresses(), self.options)
    }

    /// A client that has reached at least one of `addrs` and knows the cluster's partition map if that node
    /// does.
    ///
    /// # Errors
    /// `invalid` when `addrs` names no address, `unavailable` when none could be reached.
    pub async fn connect(self, addrs: impl Addresses) -> Result<Client, Error> {
        let client = self.build(addrs)?;
        client.reach().await?;
        Ok(client)
    }
}

/// One or several `host:port`: a text with commas between them, or a list.
pub trait Addresses {
    /// The addresses one by one.
    fn addresses(self) -> Vec<String>;
}

impl Addresses for &str {
    fn addresses(self) -> Vec<String> {
        self.split(',').map(str::trim).filter(|addr| !addr.is_empty()).map(str::to_owned).collect()
    }
}

impl Addresses for &String {
    fn addresses(self) -> Vec<String> {
        self.as_str().addresses()
    }
}

impl Addresses for String {
    fn addresses(self) -> Vec<String> {
        self.as_str().addresses()
    }
}

impl Addresses for Vec<String> {
    fn addresses(self) -> Vec<String> {
        self
    }
}

impl Addresses for &[&str] {
    fn addresses(self) -> Vec<String> {
        self.iter().map(|addr| (*addr).to_owned()).collect()
    }
}

impl<const N: usize> Addresses for [&str; N] {
    fn addresses(self) -> Vec<String> {
        self.as_slice().addresses()
    }
}
