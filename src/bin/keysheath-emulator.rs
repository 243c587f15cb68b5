//! A server on this machine that answers as Kanal or Katana document, for tests in any language.

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;

use keysheath::emulator::{Emulator, FOREIGN_STORE, OWN_STORE, PAUSED_STORE, Settings, TEAM};
use keysheath::issuer::StoreId;
use lexopt::{Arg, Parser};

const USAGE: &str = "\
usage: keysheath-emulator [kanal|katana] [OPTIONS]

Answers on 127.0.0.1 as Kanal (or Katana) documents, until it is ended. It makes up one key at every
start, and prints it with its addresses and the token of its control plane.

  --port NUMBER           the port to answer on; one that is free unless given
  --control-port NUMBER   the control plane's port; one that is free unless given
  --seed NUMBER           the same key, products and faults at every start; for tests alone
  --store NUMBER          another store of the key's team; may be repeated
  --rate-limit            the documented 60 requests a minute
  --nested-errors         Katana's errors nested under `error`
  --tls                   over TLS, with a certificate made at start and printed
  -h, --help              this text
  -V, --version           the version";

/// What the command line asks for. No error repeats an argument: a key may have been typed in the wrong place.
struct Options {
    settings: Settings,
    stores: Vec<StoreId>,
    is_kanal: bool,
}

enum Asked {
    Serve(Options),
    Print(&'static str),
}

fn main() -> ExitCode {
    let asked = match read(Parser::from_env()) {
        Ok(asked) => asked,
        Err(problem) => return fail(2, &format!("{problem}; keysheath-emulator --help lists the options")),
    };
    let options = match asked {
        Asked::Print(text) => {
            return match writeln!(io::stdout(), "{text}") {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            };
        }
        Asked::Serve(options) => options,
    };
    let emulator = match options.settings.start() {
        Ok(emulator) => emulator,
        Err(error) => return fail(1, &error.to_string()),
    };
    for store in options.stores {
        if let Err(error) = emulator.put_store(store, TEAM) {
            return fail(1, &error.to_string());
        }
    }
    if introduce(&emulator, options.is_kanal).is_err() {
        return fail(1, "the standard output cannot be written to, and nobody would know the key");
    }
    // The signals that end a process end it, and the operating system cuts the connections.
    loop {
        std::thread::park();
    }
}

fn read(mut parser: Parser) -> Result<Asked, String> {
    let mut settings = Vec::<fn(Settings) -> Settings>::new();
    let (mut port, mut control_port, mut seed) = (0, 0, None);
    let mut stores = Vec::new();
    let mut issuer: Option<bool> = None;
    // An error of lexopt's holds the argument, so it is not passed on.
    while let Some(argument) = parser.next().map_err(|_| "an option has a value that it does not take")? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Asked::Print(USAGE)),
            Arg::Short('V') | Arg::Long("version") => {
                return Ok(Asked::Print(concat!("keysheath-emulator ", env!("CARGO_PKG_VERSION"))));
            }
            Arg::Long("port") => port = number(&mut parser, "--port is a number from 0 to 65535")?,
            Arg::Long("control-port") => {
                control_port = number(&mut parser, "--control-port is a number from 0 to 65535")?;
            }
            Arg::Long("seed") => seed = Some(number(&mut parser, "--seed is a number from 0")?),
            Arg::Long("store") => stores.push(number(&mut parser, "--store is a positive number")?),
            Arg::Long("rate-limit") => settings.push(Settings::with_rate_limit),
            Arg::Long("nested-errors") => settings.push(Settings::with_nested_errors),
            Arg::Long("tls") => settings.push(tls()?),
            Arg::Value(name) if name == "kanal" && issuer.is_none() => issuer = Some(true),
            Arg::Value(name) if name == "katana" && issuer.is_none() => issuer = Some(false),
            _ => return Err("an argument was not understood".to_owned()),
        }
    }
    let is_kanal = issuer.unwrap_or(true);
    let mut chosen = if is_kanal { Emulator::kanal() } else { Emulator::katana() };
    chosen = chosen.with_port(port).with_control_port(control_port);
    if let Some(seed) = seed {
        chosen = chosen.with_seed(seed);
    }
    let settings = settings.into_iter().fold(chosen, |settings, change| change(settings));
    Ok(Asked::Serve(Options { settings, stores, is_kanal }))
}

fn number<T: std::str::FromStr>(parser: &mut Parser, problem: &str) -> Result<T, String> {
    let text = parser.value().ok().and_then(|value: OsString| value.into_string().ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(|| problem.to_owned())
}

#[cfg(feature = "emulator-tls")]
#[expect(clippy::unnecessary_wraps, reason = "without the feature it is an error")]
fn tls() -> Result<fn(Settings) -> Settings, String> {
    Ok(Settings::with_tls)
}

#[cfg(not(feature = "emulator-tls"))]
fn tls() -> Result<fn(Settings) -> Settings, String> {
    Err("--tls needs a build with the feature emulator-tls".to_owned())
}

/// The one place where the key is shown.
fn introduce(emulator: &Emulator, is_kanal: bool) -> io::Result<()> {
    let mut out = io::stdout().lock();
    let (name, variable, path) = if is_kanal {
        ("Kanal", "KANAL_API_KEY", "/api/v1/stores/123/customers")
    } else {
        ("Katana", "KATANA_API_KEY", "/v1/products?limit=1")
    };
    writeln!(out, "Answers as {name} documents, until it is ended (Ctrl-C).")?;
    writeln!(out, "url      {}", emulator.origin())?;
    writeln!(
        out,
        "key      {}  (made up for this run, and shown this once)",
        emulator.key().expose_secret()
    )?;
    if is_kanal {
        let (own, foreign, paused) = (OWN_STORE, FOREIGN_STORE, PAUSED_STORE);
        writeln!(out, "stores   {own} is the key's, {foreign} is another team's, {paused} is paused")?;
    }
    writeln!(out, "control  {}", emulator.control_origin())?;
    writeln!(
        out,
        "token    {}  (for the control plane, at this start alone)",
        emulator.control_token().expose_secret()
    )?;
    let url = format!("{}{path}", emulator.origin());
    let body =
        if is_kanal { " --json '{ \"phone\": \"+33612345678\", \"first_name\": \"Test\" }'" } else { "" };
    writeln!(out, "\nWith the key in ${variable}:")?;
    writeln!(out, "  curl -i -H \"Authorization: Bearer ${variable}\"{body} '{url}'")?;
    writeln!(out, "With the token in $TOKEN:")?;
    writeln!(out, "  curl -H \"Authorization: Bearer $TOKEN\" {}/journal", emulator.control_origin())?;
    #[cfg(feature = "emulator-tls")]
    if let Some(pem) = emulator.certificate_pem() {
        writeln!(out, "\nThe certificate to trust (curl --cacert FILE):\n{}", pem.trim_end())?;
    }
    out.flush()
}

fn fail(code: u8, problem: &str) -> ExitCode {
    // There is nothing to do about an error of the error output.
    writeln!(io::stderr(), "keysheath-emulator: {problem}").ok();
    ExitCode::from(code)
}
