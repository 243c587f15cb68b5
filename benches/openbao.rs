//! What a key in OpenBao costs: one read of it, beside `curl`; and a promotion's way to every process of a
//! fleet.
//!
//! ```sh
//! cargo bench --all-features --bench openbao              # the figures
//! cargo bench --all-features --bench openbao -- --plot    # and the plots, benches/openbao-*.svg
//! ```
//!
//! With the real OpenBao that `scripts/setup` fetches, over TLS. Where an aim is missed, the program ends
//! with an error.

#[path = "openbao/fleet.rs"]
mod fleet;
#[path = "openbao/plot.rs"]
mod plot;
#[path = "openbao/read.rs"]
mod read;
#[path = "../tests/support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::process::ExitCode;

use support::openbao::Server;

/// What the server counts by itself, and that an audit log may be turned on for the fleet alone.
const CONFIG: &str = "unsafe_allow_api_audit_creation = true\n\
     telemetry {\n prometheus_retention_time = \"1h\"\n disable_hostname = true\n}\n";

fn main() -> ExitCode {
    if std::env::var_os(fleet::PROCESS).is_some() {
        fleet::follow();
        return ExitCode::SUCCESS;
    }
    let server = Server::start_with(CONFIG);
    let met = [read::report(&server), fleet::report(&server)];
    if met.contains(&false) {
        eprintln!("an aim was missed");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Where a plot is to be written, if it is.
fn plot_at(name: &str) -> Option<PathBuf> {
    let is_wanted = std::env::args().any(|word| word == "--plot");
    is_wanted.then(|| [env!("CARGO_MANIFEST_DIR"), "benches", name].iter().collect())
}
