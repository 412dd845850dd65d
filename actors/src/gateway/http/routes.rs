//! The table of paths.

use super::problem::Failure;
use super::{Http, admin, keys, scan, txn};
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get, post};
use std::sync::Arc;
use trandb_cluster::Error;

/// One path and what answers.
struct Route {
    /// More than one where the router's patterns leave a gap.
    patterns: &'static [&'static str],
    /// As OpenAPI writes it, which knows no catch-all; more than one where a catch-all takes in several.
    #[cfg_attr(not(test), expect(dead_code, reason = "tests hold the document to it"))]
    documented: &'static [&'static str],
    methods: MethodRouter<Arc<Http>>,
}

fn routes() -> Vec<Route> {
    let route = |patterns, methods| Route { patterns, documented: patterns, methods };
    vec![
        route(&["/keys"], get(scan::page)),
        Route {
            documented: &["/keys/{key}"],
            // A catch-all needs one byte; the empty key comes here to be refused by name.
            ..route(
                &["/keys/{*key}", "/keys/"],
                MethodRouter::new().get(keys::get).head(keys::head).put(keys::put).delete(keys::delete),
            )
        },
        route(&["/txn"], post(txn::begin)),
        route(&["/txn/{id}"], get(txn::outcome)),
        route(&["/txn/{id}/commit"], post(txn::commit)),
        route(&["/txn/{id}/abort"], post(txn::abort)),
        route(&["/txn/{id}/keys"], get(txn::keys::page)),
        Route {
            documented: &["/txn/{id}/keys/{key}", "/txn/{id}/keys/{key}/lock"],
            ..route(
                &["/txn/{id}/keys/{*key}", "/txn/{id}/keys/"],
                MethodRouter::new()
                    .get(txn::keys::get)
                    .head(txn::keys::head)
                    .put(txn::keys::put)
                    .delete(txn::keys::delete)
                    .post(txn::keys::lock),
            )
        },
        route(&["/batch"], post(txn::batch::run)),
        route(&["/batch/id"], post(txn::batch::name)),
        route(&["/healthz"], get(admin::healthz)),
        route(&["/readyz"], get(admin::readyz)),
        route(&["/metrics"], get(admin::metrics)),
        route(&["/version"], get(admin::version)),
        route(&["/openapi.json"], get(admin::openapi)),
        route(&["/admin/cluster"], get(admin::cluster)),
        route(&["/admin/verify"], get(admin::verify)),
        route(&["/admin/checkpoint"], post(admin::checkpoint)),
    ]
}

/// Every path as OpenAPI writes it, those of one route together.
#[cfg(test)]
pub(super) fn documented() -> Vec<&'static [&'static str]> {
    routes().iter().map(|route| route.documented).collect()
}

/// The router.
pub(super) fn router(http: Arc<Http>) -> Router {
    let mut router = Router::new();
    for Route { patterns, methods, .. } in routes() {
        for pattern in patterns {
            router = router.route(pattern, methods.clone());
        }
    }
    #[cfg(debug_assertions)]
    let router = router
        .route("/admin/debug/panic", post(admin::panic))
        .route("/admin/debug/flip", post(admin::flip))
        .route("/admin/debug/end", post(admin::end))
        .route("/admin/debug/hold", post(admin::hold));
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method).with_state(http)
}

async fn no_such_path(request: Request) -> Failure {
    Error::not_found(format!("no such path: {}", request.uri().path())).into()
}

async fn no_such_method(request: Request) -> Failure {
    let error = Error::invalid(format!("{} is not for this path", request.method()));
    Failure::from(error).with_status(StatusCode::METHOD_NOT_ALLOWED)
}
