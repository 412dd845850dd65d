//! The leader of both groups of two nodes fails with an entry that only the other one has, and the link between them breaks again and
//! again from then on.
//!
//! A storm found so, in weather, that a replica whose leader was lost stood for election for as long as the link to it was down, and
//! took a link that was back for a leader that was back. Of two voters it needs the other one, which was there in between only: while
//! the link broke more often than once in an election timeout, nobody led for forty seconds (one seed of 10,000; to be had back
//! by planting `stand-when-down`). It goes on until it hears a leader now, and tries as soon as a link is there.

use super::{Scenario, Script};
use crate::cluster::Cluster;
use crate::liveness::Liveness;
use crate::plan::Plan;
use crate::settings::Settings;
use crate::workload::{Board, places};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use std::time::Duration;
use tokio::time::sleep;
use trandb_runtime::disk::Call;

/// The scenario.
pub(super) const SCENARIO: Scenario = Scenario {
    name: "flicker",
    about: "one of two nodes fails, and their link breaks again and again when it is back",
    plan,
    script: |cluster, plan, board| -> Script { Box::pin(script(cluster, plan, board)) },
};

/// Nodes of this scenario.
const NODES: usize = 2;

/// How often.
const ROUNDS: usize = 3;

/// How long the workload runs undisturbed before each.
const CALM: Duration = Duration::from_secs(2);

/// How long the failed node is away: two leases, and more.
const AWAY: Duration = Duration::from_secs(4);

/// How long the link is cut each time: until it is given up, and hardly longer.
const CUT: Duration = Duration::from_millis(230);

/// How long it is not, at the least and the most: many round trips, and less than an election timeout.
const WHOLE_MS: std::ops::Range<u64> = 300..800;

/// How many times it is cut at the most until something is written again.
const CUTS_MAX: usize = 15;

/// How long a write may take.
const PATIENCE: Duration = Duration::from_millis(500);

fn plan(seed: u64) -> Plan {
    Plan {
        partitions: 1,
        settings: vec![Settings::with_raft((100, 1_200, 1_500)).with_peer_heartbeat_ms(50)],
        sync_max: Duration::from_millis(4),
        workloads: places(&["register"]),
        ..Plan::calm(seed, NODES)
    }
}

async fn script(cluster: Cluster, plan: Plan, board: Board) -> turmoil::Result {
    let liveness = Liveness::new(&cluster, &plan, board)?;
    let mut random = StdRng::seed_from_u64(!plan.seed);
    liveness.whole("after forming").await?;
    for _ in 0..ROUNDS {
        sleep(CALM).await;
        let Some(leader) = cluster.leader_of(1).await else { continue };
        cluster.host(leader).disk().fail_call_after(Call::Write, 0);
        cluster.fails_and_restarts(leader, AWAY).await;
        let flickers = async {
            for _ in 0..CUTS_MAX {
                cluster.part(0, 1);
                sleep(CUT).await;
                cluster.heal_all();
                sleep(Duration::from_millis(random.random_range(WHOLE_MS))).await;
            }
        };
        let heir = cluster.client((leader + 1) % NODES, plan.seed)?.with_timeout(PATIENCE);
        let serves = async { while heir.put("flicker", "").await.is_err() {} };
        tokio::select! {
            biased;
            () = serves => {}
            () = flickers => return Err("nobody leads while the link flickers".into()),
        }
        cluster.heal_all();
        liveness.whole("with the link back").await?;
    }
    liveness.ends_well().await
}
