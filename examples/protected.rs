//! An axum service that requires keys of its own.
//!
//! ```sh
//! cargo run --example protected --features registry            # creates a key and prints how to call it
//! cargo run --example protected --features registry -- 8080    # on a port of your choice
//! ```
//!
//! Everything is on 127.0.0.1 and ends with the program. `scripts/load` measures with it what the layer
//! costs, also with the records in a new SQLite file, which is the second argument (feature `sqlite`).

use std::sync::Arc;

use axum::{Extension, Router, routing::get};
use keysheath::key::{Issuer, Kanal, StoreId};
use keysheath::registry::{KeyRegistry, Principal, RequireKeyLayer, TeamId};

async fn orders(Extension(principal): Extension<Principal>) -> String {
    match principal.fingerprint() {
        Some(fingerprint) => format!("orders, for the key {fingerprint}\n"),
        None => "orders\n".to_owned(),
    }
}

/// The second argument is a new file for the records. They are under a pepper that ends with the program, so
/// no other program can use them.
fn registry() -> Result<KeyRegistry, Box<dyn std::error::Error>> {
    let Some(path) = std::env::args_os().nth(2) else { return Ok(KeyRegistry::in_memory(Kanal::PROFILE)?) };
    #[cfg(feature = "sqlite")]
    return Ok(KeyRegistry::create(Kanal::PROFILE, keysheath::registry::Pepper::random()?, path)?);
    #[cfg(not(feature = "sqlite"))]
    Err(format!("a file such as {} needs the feature sqlite", path.display()).into())
}

fn app(registry: Arc<KeyRegistry>) -> Router {
    Router::new()
        .route("/api/v1/stores/{store_id}/orders", get(orders))
        .route("/api/v1/stores/{store_id}/nothing", get(async || "nothing\n"))
        .route_layer(RequireKeyLayer::for_stores(registry))
        .route("/open/v1/stores/{store_id}/nothing", get(async || "nothing\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args_os().nth(1).map_or(Some(0), |port| port.to_str()?.parse().ok());
    let port: u16 = port.ok_or("usage: protected [PORT [FILE]]")?;
    let registry = registry()?
        .with_browser_observer(|principal| eprintln!("a browser has the key {:?}", principal.fingerprint()));
    let store = StoreId::new(123).ok_or("a store's number is positive")?;
    registry.put_store(store, TeamId::new(1))?;
    let new = registry.create_key(TeamId::new(1), "example")?;

    let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
    let address = listener.local_addr()?;
    println!("A new key, which is shown once:");
    println!(
        "curl -H 'Authorization: Bearer {}' http://{address}/api/v1/stores/123/orders",
        new.key().expose_secret()
    );
    println!("And without it:\ncurl -i http://{address}/api/v1/stores/123/orders");
    axum::serve(listener, app(Arc::new(registry))).await?;
    Ok(())
}
