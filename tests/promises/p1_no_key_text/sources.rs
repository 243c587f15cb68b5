//! Sources and chains over them.

use keysheath::FileProblem;
use keysheath::chain::NearMiss;
use keysheath::source::CallError;
use keysheath::source::{Absence, Remark, Resource};

use super::*;

/// Loads from a source and asserts that neither the outcome nor a chain over the source shows the canary.
fn look_at(what: &str, source: impl Source + Debug + 'static) -> Option<Problem> {
    assert_debug_silent(what, &source);
    assert_value_silent(what, &source.provenance());
    let loaded = source::load(&source, Kanal::PROFILE);
    assert_debug_silent(what, &loaded);
    let problem = match loaded {
        Ok(Loaded::Found(found)) => {
            assert_debug_silent(what, &found);
            assert_value_silent(what, found.provenance());
            let remarks: &[Remark] = found.remarks();
            for remark in remarks {
                assert_value_silent("Remark", remark);
            }
            None
        }
        Ok(Loaded::Absent(absence)) => {
            let absence: Absence = absence;
            assert_value_silent(what, &absence);
            None
        }
        Err(error) => {
            let error: SourceError = error;
            assert_error_silent(what, &error);
            assert_value_silent(what, error.problem());
            Some(error.problem().clone())
        }
    };
    look_at_chain(what, &Chain::<Kanal>::new().with(source).with(Variable::new("NO_SUCH_VARIABLE")));
    problem
}

fn look_at_chain<I: Issuer>(what: &str, chain: &Chain<I>) {
    assert_debug_silent(what, chain);
    let attempts = chain.explain();
    let near_misses: &[NearMiss] = attempts.near_misses();
    for near in near_misses {
        assert_value_silent("NearMiss", near);
    }
    assert_value_silent(what, &attempts);
    for attempt in attempts.as_slice() {
        assert_value_silent("Attempt", attempt);
        assert_debug_silent("Relation", &attempt.relation());
        let witness: &AttemptOutcome = attempt.outcome();
        assert_debug_silent("AttemptOutcome", witness);
    }
    match chain.load() {
        Ok(selected) => {
            assert_debug_silent("Selected", &selected);
            assert_value_silent("Attempts", selected.attempts());
        }
        Err(error) => {
            let error: ChainError = error;
            assert_error_silent("ChainError", &error);
            assert_value_silent("Attempts", error.attempts());
        }
    }
}

#[test]
fn a_file_with_the_canary_in_it_is_never_shown() {
    let folder = Folder::new();
    assert_eq!(look_at("a good file", SecretFile::new(folder.write("good", KANAL))), None);
    let open = folder.write("open", KANAL);
    set_mode(&open, 0o644);
    assert_eq!(look_at("a file with a remark", SecretFile::new(&open)), None);
    let strict = look_at("strict permissions", SecretFile::new(&open).with_strict_permissions());
    assert!(matches!(strict, Some(Problem::File(FileProblem::ReadableByOthers { .. }))), "{strict:?}");
    let writable = folder.write("writable", KANAL);
    set_mode(&writable, 0o666);
    let writable = look_at("a file that others write", SecretFile::new(writable));
    assert!(matches!(writable, Some(Problem::File(FileProblem::WritableByOthers { .. }))), "{writable:?}");
    let large = look_at("a large file", SecretFile::new(folder.write("large", KANAL.repeat(400))));
    assert!(matches!(large, Some(Problem::File(FileProblem::TooLarge { .. }))), "{large:?}");
    for (at, text) in malformed().into_iter().enumerate() {
        let path = folder.write(&format!("malformed{at}"), [&text, b"\n".as_slice()].concat());
        let problem = look_at("a malformed file", SecretFile::new(&path));
        let known = matches!(problem, Some(Problem::Malformed(_)) | None);
        assert!(known, "{problem:?}");
        let problem = look_at("a malformed file, in base64", SecretFile::new(path).base64());
        let known = matches!(problem, Some(Problem::NotBase64 | Problem::Malformed(_)));
        assert!(known, "{problem:?}");
    }
    let encoded = folder.write("encoded", base64(KANAL));
    let source: Adapted<SecretFile> = SecretFile::new(&encoded).base64();
    assert_eq!(look_at("a file in base64", source), None);
    let required: Adapted<SecretFile> = SecretFile::new(folder.path().join("missing")).required();
    assert!(matches!(look_at("a required file", required), Some(Problem::Missing { .. })));
    let json =
        folder.write("json", format!("{{\"{KANAL}\": 1, \"twice\": \"{KANAL}\", \"twice\": \"{KANAL}\"}}"));
    for name in ["twice", "missing"] {
        assert!(look_at("a field", SecretFile::new(&json).field(name)).is_some());
    }
    let broken = folder.write("broken", format!("{{\"k\": \"{KANAL}\", {KANAL}}}"));
    assert_eq!(look_at("JSON that ends early", SecretFile::new(broken).field("k")), Some(Problem::NotJson));
    let lines = folder.write("lines", format!("{KANAL}\n{KANAL}\n"));
    assert!(matches!(look_at("a line", SecretFile::new(lines).line(3)), Some(Problem::NoLine { .. })));
    assert!(matches!(
        look_at("a file in base64, not declared", SecretFile::new(encoded)),
        Some(Problem::Malformed(_))
    ));
    // Where the key is a part of the path, its user wrote it there; what is looked for is the content.
    let under_a_file = folder.path().join("good/kanal");
    let problem = look_at("a file under a file", SecretFile::new(under_a_file));
    assert!(matches!(problem, Some(Problem::File(FileProblem::Unreadable(_)))), "{problem:?}");
    assert_eq!(look_at("an empty file", SecretFile::new(folder.write("empty", ""))), Some(Problem::Empty));
    assert_eq!(
        look_at("a folder", SecretFile::new(folder.path())),
        Some(Problem::File(FileProblem::NotAFile))
    );
    std::os::unix::fs::symlink("gone", folder.path().join("link")).unwrap();
    assert_eq!(
        look_at("a link", SecretFile::new(folder.path().join("link"))),
        Some(Problem::File(FileProblem::DanglingLink))
    );
    let nul = look_at("a path with NUL", SecretFile::new(folder.path().join("a\0b")));
    assert!(matches!(nul, Some(Problem::BadPath { .. })), "{nul:?}");
}

#[test]
fn a_dotenv_with_the_canary_in_it_is_never_shown() {
    let folder = Folder::new();
    let look = |name: &str, content: String| {
        look_at(name, DotenvFile::new(folder.write(name, content), "KANAL_API_KEY"))
    };
    let set = format!("KANAL_API_KEY={KANAL}");
    assert_eq!(look("good", set.clone()), None);
    let bad = |line, fault| Some(Problem::BadLine { line, fault });
    assert_eq!(look("no-name", format!("A=1\n{KANAL}\n")), bad(2, LineFault::NoName));
    assert_eq!(look("unclear", format!("{set}\n{KATANA} {KATANA}\nA={KATANA}$\n")), None);
    let two_words = look("two-words", format!("{set} {KANAL}\n"));
    assert!(matches!(two_words, Some(Problem::Malformed(_))), "{two_words:?}");
    assert_eq!(look("open-quote", format!("KANAL_API_KEY='{KANAL}\n")), bad(1, LineFault::Unclosed));
    let inside = LineFault::InsideQuotes { opened: 1 };
    assert_eq!(look("inside", format!("A=\"{KATANA}\n{set}\n\"\n")), bad(2, inside));
    assert_eq!(look("twice", format!("{set}\n{set}\n")), Some(Problem::Duplicate { first: 1, second: 2 }));
    assert_eq!(look("dollar", format!("{set}$x\n")), bad(1, LineFault::Dollar));
    assert_eq!(look("nul", format!("{set}\0\n")), Some(Problem::NotText { hint: Hint::Nul }));
    let malformed = look("malformed", format!("KANAL_API_KEY=\"{KANAL} \"\n"));
    assert!(matches!(malformed, Some(Problem::Malformed(_))), "{malformed:?}");
}

#[test]
fn a_programs_arguments_and_output_are_never_shown() {
    let shell = |script: String| Command::new("sh").args(["-c".to_owned(), script, KANAL.to_owned()]);
    let look = |what: &str, script: String| look_at(what, shell(script));
    assert_eq!(look("a program", format!("printf %s {KANAL}")), None);
    let failed = look("a program that fails", format!("echo {KANAL}; echo {KANAL} >&2; exit 3"));
    assert_eq!(failed, Some(Problem::Failed { code: 3 }));
    let killed = look("a program that dies", format!("echo {KANAL}; kill -9 $$"));
    assert_eq!(killed, Some(Problem::Killed));
    let flood = look("a program that floods", format!("while :; do echo {KANAL}; done"));
    assert!(matches!(flood, Some(Problem::TooLarge { .. })), "{flood:?}");
    assert_eq!(look("a program that is silent", format!(": {KANAL}")), Some(Problem::NoOutput));
    let held = look("a program that leaves its output open", format!("sleep 3 & echo {KANAL}"));
    assert_eq!(held, Some(Problem::OutputHeld));
    let after = Duration::from_millis(100);
    let hung = look_at("a program that hangs", shell(format!("echo {KANAL}; sleep 30")).with_deadline(after));
    assert_eq!(hung, Some(Problem::Call(CallError::Deadline { after })));
    let missing = look_at("no program", Command::new("/no/such/program").args([KANAL]));
    assert!(matches!(missing, Some(Problem::NotStarted(_))), "{missing:?}");
    let malformed = look("a program with two lines", format!("echo {KANAL}; echo {KANAL}"));
    assert!(matches!(malformed, Some(Problem::Malformed(_))), "{malformed:?}");

    // A grandchild that leaves the group keeps the output open, so each call stays behind.
    let stuck = shell(format!("echo {KANAL}; setsid sleep 3 & sleep 3")).with_deadline(after);
    let problems: Vec<_> = (0..=MAX_CALLS_PER_PLACE)
        .map(|_| {
            let error = source::load(&stuck, Kanal::PROFILE).unwrap_err();
            assert_error_silent("a program that is stuck", &error);
            error.problem().clone()
        })
        .collect();
    assert_eq!(problems.last(), Some(&Problem::Call(CallError::Stuck { count: MAX_CALLS_PER_PLACE })));
}

/// A custom source that was given a key.
#[derive(Debug)]
struct Own(Problem);

impl Source for Own {
    fn provenance(&self) -> Provenance {
        Provenance::other("vault", "shop/kanal")
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        Err(SourceError::new(self.provenance(), self.0.clone()))
    }
}

#[test]
fn a_source_s_own_problem_has_no_place_for_a_key() {
    for problem in [
        Problem::File(FileProblem::ForeignOwner { uid: 1 }),
        Problem::NoKeychain,
        Problem::NoAccess,
        Problem::Ambiguous { count: 2 },
        Problem::NotStorable,
        Problem::Exhausted(Resource::Descriptors),
        Problem::Call(CallError::Queued { waited: Duration::ZERO, under_way: 4 }),
        Problem::Call(CallError::LateTurn { waited: Duration::ZERO, left: Duration::MAX }),
        Problem::NotRunnable { rule: "it is a folder" },
        Problem::NoOutput,
        Problem::WantsTerminal,
        Problem::ExitUnknown,
        Problem::Unreachable,
    ] {
        assert_eq!(look_at("a source of one's own", Own(problem.clone())), Some(problem));
    }
}

#[test]
fn a_variable_with_the_canary_in_it_is_never_shown() {
    const NAME: &str = "sources::a_variable_with_the_canary_in_it_is_never_shown";
    in_silent_child(
        NAME,
        &[
            ("GOOD", KANAL),
            ("BAD", &format!("Bearer {KANAL}")),
            ("BOTH", KANAL),
            ("BOTH_FILE", KANAL),
            ("BARE_FILE", KANAL),
            ("ROOT_FILE", &format!("/{}", &KANAL[1..])),
            ("DEEP_FILE", &format!("/{}/{}", &KANAL[1..12], &KANAL[12..])),
            ("HERE_FILE", &format!("./{}", &KANAL[2..])),
            ("LONG_FILE", &KANAL.repeat(20)),
            ("CREDENTIALS_DIRECTORY", KANAL),
            ("KANAL_STORE_ID", KANAL),
        ],
        || {
            assert_eq!(look_at("a variable", Variable::new("GOOD")), None);
            let bad = look_at("a malformed variable", Variable::new("BAD"));
            assert!(matches!(bad, Some(Problem::Malformed(_))), "{bad:?}");
            let decoded = look_at("a variable, in base64", Variable::new("GOOD").base64());
            assert!(matches!(decoded, Some(Problem::Malformed(_))), "{decoded:?}");
            let both = Problem::BothSet { variable: "BOTH".to_owned() };
            assert_eq!(look_at("a variable and its partner", Variable::new("BOTH")), Some(both.clone()));
            assert_eq!(
                look_at("a partner and its variable", SecretFile::named_by_variable("BOTH")),
                Some(both)
            );
            for name in ["BARE", "ROOT", "DEEP", "HERE"] {
                let problem = look_at("a key instead of a path", SecretFile::named_by_variable(name));
                assert_eq!(problem, Some(Problem::FileGone), "{name}");
            }
            let long = look_at("a long key instead of a path", SecretFile::named_by_variable("LONG"));
            assert!(matches!(long, Some(Problem::File(FileProblem::Unreadable(_)))), "{long:?}");
            let directory = look_at("a key instead of a directory", SecretFile::systemd_credential("kanal"));
            assert!(matches!(directory, Some(Problem::BadPath { .. })), "{directory:?}");
            let error: ParseError = StoreId::from_env().unwrap_err();
            assert_eq!(error, ParseError::StoreId);
            assert_error_silent("ParseError", &error);
        },
    );
}

/// What a keychain holds is planted in its own tests; this is what can be had without one.
#[cfg(feature = "keychain")]
#[test]
fn a_keychain_that_is_not_there_shows_nothing() {
    use keysheath::source::{Keychain, KeychainItem};

    const NAME: &str = "sources::a_keychain_that_is_not_there_shows_nothing";
    in_silent_child(NAME, &[("DBUS_SESSION_BUS_ADDRESS", "unix:path=/no/such/bus")], || {
        let keychain = Keychain::for_service("shop");
        assert_debug_silent("Keychain", &keychain);
        let error = keychain.save("kanal", kanal().as_raw()).unwrap_err();
        assert_eq!(error.problem(), &Problem::NoKeychain);
        assert_error_silent("a key that was not saved", &error);
        assert_debug_silent("Keychain", &keychain);
        assert_eq!(look_at("KeychainItem", KeychainItem::new(keychain, "kanal")), Some(Problem::NoKeychain));
    });
}

#[test]
fn a_chain_over_places_with_the_canary_shows_none_of_it() {
    const NAME: &str = "sources::a_chain_over_places_with_the_canary_shows_none_of_it";
    in_silent_child(NAME, &[("KANAL_API_KEY", KANAL), ("KATANA_API_KEY", "x")], || {
        let folder = Folder::new();
        let good = folder.write("good", KANAL);
        let other = folder.write("other", OTHER);
        let broken = folder.write("broken", format!("{KANAL} "));
        let dotenv = folder.write("dotenv", format!("KANAL_API_KEY={KANAL}\n"));
        let program = || Command::new("printf").args(["%s", KANAL]);
        look_at_chain("the standard chain", &Chain::<Kanal>::standard().with_dotenv(&dotenv).with(program()));
        look_at_chain("a broken standard chain", &Chain::<Katana>::standard());
        let chain = Chain::<Kanal>::new().with(SecretFile::new(&good));
        let chain = chain.with(SecretFile::new(other)).with(program()).with(SecretFile::new(&broken));
        look_at_chain("a chain with relations", &chain);
        assert_value_silent("Attempts", &chain.explain());
        let chain = Chain::<Kanal>::new().with(SecretFile::new(broken)).with(SecretFile::new(good));
        look_at_chain("a chain that stops", &chain);
    });
}
