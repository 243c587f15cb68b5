//! The command line.

use std::ffi::OsString;

use keysheath::key::{Origin, StoreId};
use keysheath::source::KeyRef;

pub const USAGE: &str = "\
usage: first_request [REFERENCE] [--issuer kanal|katana] [--store NUMBER] [--url ORIGIN]

REFERENCE  where the key is, such as env:KANAL_API_KEY, file:/run/secrets/kanal or
           keychain:kanal; without one, a made-up key in a new .env
--issuer   the issuer of the key [default: kanal]
--store    the Kanal store to ask for [default: 123, or $KANAL_STORE_ID with --url]
--url      the server to ask: scheme, host and port [default: the emulator on 127.0.0.1]";

#[derive(Clone, Copy, Debug)]
pub enum IssuerName {
    Kanal,
    Katana,
}

#[derive(Debug)]
pub struct Options {
    pub reference: Option<KeyRef>,
    pub issuer: IssuerName,
    pub store: Option<StoreId>,
    pub url: Option<Origin>,
    pub help: bool,
}

impl Options {
    /// Reads the arguments. No error repeats one: a key may have been typed in the wrong place.
    pub fn parse(arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let arguments: Result<Vec<String>, OsString> = arguments.map(OsString::into_string).collect();
        let mut arguments = arguments.map_err(|_| "an argument is not Unicode")?.into_iter();
        let mut options =
            Self { reference: None, issuer: IssuerName::Kanal, store: None, url: None, help: false };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("a value is missing\n{USAGE}"));
            match argument.as_str() {
                "-h" | "--help" => options.help = true,
                "--store" => options.store = Some(parse("--store", &value()?)?),
                "--url" => {
                    let origin = Origin::parse(&value()?);
                    options.url = Some(origin.map_err(|error| format!("--url: {error}"))?);
                }
                "--issuer" => {
                    options.issuer = match value()?.as_str() {
                        "kanal" => IssuerName::Kanal,
                        "katana" => IssuerName::Katana,
                        _ => return Err("--issuer: it is kanal or katana".to_owned()),
                    }
                }
                reference if !reference.starts_with('-') && options.reference.is_none() => {
                    options.reference = Some(parse("REFERENCE", reference)?);
                }
                _ => return Err(format!("an argument was not understood\n{USAGE}")),
            }
        }
        Ok(options)
    }
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(what: &str, text: &str) -> Result<T, String> {
    text.parse().map_err(|error| format!("{what}: {error}"))
}
