//! A local server that answers as Kanal or Katana document, for tests in any language.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::str::FromStr;

use keysheath::emulator::{Emulator, EmulatorSettings, FOREIGN_STORE, OWN_STORE, PAUSED_STORE, TEAM};
use keysheath::key::{Issuer as _, Kanal, Katana, Profile, RawKey, StoreId};
use lexopt::{Arg, Parser};
use serde_json::json;

const USAGE: &str = "\
usage: keysheath-emulator [kanal|katana] [OPTIONS]

Answers on 127.0.0.1 as Kanal (or Katana) documents, until it is stopped. It creates one key at each
start, and prints it with its addresses and the token of its control plane.

  --port NUMBER           the port; any free port by default
  --control-port NUMBER   the port of the control plane; any free port by default
  --key TEXT              start with this key; only for a made-up key, because every program on this
                          machine can read it in the list of processes
  --seed NUMBER           the same key, products and random faults at every start; only for tests
  --store NUMBER          another store of the key's team (Kanal); may be repeated
  --rate-limit            apply the documented 60 requests a minute
  --nested-errors         nest errors under `error` (Katana)
  --tls                   use TLS, with a certificate that is made at start and printed
  --json                  print one line of JSON at start: issuer, url, key, key_id, fingerprint,
                          control_url, control_token, stores, certificate
  -h, --help              print this text
  -V, --version           print the version

It answers
  Kanal   POST /api/v1/stores/{store_id}/customers   GET /api/v1/stores/{store_id}/orders
  Katana  GET /v1/products?limit=&page=
and refuses everything else with the documented status and body. A request with a body needs
`content-type: application/json`, on the control plane too.

Control plane: JSON over HTTP on a port of its own, with `Authorization: Bearer TOKEN`.
  POST   /keys                    {\"name\": \"shop\", \"team\": 1, \"store\": 123}: creates a key, and
                                  shows it once; team and store are optional
  GET    /keys?team=1             the team's keys, without their text
  DELETE /keys/{id}               deletes a key at once
  POST   /keys/{id}/delete-after  {\"requests\": 3}: deletes it after 3 more requests
  PUT    /stores/{id}             {\"team\": 1}: adds a store, or gives it to another team
  POST   /stores/{id}/pause       and /stores/{id}/resume
  GET    /stores/{id}/customers   the customers that were written
  POST   /faults                  adds a fault rule, see below
  GET    /faults                  the rules, and how often each was applied
  DELETE /faults                  removes every rule
  GET    /journal                 the last 10,000 requests: method, path, status, fingerprint, fault
  POST   /reset                   removes customers, journal, rules, deletions to come, rate limits

Faults: {\"fault\": FAULT} and, optionally:
  \"key\": \"ID\"  \"store\": 123  \"route\": \"/v1/*\"  \"nth\": 1  \"times\": 2  \"probability\": 0.5
where FAULT is one of
  {\"status\": 503, \"retry_after\": 2, \"body\": \"text\"}   this answer; the last two are optional
  {\"latency_ms\": 200}   answers later
  \"reset\"               resets the connection instead of an answer
  \"truncated_body\"      sends half of the body, and closes the connection

Exit status: 0 after --help and --version, 1 if it cannot start, 2 for invalid arguments. A signal
ends it as it ends any program; as process 1, such as in a container, it ends on SIGINT, SIGTERM,
SIGHUP and SIGQUIT with 128 plus the number of the signal.";

/// The options of the command line. No error repeats an argument: it may be a key in the wrong place.
struct Options {
    settings: EmulatorSettings,
    stores: Vec<StoreId>,
    profile: &'static Profile,
    is_key_given: bool,
    is_json: bool,
}

enum Action {
    Serve(Options),
    Print(&'static str),
}

fn main() -> ExitCode {
    let action = match read(Parser::from_env()) {
        Ok(asked) => asked,
        Err(problem) => return fail(2, &format!("{problem}; keysheath-emulator --help lists the options")),
    };
    let options = match action {
        Action::Print(text) => {
            return match writeln!(io::stdout(), "{text}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Action::Serve(options) => options,
    };
    // Before anything is printed: from then on a signal may come.
    let Ok(ending) = Ending::new() else {
        return fail(1, "the operating system gives no way to wait for signals: check this user's limits");
    };
    let emulator = match options.settings.start() {
        Ok(emulator) => emulator,
        Err(error) => return fail(1, &error.to_string()),
    };
    for &store in &options.stores {
        if let Err(error) = emulator.put_store(store, TEAM) {
            return fail(1, &error.to_string());
        }
    }
    let shown = Shown {
        emulator: &emulator,
        profile: options.profile,
        is_key_given: options.is_key_given,
        stores: Stores::with(&options.stores),
    };
    let printed = if options.is_json { shown.as_json() } else { shown.as_text() };
    if printed.is_err() {
        return fail(1, "the key cannot be written to the standard output");
    }
    ending.wait()
}

fn read(mut parser: Parser) -> Result<Action, String> {
    let (mut port, mut control_port, mut seed, mut key) = (None, None, None, None::<String>);
    let (mut is_limited, mut is_nested, mut has_tls, mut is_json) = (false, false, false, false);
    let mut stores = Vec::new();
    let mut issuer: Option<&'static Profile> = None;
    // An error of lexopt holds the argument, so it is not passed on.
    while let Some(argument) = parser.next().map_err(|_| "an option has a value, but takes none")? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Action::Print(USAGE)),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Action::Print(concat!("keysheath-emulator ", env!("CARGO_PKG_VERSION"))));
            }
            Arg::Long("port") => set(&mut port, &mut parser, "--port is a number from 0 to 65535, once")?,
            Arg::Long("control-port") => {
                set(&mut control_port, &mut parser, "--control-port is a number from 0 to 65535, once")?;
            }
            Arg::Long("seed") => set(&mut seed, &mut parser, "--seed is a number from 0, once")?,
            Arg::Long("key") => set(&mut key, &mut parser, "--key is a key, once")?,
            Arg::Long("store") => stores.push(value(&mut parser, "--store is a positive number")?),
            Arg::Long("rate-limit") => is_limited = true,
            Arg::Long("nested-errors") => is_nested = true,
            Arg::Long("tls") => has_tls = true,
            Arg::Long("json") => is_json = true,
            Arg::Value(name) if name == "kanal" && issuer.is_none() => issuer = Some(Kanal::PROFILE),
            Arg::Value(name) if name == "katana" && issuer.is_none() => issuer = Some(Katana::PROFILE),
            _ => return Err("an argument was not understood".to_owned()),
        }
    }
    let profile = issuer.unwrap_or(Kanal::PROFILE);
    let mut settings = match profile.name() {
        "kanal" if is_nested => return Err("--nested-errors is for Katana: Kanal has one shape".to_owned()),
        "kanal" => Emulator::kanal(),
        _ if !stores.is_empty() => return Err("--store is for Kanal: Katana has no stores".to_owned()),
        _ => Emulator::katana(),
    };
    settings = settings.with_port(port.unwrap_or(0)).with_control_port(control_port.unwrap_or(0));
    if let Some(seed) = seed {
        settings = settings.with_seed(seed);
    }
    let is_key_given = key.is_some();
    if let Some(key) = key {
        let (least, most) = profile.format().lengths().into_inner();
        let length = if least == most { least.to_string() } else { format!("{least} to {most}") };
        let form = format!("--key is not a key of {}: {length} of A-Z a-z 0-9 - . _ ~ + /", profile.title());
        settings = settings.with_key(RawKey::parse(profile, key.as_bytes()).map_err(|_| form)?);
    }
    if is_limited {
        settings = settings.with_rate_limit();
    }
    if is_nested {
        settings = settings.with_nested_errors();
    }
    if has_tls {
        #[cfg(not(feature = "emulator-tls"))]
        return Err("--tls needs a build with the feature emulator-tls".to_owned());
        #[cfg(feature = "emulator-tls")]
        {
            settings = settings.with_tls();
        }
    }
    Ok(Action::Serve(Options { settings, stores, profile, is_key_given, is_json }))
}

fn set<T: FromStr>(place: &mut Option<T>, parser: &mut Parser, problem: &str) -> Result<(), String> {
    match place.replace(value(parser, problem)?) {
        None => Ok(()),
        Some(_) => Err(problem.to_owned()),
    }
}

fn value<T: FromStr>(parser: &mut Parser, problem: &str) -> Result<T, String> {
    let text = parser.value().ok().and_then(|value: OsString| value.into_string().ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| problem.to_owned())
}

/// The stores, with those of the command line.
struct Stores {
    own: Vec<StoreId>,
    foreign: Vec<StoreId>,
    paused: Vec<StoreId>,
}

impl Stores {
    fn with(more: &[StoreId]) -> Self {
        let mut own = vec![OWN_STORE];
        own.extend(more.iter().filter(|store| **store != PAUSED_STORE));
        own.sort();
        own.dedup();
        let foreign = Some(FOREIGN_STORE).filter(|store| !own.contains(store));
        Self { own, foreign: foreign.into_iter().collect(), paused: vec![PAUSED_STORE] }
    }
}

/// The text that is printed at the start. It contains the key once.
struct Shown<'a> {
    emulator: &'a Emulator,
    profile: &'static Profile,
    is_key_given: bool,
    stores: Stores,
}

impl Shown<'_> {
    fn is_kanal(&self) -> bool {
        self.profile == Kanal::PROFILE
    }

    fn as_json(&self) -> io::Result<()> {
        let numbers = |stores: &[StoreId]| stores.iter().map(|store| store.get()).collect::<Vec<_>>();
        let Stores { own, foreign, paused } = &self.stores;
        let stores = self
            .is_kanal()
            .then(|| json!({ "own": numbers(own), "foreign": numbers(foreign), "paused": numbers(paused) }));
        let emulator = self.emulator;
        let line = json!({
            "issuer": self.profile.name(),
            "url": emulator.origin().to_string(),
            "key": emulator.key().expose_secret(),
            "key_id": emulator.key_id().to_string(),
            "fingerprint": emulator.key().fingerprint().map(|fingerprint| fingerprint.to_string()),
            "control_url": emulator.control_origin().to_string(),
            "control_token": emulator.control_token().expose_secret(),
            "stores": stores,
            "certificate": emulator.certificate_pem(),
        });
        let mut out = io::stdout().lock();
        writeln!(out, "{line}")?;
        out.flush()
    }

    fn as_text(&self) -> io::Result<()> {
        let emulator = self.emulator;
        let mut out = io::stdout().lock();
        let variable = self.profile.variable();
        let path = if self.is_kanal() { "/api/v1/stores/123/customers" } else { "/v1/products?limit=1" };
        writeln!(out, "Answers as {} documents, until it is stopped (Ctrl-C).", self.profile.title())?;
        writeln!(out, "url      {}", emulator.origin())?;
        let note =
            if self.is_key_given { "given by --key" } else { "for this run only, and shown only here" };
        writeln!(out, "key      {}  ({note})", emulator.key().expose_secret())?;
        if self.is_kanal() {
            let list =
                |stores: &[StoreId]| stores.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
            writeln!(out, "stores   {}  (the key's)", list(&self.stores.own))?;
            if !self.stores.foreign.is_empty() {
                writeln!(out, "         {}  (another team's)", list(&self.stores.foreign))?;
            }
            writeln!(out, "         {}  (the key's, paused)", list(&self.stores.paused))?;
        }
        writeln!(out, "control  {}", emulator.control_origin())?;
        writeln!(
            out,
            "token    {}  (for the control plane of this run; --help lists what it does)",
            emulator.control_token().expose_secret()
        )?;
        let url = format!("{}{path}", emulator.origin());
        let body = if self.is_kanal() {
            " --json '{ \"phone\": \"+33612345678\", \"first_name\": \"Test\" }'"
        } else {
            ""
        };
        writeln!(out, "\nWith the key in ${variable}:")?;
        writeln!(out, "  curl -i -H \"Authorization: Bearer ${variable}\"{body} '{url}'")?;
        writeln!(out, "With the token in $TOKEN:")?;
        writeln!(out, "  curl -H \"Authorization: Bearer $TOKEN\" {}/journal", emulator.control_origin())?;
        if let Some(pem) = emulator.certificate_pem() {
            writeln!(out, "\nThe certificate to trust (curl --cacert FILE):\n{}", pem.trim_end())?;
        }
        out.flush()
    }
}

/// Waits for the end of the process.
///
/// Signals end the process by themselves, and the operating system closes the connections. Only from process
/// 1, which the first program of a container is, does the kernel keep signals without a handler away.
struct Ending {
    #[cfg(unix)]
    first: Option<(tokio::runtime::Runtime, Vec<(u8, tokio::signal::unix::Signal)>)>,
}

impl Ending {
    #[cfg(unix)]
    fn new() -> io::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};

        if std::process::id() != 1 {
            return Ok(Self { first: None });
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        let entered = runtime.enter();
        let numbers = [(2, SignalKind::interrupt()), (15, SignalKind::terminate())];
        let others = [(1, SignalKind::hangup()), (3, SignalKind::quit())];
        let all = numbers.into_iter().chain(others);
        let signals = all.map(|(number, kind)| Ok((number, signal(kind)?))).collect::<io::Result<_>>()?;
        drop(entered);
        Ok(Self { first: Some((runtime, signals)) })
    }

    #[cfg(not(unix))]
    fn new() -> io::Result<Self> {
        Ok(Self {})
    }

    fn wait(self) -> ExitCode {
        #[cfg(unix)]
        if let Some((runtime, mut signals)) = self.first {
            let came = std::future::poll_fn(|context| {
                for (number, signal) in &mut signals {
                    if signal.poll_recv(context).is_ready() {
                        return std::task::Poll::Ready(*number);
                    }
                }
                std::task::Poll::Pending
            });
            return ExitCode::from(128 + runtime.block_on(came));
        }
        loop {
            std::thread::park();
        }
    }
}

fn fail(code: u8, problem: &str) -> ExitCode {
    // There is nothing to do about an error of the error output.
    writeln!(io::stderr(), "keysheath-emulator: {problem}").ok();
    ExitCode::from(code)
}
