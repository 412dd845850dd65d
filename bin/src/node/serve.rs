//! The node behind the program's frame.

use super::conversion;
use super::drive::{Addresses, Failure, Service};
use super::run::Launch;
use std::sync::Arc;
use trandb_actors::node::{Doors, NodeOptions, RunningNode, start_when_there_is_room};
use trandb_runtime::memory::Meter;

/// A running node.
pub struct Node(RunningNode);

/// Starts the node; `meter` says what the process uses of its memory.
///
/// # Errors
/// What is wrong, with the exit code for it.
pub async fn serve(launch: Launch, meter: Arc<dyn Meter>) -> Result<Node, Failure> {
    let Launch { config, metrics, label, version, commit } = launch;
    let doors = Doors {
        metrics: Arc::new(move || metrics.render()),
        version: version.to_owned(),
        commit: commit.to_owned(),
    };
    let options = || NodeOptions {
        meter: meter.clone(),
        conversion: conversion::told(),
        ..NodeOptions::real(config.clone(), doors.clone())
    };
    match start_when_there_is_room(options).await {
        Ok(node) => {
            label.set(node.node());
            Ok(Node(node))
        }
        Err(error) => Err(Failure::new(error.to_string(), error.exit_code())),
    }
}

impl Service for Node {
    fn addresses(&self) -> Addresses {
        let addresses = self.0.addresses().clone();
        Addresses { native: addresses.native, peer: addresses.peer, http: addresses.http }
    }

    async fn ended(&mut self) -> Failure {
        let why = self.0.failed().await;
        Failure { message: why.message, exit_code: why.exit_code, rebuild: why.rebuild }
    }

    async fn shutdown(self) -> Result<(), Failure> {
        self.0.shutdown().await;
        Ok(())
    }
}
