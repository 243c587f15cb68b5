//! The same files, read by python-dotenv and by Node's `util.parseEnv`.
//!
//! Where a key is given, both find the same text; where either finds a text, the variable is not absent.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use keysheath::key::{KeyFormat, Origin, Profile};
use keysheath::source::{self, DotenvFile, Loaded, Provenance};

use crate::support::Folder;

/// A format as wide as there is, so that nearly every value that is read is a key.
const ANY: &Profile =
    &Profile::new("any", "KANAL_API_KEY", Origin::https("any.example"), KeyFormat::between(2, 4096), 64);

const NAME: &str = "KANAL_API_KEY";

/// How many files are made up.
const FILES: usize = 10_000;

/// What this crate answers.
#[derive(Debug)]
enum Ours {
    Found { line: usize, text: String },
    Absent,
    Error,
}

/// Xorshift: the same files in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }

    fn one<'a>(&mut self, parts: &[&'a str]) -> &'a str {
        parts[self.below(parts.len())]
    }

    /// The first part, fourteen times out of fifteen.
    fn mostly<'a>(&mut self, usual: &'a str, parts: &[&'a str]) -> &'a str {
        if self.below(15) > 0 { usual } else { self.one(parts) }
    }
}

const BLANKS: &[&str] = &["", " ", "  ", "\t", "\u{a0}", "\u{3000}", "\u{200b}", "\u{feff}", "\u{2003}"];
const ENDS: &[&str] = &["\n", "\r\n", "\r", "\u{b}", "\u{c}", "\u{85}", "\u{2028}", "\u{2029}", "\u{1c}", ""];
const NAMES: &[&str] = &[
    "PORT",
    "A",
    "B",
    "LOG_DIR",
    "kanal_api_key",
    "KANAL_API_KEY_FILE",
    "XKANAL_API_KEY",
    "KAN$L_API_KEY",
    "MY-APP",
    "'KANAL_API_KEY'",
    "\"KANAL_API_KEY\"",
    "KANAL_API\r_KEY",
    "'KANAL_API_KEY",
    "KANAL_API_KEY\\",
    "#A",
    "A\n",
    "A.B",
    "KANAL_API_KEY:",
    "export",
    "'A",
    "",
];
const VALUES: &[&str] = &[
    "",
    "k8",
    "80",
    "a b",
    "x$y",
    "${A}",
    "$A",
    "x\\",
    "x\\n",
    "a#b",
    "O'Brien",
    "5\"",
    "{\"a\": \"b\"}",
    "C:\\logs",
    "k==",
    "\u{a0}k",
    "k\u{3000}",
    "KANAL_API_KEY=k",
    "#",
    "`k",
    "k\nKANAL_API_KEY=k9\nz",
    "\\\"",
    "\\\\",
    "\\'",
    "k\\\nl",
    "k\n",
    "\nk",
    "a\"b\"c",
    "a'b'c",
];
const QUOTES: &[&str] = &["'", "\"", "`"];
const TAILS: &[&str] = &[
    "",
    " ",
    "  ",
    " # note",
    "  # don't",
    " # it's on",
    " # a \"b",
    "#x",
    " #",
    "\t# n",
    "\u{a0}# n",
    "\t",
    "\u{a0}",
    "\u{3000}",
    " x",
    "'",
    "\"",
    "\\",
];

/// A line that sets something, or looks as if it did.
fn assignment(random: &mut Random) -> String {
    let name = if random.below(5) == 0 { NAME } else { random.one(NAMES) };
    let before = random.mostly("", BLANKS);
    let export = random.mostly("", &["export ", "export ", "export  ", "export\t", "export\u{a0}"]);
    let equals = random.mostly("=", &["=", " = ", " =", "= ", "", ":", "==", "\u{ff1d}"]);
    let (left, right) = (random.mostly("", BLANKS), random.mostly("", BLANKS));
    let value = if random.below(2) == 0 { "k8" } else { random.one(VALUES) };
    let (open, close) = match random.below(8) {
        0..4 => ("", ""),
        4 | 5 => {
            let quote = random.one(QUOTES);
            (quote, quote)
        }
        6 => (random.one(QUOTES), ""),
        _ => ("", random.one(QUOTES)),
    };
    let tail = random.mostly("", TAILS);
    format!("{before}{export}{name}{left}{equals}{right}{open}{value}{close}{tail}")
}

fn line(random: &mut Random) -> String {
    match random.below(12) {
        0 => random
            .one(&["", "   ", "# note", "# it's", "  # A=\"x", "\t# A=\"x", "#KANAL_API_KEY=x"])
            .to_owned(),
        1 => random
            .one(&[
                "not a line",
                "y\"",
                "\"",
                "'",
                "B=\"",
                "x='",
                "export NOT_SET",
                "=5",
                "b'=\"x",
                "KANAL_API_KEY",
            ])
            .to_owned(),
        _ => assignment(random),
    }
}

fn lines(random: &mut Random, most: usize) -> String {
    (0..=random.below(most)).fold(String::new(), |text, _| {
        let end = random.mostly("\n", ENDS);
        text + &line(random) + end
    })
}

fn file(random: &mut Random) -> String {
    let mark = if random.below(40) == 0 { "\u{feff}" } else { "" };
    if random.below(2) == 0 {
        return format!("{mark}{}", lines(random, 5));
    }
    // A line that is clear by itself, among others.
    let own = random.one(&[
        "KANAL_API_KEY=k8",
        "export KANAL_API_KEY='k8' # it's",
        " KANAL_API_KEY = \"k8\"",
        "# no",
    ]);
    format!("{mark}{}{own}\n{}", lines(random, 3), lines(random, 2))
}

/// The files of the bug reports, and those that a mistake would be easy to make in.
const KNOWN: &[&str] = &[
    "PORT=80  # don't change\nKANAL_API_KEY=k8\nDEBUG=1  # it's on\n",
    "OWNER=O'Brien\nKANAL_API_KEY=k8\nSHOP=Joe's\n",
    "SIZE=5\"\nKANAL_API_KEY=k8\nW=6\"\n",
    "A=\"x\nKANAL_API_KEY=k8\nB=\"\n",
    "A='x\nKANAL_API_KEY=k8\nB='\n",
    "A=1\rKANAL_API_KEY=k8\rB=2\r",
    "A=1\u{b}KANAL_API_KEY=k8\n",
    "A=1\u{c}KANAL_API_KEY=k8\n",
    "A=1\u{2028}KANAL_API_KEY=k8\n",
    "A=1\u{85}KANAL_API_KEY=k8\n",
    "KANAL_API_KEY=a\nA=\"\nKANAL_API_KEY=b\n\"\n",
    "APP_NAME=My Shop\nKANAL_API_KEY=k8\n",
    "LOG_DIR=C:\\logs\\shop\nKANAL_API_KEY=k8\n",
    "J={\"type\": \"x\"}\nKANAL_API_KEY=k8\n",
    "export NOT_SET\nKANAL_API_KEY=k8\n",
    "MY-APP=1\nKANAL_API_KEY=k8\n",
    "A=\"x\\\"\nKANAL_API_KEY=k8\nB=\"1\"\n",
    "A=\"x\\\\\"\nKANAL_API_KEY=k8\nB=\"1\"\n",
    "\t# A=\"x\nKANAL_API_KEY=k8\nB=\"\n",
    "'A\nKANAL_API_KEY=k8\n'\n",
    "CERT=\"abc\ndef=\"\nKANAL_API_KEY=k8\nB=\"x\"\n",
    "A=1\n  # B=\"x\nKANAL_API_KEY=\"k8\"\n",
    "KANAL_API_KEY=k8\nexport KANAL_API_KEY\n",
    "A=\u{3000}\"b\nB=\"\nKANAL_API_KEY=k8\nC=\"\n",
    "export =\"\n A=\"k\nKANAL_API_KEY=k8\nz\"\n",
    "export\t='\n'A=a b\nKANAL_API_KEY='k8'\n",
];

fn ours(path: &Path, text: &str) -> Ours {
    std::fs::write(path, text).unwrap();
    match source::load(&DotenvFile::new(path, NAME), ANY) {
        Ok(Loaded::Found(found)) => {
            let Provenance::Dotenv { line: Some(line), .. } = found.provenance() else {
                panic!("no line: {:?}", found.provenance());
            };
            Ours::Found { line: *line, text: found.key().expose_secret().to_owned() }
        }
        Ok(Loaded::Absent(_)) => Ours::Absent,
        Err(_) => Ours::Error,
    }
}

/// What a peer finds in each of the files.
fn theirs(peer: &mut Command, files: &[String]) -> Vec<Option<String>> {
    let mut child = peer
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the peer is installed: run scripts/setup");
    let json = serde_json::to_vec(files).unwrap();
    let mut input = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || input.write_all(&json));
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let found: Vec<_> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found.len(), files.len());
    found
}

fn by_python(files: &[String]) -> Vec<Option<String>> {
    let tools = std::env::var_os("KEYSHEATH_TOOLS").map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/keysheath");
    let folder = tools.unwrap_or_else(home).join("python-dotenv-1.2.4");
    assert!(folder.is_dir(), "python-dotenv is not installed: run scripts/setup");
    theirs(Command::new("python3").arg(script("python.py")).arg(folder).arg(NAME), files)
}

fn by_node(files: &[String]) -> Vec<Option<String>> {
    theirs(Command::new("node").arg(script("node.mjs")).arg(NAME), files)
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/dotenv").join(name)
}

/// Where Node finds nothing though the line is clear: it takes a byte order mark, and a line that has no `=`
/// and is neither empty nor starts with `#`, for a part of the name that follows, and stops at a line without
/// a name. python-dotenv reads these files as this crate does.
fn node_stumbles(file: &str, line: usize) -> bool {
    let before = file.split('\n').take(line - 1).map(|line| line.trim_end_matches('\r'));
    let mut before = before.filter(|line| !line.is_empty() && !line.starts_with('#'));
    file.starts_with('\u{feff}')
        || before.any(|line| !line.contains('=') || line.trim_start().starts_with('='))
}

/// Whether a line sets the variable, wherever a line may be thought to begin.
fn has_such_a_line(file: &str) -> bool {
    let breaks = ['\n', '\r', '\u{b}', '\u{c}', '\u{85}', '\u{2028}', '\u{2029}'];
    file.split(breaks).any(|line| {
        let line = line.trim_start();
        let name = line.strip_prefix("export").filter(|rest| rest.starts_with(char::is_whitespace));
        let name = name.map_or(line, str::trim_start);
        name.strip_prefix(NAME).is_some_and(|rest| rest.trim_start().starts_with('='))
    })
}

#[test]
fn other_readers_of_such_files_agree_or_it_is_an_error() {
    let mut random = Random(0x1357_9bdf_2468_ace0);
    let made_up = (0..FILES).map(|_| file(&mut random));
    let files: Vec<String> = KNOWN.iter().map(|&file| file.to_owned()).chain(made_up).collect();
    let folder = Folder::new();
    let (python, node) = (by_python(&files), by_node(&files));
    let (mut found, mut absent, mut errors, mut wrong) = (0, 0, 0, Vec::new());
    for ((file, python), node) in files.iter().zip(&python).zip(&node) {
        let is_set = [python, node].into_iter().flatten().any(|text| !text.is_empty());
        let ours = ours(&folder.at(".env"), file);
        let is_wrong = match &ours {
            Ours::Found { line, text } => {
                found += 1;
                let node_agrees =
                    node.as_ref().map_or_else(|| node_stumbles(file, *line), |node| node == text);
                python.as_ref() != Some(text) || !node_agrees
            }
            Ours::Absent => {
                absent += 1;
                let is_empty = [python, node].into_iter().flatten().next().is_some();
                is_set || (has_such_a_line(file) && !is_empty)
            }
            Ours::Error => {
                errors += 1;
                false
            }
        };
        if is_wrong {
            wrong.push(format!("{file:?}: {ours:?}, Python {python:?}, Node {node:?}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {} files are read differently:\n{}",
        wrong.len(),
        files.len(),
        wrong[..wrong.len().min(20)].join("\n")
    );
    println!("{found} found, {absent} absent, {errors} errors");
    assert!(found > 800 && absent > 800 && errors > 800, "{found} found, {absent} absent, {errors} errors");
}
