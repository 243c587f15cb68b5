//! Keys that a program prints.

mod host;

use std::io::ErrorKind;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::{
    Child, Folder, KEY, KEY_IN_BASE64, MAX_CALLS_PER_PLACE, MAX_SECRET_FILE, OTHER_KEY, assert_gives_the_key,
    assert_nothing_of_in, error, found, in_child, problem, set_mode,
};
use keysheath::chain::Chain;
use keysheath::key::{FormatRule, Hint, Issuer, Kanal, KeyFormat, Origin, Profile};
use keysheath::source::{self, CallError, Command, Problem, Source as _};

/// Far more than any of these programs takes unless it hangs.
const PATIENCE: Duration = Duration::from_secs(10);

/// A program that waits for longer than any test does.
const HANGS: &str = "sleep 1000";

/// A shell that runs a script; `$1` and so on are the arguments. The library itself starts no shell.
fn script(script: &str, arguments: &[&Path]) -> Command {
    let arguments = arguments.iter().map(|path| path.as_os_str().to_owned());
    Command::new("sh").args(["-c", script, "sh"]).args(arguments)
}

fn prints(text: &str) -> Command {
    Command::new("printf").args(["%s", text])
}

fn malformed(source: &Command) -> (FormatRule, Option<Hint>) {
    match problem(source) {
        Problem::Malformed(error) => (error.rule(), error.hint()),
        other => panic!("{other:?}"),
    }
}

fn quick<T>(work: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let result = work();
    assert!(start.elapsed() < PATIENCE, "it took {:?}", start.elapsed());
    result
}

/// The process ids that a script wrote, one a line.
fn ids(path: &Path) -> Vec<u32> {
    let text = std::fs::read_to_string(path).expect("the script wrote its ids");
    text.lines().map(|line| line.parse().expect("an id")).collect()
}

/// Waits until none of these processes runs. One that is dead and not yet collected does not run.
fn assert_dead(ids: &[u32]) {
    assert!(!ids.is_empty());
    for id in ids {
        let start = Instant::now();
        while let Ok(status) = std::fs::read_to_string(format!("/proc/{id}/stat")) {
            let state = status.rsplit(") ").next().and_then(|rest| rest.chars().next());
            if matches!(state, Some('Z' | 'X')) {
                break;
            }
            assert!(start.elapsed() < PATIENCE, "process {id} still runs: {status}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_program_gives_the_key_that_it_prints() {
    for end in ["", "\n", "\r\n"] {
        let found = found(&prints(&format!("{KEY}{end}")));
        assert!(found.key().matches(KEY.as_bytes()), "{end:?}");
        assert_eq!(found.provenance().to_string(), "command printf with 2 arguments");
    }
    assert_gives_the_key(&prints(&format!("\u{feff}{KEY}\n")));
    assert_gives_the_key(&script("sleep 0.2; printf 8fK2pX9mWq4L; sleep 0.2; printf d7Vb3Nc6Ts1Z", &[]));
}

#[test]
fn the_output_may_be_base64() {
    assert_gives_the_key(&prints(&format!("{KEY_IN_BASE64}\n")).base64());
    assert_eq!(problem(&prints("not base64").base64()), Problem::NotBase64);
}

#[test]
fn a_program_that_is_missing_is_named() {
    // A folder on PATH that this user may not enter would be another answer.
    in_child("a_program_that_is_missing_is_named", &[("PATH", "/usr/bin:/bin")], || {
        for program in ["no-such-program", "/no/such/program", ""] {
            let error = error(&Command::new(program).args([KEY]));
            assert_eq!(error.problem(), &Problem::NotStarted(ErrorKind::NotFound), "{program}");
            assert!(error.to_string().contains(program), "{error}");
            assert!(error.to_string().contains("installed and on PATH"), "{error}");
        }
    });
}

#[test]
fn a_file_that_is_not_executable_is_not_started() {
    let folder = Folder::new();
    let path = folder.write("program", format!("#!/bin/sh\necho {KEY}\n"));
    assert_cannot_be_run(&Command::new(&path), "chmod +x");
}

/// The message says how what is there can be run.
#[track_caller]
fn assert_cannot_be_run(command: &Command, advice: &str) {
    let error = error(command);
    assert!(matches!(error.problem(), Problem::NotRunnable { .. }), "{error}");
    assert!(error.to_string().contains(advice), "{error}");
    assert!(!error.to_string().contains("PATH"), "{error}");
}

#[test]
fn no_shell_reads_a_program_or_an_argument() {
    let folder = Folder::new();
    let path = folder.write("program", format!("echo {KEY}\n"));
    set_mode(&path, 0o700);
    // Without its #! line it is a script for whatever shell the caller is, and we are none.
    assert_cannot_be_run(&Command::new(&path), "no `#!` line");
    let proof = folder.at("proof");
    let injected = format!("$(touch {0}); touch {0} `touch {0}`", proof.display());
    assert!(matches!(problem(&prints(&injected)), Problem::Malformed(_)));
    assert!(matches!(problem(&Command::new("echo word")), Problem::NotStarted(_)));
    assert!(!proof.exists());
}

#[test]
fn a_program_that_fails_is_an_error_even_when_it_prints_a_key() {
    for code in [1, 3, 255] {
        let error = error(&script(&format!("echo {KEY}; echo {KEY} >&2; exit {code}"), &[]));
        assert_eq!(error.problem(), &Problem::Failed { code });
        assert!(error.to_string().contains(&format!("exit status {code};")), "{error}");
        assert!(error.to_string().contains("run it by hand"), "{error}");
    }
}

#[test]
fn a_program_that_a_signal_ends_is_an_error() {
    assert_eq!(problem(&script(&format!("echo {KEY}; kill -9 $$"), &[])), Problem::Killed);
    assert_eq!(problem(&script("kill -TERM $$", &[])), Problem::Killed);
}

#[test]
fn a_relative_program_is_resolved_once() {
    let (first, second) = (crate::support::Folder::new(), crate::support::Folder::new());
    for (folder, key) in [(&first, KEY), (&second, crate::support::OTHER_KEY)] {
        let program = folder.write("key", format!("#!/bin/sh\necho {key}\n"));
        crate::support::set_mode(&program, 0o700);
    }
    let child = crate::support::Child::new("a_relative_program_is_resolved_once");
    child.var("FIRST", first.path()).var("SECOND", second.path()).run(|| {
        std::env::set_current_dir(std::env::var_os("FIRST").unwrap()).unwrap();
        let source = Command::new("./key");
        std::env::set_current_dir(std::env::var_os("SECOND").unwrap()).unwrap();
        crate::support::assert_gives_the_key(&source);
        // A bare name is one of `PATH`, and no file here.
        assert!(matches!(problem(&Command::new("key")), Problem::NotStarted(_)));
    });
}

#[test]
fn a_program_that_prints_nothing_is_an_error_and_not_an_absence() {
    let error = error(&Command::new("true"));
    assert_eq!(error.problem(), &Problem::NoOutput);
    assert!(error.to_string().contains("the arguments that print the key"), "{error}");
    for text in ["\n", "\r\n", "\u{feff}", "\u{feff}\n"] {
        assert_eq!(problem(&prints(text)), Problem::NoOutput, "{text:?}");
    }
}

#[test]
fn nothing_but_one_mark_and_one_newline_is_removed() {
    let two = malformed(&prints(&format!("{KEY}\n{OTHER_KEY}\n")));
    assert_eq!(two, (FormatRule::Length { found: 49 }, Some(Hint::SeveralLines)));
    let more = malformed(&prints(&format!("{KEY}\n\n")));
    assert_eq!(more, (FormatRule::Length { found: 25 }, Some(Hint::TrailingNewline)));
    assert_eq!(malformed(&prints(&format!(" {KEY}"))).1, Some(Hint::SurroundingSpace));
}

#[test]
fn a_program_that_floods_is_stopped_at_the_bound() {
    let folder = Folder::new();
    let pid = folder.at("pid");
    let flood = script(&format!("echo $$ > \"$1\"; exec yes {KEY}"), &[&pid]);
    assert_eq!(quick(|| problem(&flood)), Problem::TooLarge { limit: MAX_SECRET_FILE });
    assert_dead(&ids(&pid));
}

#[test]
fn output_of_exactly_the_bound_is_read_and_one_byte_more_is_not() {
    let print = |count: usize| script(&format!("head -c {count} /dev/zero | tr '\\0' A"), &[]);
    assert_eq!(malformed(&print(MAX_SECRET_FILE)).0, FormatRule::Length { found: MAX_SECRET_FILE });
    assert_eq!(problem(&print(MAX_SECRET_FILE + 1)), Problem::TooLarge { limit: MAX_SECRET_FILE });
}

#[test]
fn a_program_that_hangs_is_ended_at_the_deadline() {
    let after = Duration::from_millis(300);
    let hangs = Command::new("sleep").args(["1000"]).with_deadline(after);
    let start = Instant::now();
    let error = quick(|| error(&hangs));
    assert_eq!(error.problem(), &Problem::Call(CallError::Deadline { after }));
    assert!(start.elapsed() >= after, "{:?}", start.elapsed());
    assert!(error.to_string().contains("within 300 ms"), "{error}");
}

#[test]
fn the_whole_group_is_dead_after_the_deadline() {
    let folder = Folder::new();
    let pids = folder.at("pids");
    let family = format!(
        "trap '' TERM HUP INT; {HANGS} & echo $! >> \"$1\"; ({HANGS} & echo $! >> \"$1\"; {HANGS}) & \
         echo $! >> \"$1\"; echo $$ >> \"$1\"; printf {KEY}; wait"
    );
    let family = script(&family, &[&pids]).with_deadline(Duration::from_secs(1));
    assert!(matches!(quick(|| problem(&family)), Problem::Call(CallError::Deadline { .. })));
    let ids = ids(&pids);
    assert_eq!(ids.len(), 4);
    assert_dead(&ids);
}

#[test]
fn a_program_with_closed_output_is_killed_at_the_deadline() {
    let folder = Folder::new();
    let pid = folder.at("pid");
    let after = Duration::from_millis(500);
    let lives = script(&format!("echo $$ > \"$1\"; printf {KEY}; exec >&-; exec {HANGS}"), &[&pid]);
    assert_eq!(quick(|| problem(&lives.with_deadline(after))), Problem::Call(CallError::Deadline { after }));
    assert_dead(&ids(&pid));
}

#[test]
fn a_grandchild_holding_the_output_is_killed_output_discarded() {
    let folder = Folder::new();
    let pid = folder.at("pid");
    let holder = script(&format!("{HANGS} & echo $! > \"$1\"; printf {KEY}"), &[&pid]);
    let error = quick(|| error(&holder));
    assert_eq!(error.problem(), &Problem::OutputHeld);
    assert!(error.to_string().contains("wait for what it starts"), "{error}");
    assert_dead(&ids(&pid));
}

#[test]
fn an_exited_programs_id_is_reserved_until_its_group_ends() {
    let folder = Folder::new();
    let state = folder.at("state");
    // Collected too early, the id could be another program's by the time that the group is ended.
    let looks = format!("(sleep 0.2; cut -d ' ' -f 3 /proc/$$/stat > \"$1\"; exec {HANGS}) & printf {KEY}");
    assert_eq!(problem(&script(&looks, &[&state])), Problem::OutputHeld);
    assert_eq!(std::fs::read_to_string(&state).unwrap(), "Z\n");
}

#[test]
fn a_program_that_was_read_is_collected() {
    let folder = Folder::new();
    let pid = folder.at("pid");
    let print = |end: &str| script(&format!("echo $$ > \"$1\"; printf {KEY}; {end}"), &[&pid]);
    assert_gives_the_key(&print("true"));
    assert!(!Path::new(&format!("/proc/{}", ids(&pid)[0])).exists());
    assert_eq!(problem(&print("exit 3")), Problem::Failed { code: 3 });
    assert!(!Path::new(&format!("/proc/{}", ids(&pid)[0])).exists());
}

#[test]
fn holders_of_the_output_outside_the_group_are_bounded() {
    // It ends by itself; nothing here could end it before.
    let leaves = script(&format!("setsid sleep 4 & printf {KEY}"), &[]);
    for _ in 0..MAX_CALLS_PER_PLACE {
        assert_eq!(problem(&leaves), Problem::OutputHeld);
    }
    let error = error(&leaves.clone());
    assert_eq!(error.problem(), &Problem::Call(CallError::Stuck { count: MAX_CALLS_PER_PLACE }));
    // Another program is not held up by it.
    assert_gives_the_key(&prints(KEY));
}

/// A program that sleeps and takes all of root's rights, so that its own user cannot kill it, in a folder
/// that everybody may enter. Only root can make one.
fn program_that_cannot_be_killed(folder: &Folder) -> std::path::PathBuf {
    assert!(rustix::process::geteuid().is_root(), "to make a set-uid program, run this test as root");
    let program = folder.at("sleeps");
    let text = "#include <unistd.h>\nint main(void) { return setuid(0) != 0 || sleep(8) != 0; }\n";
    let source = folder.write("sleeps.c", text);
    let cc = std::process::Command::new("cc").arg("-o").args([&program, &source]).status();
    assert!(cc.expect("a C compiler (Debian's gcc)").success());
    set_mode(&program, 0o4755);
    set_mode(folder.path(), 0o755);
    program
}

#[test]
fn an_unkillable_program_is_abandoned_counted_and_bounded() {
    const NAME: &str = "an_unkillable_program_is_abandoned_counted_and_bounded";
    let folder = Folder::new();
    // Only the parent makes it; the child gets its path.
    let program = std::env::var_os("SLEEPS")
        .map_or_else(|| program_that_cannot_be_killed(&folder), std::path::PathBuf::from);
    Child::new(NAME).var("SLEEPS", &program).ordinary_user().run(|| {
        let after = Duration::from_millis(200);
        let sleeps = Command::new(&program).with_deadline(after);
        let start = Instant::now();
        for _ in 0..MAX_CALLS_PER_PLACE {
            assert_eq!(problem(&sleeps), Problem::Call(CallError::Deadline { after }));
        }
        assert_eq!(problem(&sleeps), Problem::Call(CallError::Stuck { count: MAX_CALLS_PER_PLACE }));
        // Each time 200 ms, and 500 ms to die.
        assert!(start.elapsed() < Duration::from_secs(6), "it took {:?}", start.elapsed());
    });
}

#[test]
fn a_daemon_that_holds_nothing_may_stay() {
    let folder = Folder::new();
    let pid = folder.at("pid");
    let leaves = script(&format!("sleep 2 >&- 2>&- <&- & echo $! > \"$1\"; printf {KEY}"), &[&pid]);
    assert_gives_the_key(&leaves);
    assert!(Path::new(&format!("/proc/{}", ids(&pid)[0])).exists());
}

/// An issuer that the crate does not know.
const ACME: &Profile =
    &Profile::new("acme", "ACME_API_KEY", Origin::https("api.acme.example"), KeyFormat::exactly(24), 142);

#[test]
fn no_variable_that_is_known_to_hold_a_key_reaches_the_program() {
    let folder = Folder::new();
    let child = Child::new("no_variable_that_is_known_to_hold_a_key_reaches_the_program")
        .var("KANAL_API_KEY", KEY)
        .var("KATANA_API_KEY", KEY)
        .var("KATANA_API_TOKEN", KEY)
        .var("ACME_API_KEY", KEY)
        .var("OP_SESSION_shop", "kept")
        .var("OUTPUT", folder.at("environment"));
    child.run(|| {
        let program = script(&format!("env > \"$OUTPUT\"; printf {OTHER_KEY}"), &[]);
        assert!(source::load(&program, ACME).is_ok());
        let environment = std::fs::read_to_string(std::env::var_os("OUTPUT").unwrap()).unwrap();
        assert_nothing_of_in(KEY, &environment);
        assert!(!environment.contains("_API_"), "{environment}");
        let path = std::env::var("PATH").unwrap();
        assert!(environment.lines().any(|line| line == format!("PATH={path}")), "{environment}");
        assert!(environment.lines().any(|line| line == "OP_SESSION_shop=kept"), "{environment}");
    });
}

#[test]
fn a_program_has_no_input_and_a_group_of_its_own() {
    let child = Child::new("a_program_has_no_input_and_a_group_of_its_own").stdin(KEY);
    child.run(|| {
        // `cat` would print the key that stands on this process's own standard input.
        assert_eq!(quick(|| problem(&Command::new("cat"))), Problem::NoOutput);
        let folder = Folder::new();
        let group = folder.at("group");
        let writes = script(
            &format!("cut -d ' ' -f 5 /proc/$$/stat > \"$1\"; echo $$ >> \"$1\"; printf {KEY}"),
            &[&group],
        );
        assert_gives_the_key(&writes);
        let ids = ids(&group);
        assert_eq!(ids[0], ids[1], "the program leads its own process group");
    });
}

#[test]
fn what_a_program_says_on_standard_error_is_thrown_away() {
    let name = "what_a_program_says_on_standard_error_is_thrown_away";
    let output = Child::new(name).run(|| {
        let noisy = script("echo \"$0 noise-from-the-program\" >&2; exit 3", &[]);
        assert_eq!(problem(&noisy), Problem::Failed { code: 3 });
    });
    if let Some(output) = output {
        for stream in [output.stdout, output.stderr] {
            assert!(!String::from_utf8_lossy(&stream).contains("noise-from-the-program"));
        }
    }
}

#[test]
fn arguments_are_never_printed() {
    let command = |code: &str| Command::new("sh").args(["-c", &format!(": {OTHER_KEY}; {code}"), "sh", KEY]);
    let assert_hidden = |printed: &str| {
        assert_nothing_of_in(KEY, printed);
        assert_nothing_of_in(OTHER_KEY, printed);
        assert!(printed.contains("sh"), "{printed}");
    };
    let printed = format!("{:?} {:#?}", command("true"), command("true").base64());
    assert!(printed.contains("command sh with 4 arguments"), "{printed}");
    assert_hidden(&printed);
    for code in ["exit 3", "kill -9 $$", "true", "printf %s \"$1$1\"", "printf %s \"$1\" x"] {
        // This checks the error itself.
        problem(&command(code));
        let chain = Chain::<Kanal>::new().with(command(code));
        let error = chain.load().unwrap_err();
        assert_hidden(&format!("{error} {error:?} {chain:?} {}", chain.explain()));
    }
    let loaded = Chain::<Kanal>::new().with(command("printf %s \"$1\"")).load().unwrap();
    assert_hidden(&format!("{loaded:?} {} {}", loaded.provenance(), loaded.attempts()));
}
