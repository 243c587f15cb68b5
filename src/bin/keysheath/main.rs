//! The command line of keysheath, over the public API only.

mod demo;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use lexopt::{Arg, Parser};

use demo::Demo;

const USAGE: &str = "\
usage: keysheath COMMAND [OPTIONS]

  demo    play the life of a key against a local emulator, while requests are sent

keysheath COMMAND --help lists the options of a command.

  -h, --help      print this text
  -V, --version   print the version

Exit status: 0 after success, 1 if the command failed, 2 for invalid arguments.";

/// What the command line asks for.
enum Action {
    Demo(Demo),
    Print(&'static str),
}

fn main() -> ExitCode {
    let action = match read(Parser::from_env()) {
        Ok(action) => action,
        Err((problem, usage)) => return fail(2, &format!("{problem}\n{usage}")),
    };
    match action {
        Action::Print(text) => match writeln!(io::stdout(), "{text}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Action::Demo(demo) => match demo.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(1, &error.to_string()),
        },
    }
}

/// Reads the command line. The error is a problem and the usage to show with it. No error repeats an
/// argument, and so none of lexopt is passed on: a key may have been typed in the wrong place.
fn read(mut parser: Parser) -> Result<Action, (&'static str, &'static str)> {
    const NOT_UNDERSTOOD: &str = "an argument was not understood";
    match parser.next() {
        Ok(Some(Arg::Value(command))) if command == "demo" => {
            demo(&mut parser).map_err(|problem| (problem.unwrap_or(NOT_UNDERSTOOD), demo::USAGE))
        }
        Ok(Some(Arg::Short('h') | Arg::Long("help"))) => Ok(Action::Print(USAGE)),
        Ok(Some(Arg::Short('V') | Arg::Long("version"))) => {
            Ok(Action::Print(concat!("keysheath ", env!("CARGO_PKG_VERSION"))))
        }
        Ok(None) => Err(("a command is missing", USAGE)),
        _ => Err((NOT_UNDERSTOOD, USAGE)),
    }
}

/// Reads the options of `demo`. The error is the rule of an option that was broken, if one was.
fn demo(parser: &mut Parser) -> Result<Action, Option<&'static str>> {
    let mut demo = Demo { time: Duration::from_secs(6), rotations: 6, keychain: false };
    while let Some(argument) = parser.next().map_err(|_| None)? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Action::Print(demo::USAGE)),
            Arg::Long("seconds") => {
                let seconds = value(parser).filter(|seconds| (1..=86_400).contains(seconds));
                demo.time = Duration::from_secs(seconds.ok_or("--seconds takes a number from 1 to 86400")?);
            }
            Arg::Long("rotations") => {
                let rotations = value(parser).filter(|rotations| (1..=1_000_000).contains(rotations));
                demo.rotations = rotations.ok_or("--rotations takes a number from 1 to 1000000")?;
            }
            Arg::Long("keychain") => demo.keychain = true,
            _ => return Err(None),
        }
    }
    Ok(Action::Demo(demo))
}

fn value<T: FromStr>(parser: &mut Parser) -> Option<T> {
    parser.value().ok().and_then(|value: OsString| value.to_str()?.parse().ok())
}

fn fail(code: u8, problem: &str) -> ExitCode {
    // There is nothing to do about an error of the error output.
    writeln!(io::stderr(), "keysheath: {problem}").ok();
    ExitCode::from(code)
}
