//! The command line.

use std::ffi::OsString;
use std::time::Duration;

pub const USAGE: &str = "\
usage: lifecycle [--seconds NUMBER] [--rotations NUMBER] [--keychain]

--seconds    how long all planned rotations take together [default: 6]
--rotations  how many there are [default: 6]
--keychain   keep the keys in an item of this machine's keychain, not in a file of a temporary folder;
             it is deleted at the end";

#[derive(Debug)]
pub struct Options {
    pub time: Duration,
    pub rotations: u32,
    pub keychain: bool,
    pub help: bool,
}

impl Options {
    /// Reads the arguments. No error repeats one: a key may have been typed in the wrong place.
    pub fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Self, String> {
        let mut options = Self { time: Duration::from_secs(6), rotations: 6, keychain: false, help: false };
        while let Some(argument) = arguments.next() {
            let mut number = |name: &str, most: u32| {
                let value = arguments.next().and_then(|value| value.to_str()?.parse().ok());
                value
                    .filter(|number| (1..=most).contains(number))
                    .ok_or_else(|| format!("{name} takes a number from 1 to {most}\n{USAGE}"))
            };
            match argument.to_str() {
                Some("-h" | "--help") => options.help = true,
                Some("--seconds") => {
                    options.time = Duration::from_secs(number("--seconds", 86_400)?.into());
                }
                Some("--rotations") => options.rotations = number("--rotations", 1_000_000)?,
                Some("--keychain") => options.keychain = true,
                _ => return Err(format!("an argument was not understood\n{USAGE}")),
            }
        }
        Ok(options)
    }
}
