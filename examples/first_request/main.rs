//! From the place of a key to an accepted request.
//!
//! ```sh
//! cargo run --example first_request --features client,emulator
//! cargo run --example first_request --features client,emulator -- \
//!     env:KANAL_API_KEY --url https://api.getkanal.com --store 123
//! ```
//!
//! Without arguments it writes a `.env` with a made-up key to a temporary folder, starts the emulator on
//! 127.0.0.1, which answers as the issuer documents, and shows what a good key, a deleted key and the other
//! cases get. With `--url` it sends one request to another server, by the rules of the origin guard.

mod options;

use std::error::Error;
use std::time::Duration;

use keysheath::chain::Chain;
use keysheath::client::{BearerHeader, OriginGuard};
use keysheath::emulator::{Emulator, FOREIGN_STORE, OWN_STORE, PAUSED_STORE, TEAM};
use keysheath::failure::Answer;
use keysheath::key::{ApiKey, Issuer, Kanal, Katana, Origin, StoreId};

use options::{IssuerName, Options, USAGE};

type Failure = Box<dyn Error>;

/// The longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// The body that Kanal documents for checking a setup. It writes a customer.
const CUSTOMER: &str = r#"{ "phone": "+33612345678", "first_name": "Test" }"#;

/// A body that is no customer. That Kanal answers 422 and writes nothing is inferred, not documented.
const NO_CUSTOMER: &str = "{}";

/// One request: its path, its body and its key.
struct Case<'a, I: Issuer> {
    title: &'a str,
    path: String,
    body: &'a str,
    key: Option<&'a ApiKey<I>>,
}

fn main() {
    if let Err(error) = run() {
        eprintln!("first_request: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<(), Failure> {
    let options = Options::parse(std::env::args_os().skip(1))?;
    if options.help {
        println!("{USAGE}");
        return Ok(());
    }
    match options.issuer {
        IssuerName::Kanal => kanal(&options),
        IssuerName::Katana => katana(&options),
    }
}

fn kanal(options: &Options) -> Result<(), Failure> {
    let key = load::<Kanal>(options, "8fK2pX9mWq4Ld7Vb3Nc6Ts1Z")?;
    let path = |store: StoreId| format!("/api/v1/stores/{store}/customers");
    if let Some(url) = &options.url {
        let store = options.store.map_or_else(StoreId::from_env, |store| Ok(Some(store)))?;
        let store =
            store.ok_or("KANAL_STORE_ID is not set: ask your contact at Kanal for your store's number")?;
        println!(
            "The body is invalid on purpose: 422 says that key and store are good, and nothing is written."
        );
        return send_one(
            url,
            &Case { title: "your key", path: path(store), body: NO_CUSTOMER, key: Some(&key) },
        );
    }
    let own = options.store.unwrap_or(OWN_STORE);
    let emulator = Emulator::kanal().with_key(key.clone_key().into_raw()).start()?;
    emulator.put_store(own, TEAM)?;
    let deleted = deleted_key::<Kanal>(&emulator)?;
    let (foreign, paused) = (path(FOREIGN_STORE), path(PAUSED_STORE));
    send_all(
        &emulator,
        &[
            Case { title: "good key", path: path(own), body: CUSTOMER, key: Some(&key) },
            Case { title: "deleted key", path: path(own), body: CUSTOMER, key: Some(&deleted) },
            Case { title: "another team's store", path: foreign, body: CUSTOMER, key: Some(&key) },
            Case { title: "paused store", path: paused, body: CUSTOMER, key: Some(&key) },
            Case { title: "no header", path: path(own), body: CUSTOMER, key: None },
        ],
    )
}

fn katana(options: &Options) -> Result<(), Failure> {
    let key = load::<Katana>(options, "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071")?;
    let path = || "/v1/products?limit=1".to_owned();
    if let Some(url) = &options.url {
        return send_one(url, &Case { title: "your key", path: path(), body: "", key: Some(&key) });
    }
    let emulator = Emulator::katana().with_key(key.clone_key().into_raw()).start()?;
    let deleted = deleted_key::<Katana>(&emulator)?;
    send_all(
        &emulator,
        &[
            Case { title: "good key", path: path(), body: "", key: Some(&key) },
            Case { title: "deleted key", path: path(), body: "", key: Some(&deleted) },
            Case { title: "no header", path: path(), body: "", key: None },
        ],
    )
}

/// Returns a key that was just deleted.
fn deleted_key<I: Issuer>(emulator: &Emulator) -> Result<ApiKey<I>, Failure> {
    let new = emulator.create_key("soon deleted")?;
    emulator.delete_key(new.record().id())?;
    Ok(new.into_key().try_into_typed()?)
}

/// Loads the key through a chain, from the reference on the command line or from a `.env` of its own.
fn load<I: Issuer>(options: &Options, made_up: &str) -> Result<ApiKey<I>, Failure> {
    let folder = tempfile::tempdir()?;
    let chain = Chain::<I>::new();
    let chain = if let Some(reference) = &options.reference {
        // The person who runs the example wrote the reference, so it may name a command.
        chain.with_reference(&reference.clone().allow_commands())?
    } else {
        let path = folder.path().join(".env");
        let variable = I::PROFILE.variable();
        std::fs::write(&path, format!("# made up by first_request\n{variable}={made_up}\n"))?;
        #[cfg(unix)]
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        println!("Wrote {} with a made-up key.", path.display());
        chain.with_dotenv(path)
    };
    let selected = chain.load()?;
    println!("Key from {}", selected.provenance());
    if let Some(fingerprint) = selected.key().fingerprint() {
        println!("Fingerprint {fingerprint}");
    }
    println!("Attempts:\n{}", selected.attempts());
    Ok(selected.into_key())
}

fn send_all<I: Issuer>(emulator: &Emulator, cases: &[Case<'_, I>]) -> Result<(), Failure> {
    let guard = OriginGuard::for_loopback(emulator.origin().clone())?;
    println!(
        "Asking the emulator on {}, which answers as {} documents:",
        emulator.origin(),
        I::PROFILE.title()
    );
    for case in cases {
        println!("  {:<21} {}", case.title, send(&guard, case)?);
    }
    Ok(())
}

fn send_one<I: Issuer>(url: &Origin, case: &Case<'_, I>) -> Result<(), Failure> {
    let guard = guard_for(url)?;
    println!("Asking {}:", guard.origin());
    println!("  {:<21} {}", case.title, send(&guard, case)?);
    Ok(())
}

/// Returns the guard for the issuer itself, for a server on this machine, or for the https origin that the
/// command line names.
fn guard_for<I: Issuer>(url: &Origin) -> Result<OriginGuard<I>, Failure> {
    Ok(if url == I::PROFILE.origin() {
        OriginGuard::new()
    } else if url.is_loopback() {
        OriginGuard::for_loopback(url.clone())?
    } else {
        OriginGuard::for_https(url.clone())?
    })
}

fn send<I: Issuer>(guard: &OriginGuard<I>, case: &Case<'_, I>) -> Result<Answer, Failure> {
    let uri = format!("{}{}", guard.origin(), case.path);
    let method = if case.body.is_empty() { "GET" } else { "POST" };
    let mut request = http::Request::builder()
        .method(method)
        .uri(uri)
        .header("accept", "application/json")
        .header("content-type", "application/json")
        .body(case.body)?;
    if let Some(key) = case.key {
        guard.authorize(&mut request, &BearerHeader::new(key))?;
    }
    // A client of your own needs the same three: no proxy unless asked for, no redirects, a timeout.
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .timeout_global(Some(Duration::from_secs(10)))
        .http_status_as_error(false)
        .build()
        .into();
    let mut response = agent.run(request)?;
    let retry_after = response.headers().get("retry-after").map(|value| value.as_bytes().to_vec());
    let status = response.status().as_u16();
    let body = response.body_mut().with_config().limit(MAX_ANSWER).read_to_vec()?;
    Ok(I::PROFILE.classify(status, retry_after.as_deref(), &body))
}
