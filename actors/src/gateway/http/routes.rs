//! The table of paths.

use super::problem::Failure;
use super::{Http, admin, keys, scan};
use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::routing::{MethodRouter, get};
use std::sync::Arc;
use trandb_cluster::Error;

/// One path and what answers. More than one pattern where the router's leave a gap; the first names the path.
struct Route {
    patterns: &'static [&'static str],
    methods: MethodRouter<Arc<Http>>,
}

fn routes() -> Vec<Route> {
    let route = |patterns, methods| Route { patterns, methods };
    vec![
        route(&["/keys"], get(scan::page)),
        route(
            // A catch-all needs one byte; the empty key comes here to be refused by name.
            &["/keys/{*key}", "/keys/"],
            MethodRouter::new().get(keys::get).head(keys::head).put(keys::put).delete(keys::delete),
        ),
        route(&["/healthz"], get(admin::healthz)),
        route(&["/readyz"], get(admin::readyz)),
        route(&["/metrics"], get(admin::metrics)),
        route(&["/version"], get(admin::version)),
        route(&["/openapi.json"], get(admin::openapi)),
        route(&["/admin/cluster"], get(admin::cluster)),
        route(&["/admin/verify"], get(admin::verify)),
    ]
}

/// Every path as OpenAPI writes it, which knows no catch-all.
#[cfg(test)]
pub(super) fn documented() -> Vec<String> {
    routes().iter().map(|route| route.patterns[0].replace("{*", "{")).collect()
}

/// The router.
pub(super) fn router(http: Arc<Http>) -> Router {
    let mut router = Router::new();
    for Route { patterns, methods } in routes() {
        for pattern in patterns {
            router = router.route(pattern, methods.clone());
        }
    }
    #[cfg(debug_assertions)]
    let router = router.route("/admin/debug/panic", axum::routing::post(admin::panic));
    router.fallback(no_such_path).method_not_allowed_fallback(no_such_method).with_state(http)
}

async fn no_such_path(request: Request) -> Failure {
    Error::not_found(format!("no such path: {}", request.uri().path())).into()
}

async fn no_such_method(request: Request) -> Failure {
    let error = Error::invalid(format!("{} is not for this path", request.method()));
    Failure::from(error).with_status(StatusCode::METHOD_NOT_ALLOWED)
}
