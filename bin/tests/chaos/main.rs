//! Reliability runs: real processes, real faults, figures on standard output.
//!
//! They take minutes and want the machine for themselves, so they are ignored unless asked for: `just chaos`, or
//! `just chaos kill_loop` for one of them. What must never happen (a lost write, a stale read, a wrong exit code) fails
//! a run wherever it happens; so does a figure that misses its limit, unless `TRANDB_CHAOS_LENIENT` is set, which is
//! for machines that do other work. Figures are about optimised programs, harness included: `just` builds them so.
//!
//! | variable | means | default |
//! |---|---|---|
//! | `TRANDB_BIN_DIR` | directory of the programs to run | those that cargo built for the tests |
//! | `TRANDB_CHAOS_SEED` | what random choices follow from | drawn, and printed |
//! | `TRANDB_CHAOS_KILLS` | rounds of the kill loop | 20 |
//! | `TRANDB_CHAOS_ROUNDS` | rounds with large values in the mix | 200 |
//! | `TRANDB_CHAOS_CLIENTS` | clients that write at the same time | 64 |
//! | `TRANDB_CHAOS_SECONDS` | how long measurements under steady load take | 20 |
//! | `TRANDB_CHAOS_OVERWRITES` | how often one of 100,000 keys is overwritten | 10000000 |
//! | `TRANDB_CHAOS_VALUE_BYTES` | how long those values are | 1000 |
//! | `TRANDB_CHAOS_RATE` | how often per second; 0: as often as can be | 20000 |
//! | `TRANDB_CHAOS_CONNECTIONS` | idle connections | 10000 |
//! | `TRANDB_CHAOS_KEYS` | keys in a node that is started again, writes while another is away | 1000000 |
//! | `TRANDB_CHAOS_BANK_SECONDS` | how long money is transferred | 300 |
//! | `TRANDB_CHAOS_CUSTOMERS` | clients that transfer it at the same time | 32 |
//! | `TRANDB_CHAOS_LENIENT` | missed limits are printed, not failed | unset |

// The runs are about a real machine; the doors of the simulation are not theirs.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "../harness/mod.rs"]
mod harness;

/// Nodes as shipped: how soon a cluster recovers is a figure of these runs.
const TIMING: [(&str, &str); 0] = [];

mod away;
mod bank;
mod cut;
mod disk;
mod engines;
mod figures;
mod idle;
mod kill_loop;
mod kill_rounds;
mod large_values;
mod load;
mod overwrites;
mod probe;
mod process;
mod register;
mod restart;
mod settings;
mod stop;
mod terminate;
