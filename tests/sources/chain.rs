//! Sources in order: which key is taken, what the attempts and the explanation say.

#[cfg(feature = "dotenv")]
mod beside_a_dotenv;
mod no_key;
mod messages;
#[cfg(all(feature = "probe", feature = "registry", feature = "rotation"))]
mod widened;

use std::sync::Arc;
#[cfg(feature = "keychain")]
use std::time::{Duration, Instant};

use crate::support::{
    Child, Folder, KEY, OTHER_KEY, assert_nothing_of_in, assert_prints_nothing_of, set_mode,
};
use keysheath::chain::{Attempt, AttemptOutcome, Attempts, Chain, ChainError, Relation, Selected};
use keysheath::key::{ApiKey, Fingerprint, Issuer, Kanal, Katana};
use keysheath::source::{
    self, Absence, KeyRef, Loaded, Problem, Provenance, Remark, SecretFile, Source, Variable,
};

fn fingerprint(key: &str) -> Option<Fingerprint> {
    ApiKey::<Kanal>::parse(key).unwrap().fingerprint()
}

fn found(key: &str) -> AttemptOutcome {
    AttemptOutcome::Found { fingerprint: fingerprint(key), remarks: Vec::new() }
}

/// What every source answered, with a check that no key is shown.
fn witnesses(attempts: &Attempts) -> Vec<AttemptOutcome> {
    let printed = format!("{attempts} {attempts:?}");
    assert_nothing_of_in(KEY, &printed);
    assert_nothing_of_in(OTHER_KEY, &printed);
    attempts.as_slice().iter().map(|step| step.outcome().clone()).collect()
}

fn loaded(chain: &Chain<Kanal>) -> Selected<Kanal> {
    chain.load().unwrap_or_else(|error| panic!("{error}"))
}

/// The problem that a chain ends with, and what every source answered.
fn broken(chain: &Chain<Kanal>) -> (Problem, Vec<AttemptOutcome>) {
    let error = chain.load().unwrap_err();
    assert_prints_nothing_of(&error, KEY);
    assert_prints_nothing_of(&error, OTHER_KEY);
    let witnesses = witnesses(error.attempts());
    match error {
        ChainError::Broken { error, .. } => (error.problem().clone(), witnesses),
        other => panic!("{other}"),
    }
}

fn relations(chain: &Chain<Kanal>) -> Vec<Relation> {
    let attempts = chain.explain();
    let printed = format!("{attempts} {attempts:?} {chain:?}");
    assert_nothing_of_in(KEY, &printed);
    assert_nothing_of_in(OTHER_KEY, &printed);
    attempts.as_slice().iter().map(|attempt| attempt.relation().expect("it was explained")).collect()
}

fn half_configured(chain: &Chain<Kanal>) -> Vec<bool> {
    let attempts = chain.explain();
    let marks = attempts.to_string().matches("[half configured]").count();
    let half: Vec<bool> = attempts.as_slice().iter().map(Attempt::is_half_configured).collect();
    assert_eq!(marks, half.iter().filter(|&&half| half).count());
    half
}

/// A folder with a good key, another one, a malformed text, and nothing at `missing`.
fn places() -> (Folder, impl Fn(&str) -> SecretFile) {
    let folder = Folder::new();
    folder.write("key", KEY);
    folder.write("other", OTHER_KEY);
    folder.write("malformed", format!("{KEY} {OTHER_KEY}"));
    let root = folder.path().to_owned();
    (folder, move |name| SecretFile::new(root.join(name)))
}

#[test]
fn the_first_key_is_taken_and_the_lower_sources_are_not_asked() {
    let (folder, file) = places();
    let chain = Chain::<Kanal>::new().with(file("missing")).with(file("key")).with(file("other"));
    let chain = chain.with(file("malformed"));
    let selected = loaded(&chain);
    assert!(selected.key().matches(KEY.as_bytes()));
    assert_eq!(selected.provenance(), &Provenance::File { path: folder.at("key") });
    let expected = [
        AttemptOutcome::Absent(Absence::NoFile),
        found(KEY),
        AttemptOutcome::NotAsked,
        AttemptOutcome::NotAsked,
    ];
    assert_eq!(witnesses(selected.attempts()), expected);
    let folder = folder.path().display();
    let attempts = format!(
        "  1. file {folder}/missing: no such file\n  2. file {folder}/key: key found, fingerprint {}\n  \
         3. file {folder}/other: not asked\n  4. file {folder}/malformed: not asked\n",
        fingerprint(KEY).unwrap()
    );
    assert_eq!(selected.attempts().to_string(), attempts);
    assert!(selected.into_key() == ApiKey::parse(KEY).unwrap());
}

#[test]
fn the_order_decides() {
    let (_folder, file) = places();
    let chain = Chain::<Kanal>::new().with(file("other")).with(file("key"));
    assert!(loaded(&chain).key().matches(OTHER_KEY.as_bytes()));
}

#[test]
fn a_broken_source_ends_the_search_before_a_good_key() {
    let (_folder, file) = places();
    let chain = Chain::<Kanal>::new().with(file("missing")).with(file("malformed")).with(file("key"));
    let (problem, witnesses) = broken(&chain);
    assert!(matches!(problem, Problem::Malformed(_)));
    assert_eq!(
        witnesses,
        [AttemptOutcome::Absent(Absence::NoFile), AttemptOutcome::Broken(problem), AttemptOutcome::NotAsked]
    );
    let message = chain.load().unwrap_err().to_string();
    assert!(
        message.contains("the places below it were not asked") && message.contains("another account"),
        "{message}"
    );
}

#[test]
fn an_empty_chain_says_so_and_where_to_create_a_key() {
    let (_folder, file) = places();
    let chain = Chain::<Kanal>::new().with(file("missing")).with(Variable::new("NO_SUCH_VARIABLE"));
    let error = chain.load().unwrap_err();
    assert!(matches!(error, ChainError::NoKey { profile, .. } if profile == Kanal::PROFILE));
    let absent = [Absence::NoFile, Absence::NotSet].map(AttemptOutcome::Absent);
    assert_eq!(witnesses(error.attempts()), absent);
    let message = error.to_string();
    assert!(message.contains("no Kanal key was found"), "{message}");
    assert!(message.contains("Settings → API Keys → Add API key"), "{message}");
    assert!(message.contains("  2. variable NO_SUCH_VARIABLE: not set"), "{message}");
}

#[test]
fn the_trail_shows_the_remarks_on_a_place() {
    let (folder, file) = places();
    set_mode(&folder.at("key"), 0o644);
    let selected = loaded(&Chain::new().with(file("key")));
    let remarks = vec![Remark::ReadableByOthers { mode: 0o644 }];
    let witness = AttemptOutcome::Found { fingerprint: fingerprint(KEY), remarks };
    assert_eq!(witnesses(selected.attempts()), [witness]);
    assert!(selected.attempts().to_string().contains("; every user of this machine can read it (mode 644)"));
}

#[test]
fn the_explanation_tells_the_same_key_from_another_one() {
    let (folder, file) = places();
    folder.write("again", format!("{KEY}\n"));
    let chain = ["missing", "key", "again", "other", "malformed"]
        .iter()
        .fold(Chain::<Kanal>::new(), |chain, name| chain.with(file(name)));
    let expected =
        [Relation::Nothing, Relation::Active, Relation::SameKey, Relation::OtherKey, Relation::BrokenBelow];
    assert_eq!(relations(&chain), expected);
    let explanation = chain.explain().to_string();
    for key in [KEY, OTHER_KEY] {
        assert!(explanation.contains(&fingerprint(key).unwrap().to_string()), "{explanation}");
    }
    for words in ["← active", "once more", "another key, shadowed", "not asked when loading"] {
        assert_eq!(explanation.matches(words).count(), 1, "{words}: {explanation}");
    }
    assert_eq!(half_configured(&chain), [false; 5]);
}

#[test]
fn explain_says_whether_the_active_key_can_change_at_run_time() {
    let folder = Folder::new();
    let path = folder.write("key", KEY);
    let child = Child::new("explain_says_whether_the_active_key_can_change_at_run_time");
    child.var("SHOP_KEY", KEY).var("OTHER_FILE", &path).run(|| {
        let path = std::env::var_os("OTHER_FILE").unwrap();
        let shown = |chain: Chain<Kanal>| chain.explain().to_string();
        let line = shown(Chain::new().with(Variable::new("SHOP_KEY")));
        let fixed =
            "← active (it cannot change while a process runs: after a rotation, restart what uses it)\n";
        assert!(line.ends_with(fixed), "{line}");
        let followed = "← active (a refresher follows this file)\n";
        for chain in [
            Chain::new().with(SecretFile::new(path)),
            Chain::new().with(SecretFile::named_by_variable("OTHER")),
        ] {
            let line = shown(chain);
            assert!(line.ends_with(followed), "{line}");
        }
        let command = Chain::new().with(keysheath::source::Command::new("printf").args(["%s", KEY]));
        let line = shown(command);
        assert!(line.ends_with("← active\n"), "{line}");
        // There is nothing to say about a key that is not active.
        let chain = Chain::new().with(SecretFile::named_by_variable("OTHER")).with(Variable::new("SHOP_KEY"));
        assert!(!shown(chain).contains("cannot change"));
    });
}

#[test]
fn explain_says_where_loading_stops_at_a_broken_source() {
    let (_folder, file) = places();
    let chain = Chain::<Kanal>::new().with(file("malformed")).with(file("key")).with(file("other"));
    let chain = chain.with(file("malformed")).with(file("missing"));
    let expected = [
        Relation::Stops,
        Relation::BehindBroken,
        Relation::BehindBroken,
        Relation::BrokenBelow,
        Relation::Nothing,
    ];
    assert_eq!(relations(&chain), expected);
    assert!(chain.explain().to_string().contains("← loading ends here"));
    assert!(chain.load().is_err());
}

#[test]
fn a_file_variable_whose_file_is_gone_is_half_configured() {
    let folder = Folder::new();
    let child = Child::new("a_file_variable_whose_file_is_gone_is_half_configured");
    child.var("GONE_FILE", folder.at("gone")).run(|| {
        let chain = Chain::<Kanal>::new()
            .with(SecretFile::named_by_variable("GONE"))
            .with(SecretFile::named_by_variable("UNSET"));
        assert_eq!(half_configured(&chain), [true, false]);
        assert_eq!(relations(&chain), [Relation::Stops, Relation::Nothing]);
    });
}

#[test]
fn a_reference_to_nothing_is_half_configured_a_source_is_not() {
    let name = "a_reference_to_nothing_is_half_configured_a_source_is_not";
    Child::new(name).run(|| {
        let (folder, file) = places();
        std::os::unix::fs::symlink("gone", folder.at("link")).unwrap();
        let mut references = vec![
            format!("file:{}", folder.at("missing").display()),
            "systemd:kanal".into(),
            "env:NO_SUCH".into(),
        ];
        if cfg!(feature = "dotenv") {
            folder.write(".env", "A=1\n");
            references.push(format!("dotenv:{}#KANAL", folder.at(".env").display()));
            references.push(format!("dotenv:{}#KANAL", folder.at("missing").display()));
        }
        let chain = references
            .iter()
            .fold(Chain::<Kanal>::new(), |chain, text| chain.with_reference(&text.parse().unwrap()).unwrap());
        assert!(half_configured(&chain).iter().all(|&half| half), "{}", chain.explain());
        // Each of them ends the search alone, and the good key behind it is not taken.
        for text in &references {
            let chain =
                Chain::<Kanal>::new().with_reference(&text.parse().unwrap()).unwrap().with(file("key"));
            let (problem, witnesses) = broken(&chain);
            assert!(matches!(problem, Problem::Missing { .. }), "{text}: {problem:?}");
            assert_eq!(witnesses[1], AttemptOutcome::NotAsked);
        }
        #[cfg(feature = "dotenv")]
        for name in ["missing", ".env"] {
            let chain = Chain::<Kanal>::new().with_dotenv(folder.at(name)).with(file("key"));
            assert!(matches!(broken(&chain).0, Problem::Missing { .. }));
            assert_eq!(half_configured(&chain), [true, false]);
        }
        let chain = Chain::<Kanal>::new().with(file("missing").required()).with(file("key"));
        assert_eq!(broken(&chain).0, Problem::Missing { absence: Absence::NoFile });
        assert_eq!(half_configured(&chain), [true, false]);
        // A source that was not named has nothing to be complete.
        let chain = Chain::<Kanal>::new().with(file("missing")).with(file("key")).with(file("link"));
        assert_eq!(half_configured(&chain), [false, false, true]);
        assert!(chain.load().is_ok());
    });
}

#[test]
fn a_reference_is_asked_as_its_source_is() {
    let (folder, file) = places();
    let reference: KeyRef = format!("file:{}", folder.at("key").display()).parse().unwrap();
    let chain = Chain::<Kanal>::new().with(file("missing")).with_reference(&reference).unwrap();
    assert!(loaded(&chain).key().matches(KEY.as_bytes()));
    assert_eq!(relations(&chain), [Relation::Nothing, Relation::Active]);
}

#[test]
fn a_source_can_be_shared_borrowed_and_of_a_type_not_known() {
    let (_folder, file) = places();
    let source: Arc<dyn Source> = Arc::new(file("key"));
    for found in [source::load(&*source, Kanal::PROFILE), source::load(&source, Kanal::PROFILE)] {
        assert!(matches!(found, Ok(Loaded::Found(found)) if found.key().matches(KEY.as_bytes())));
    }
    let chain = Chain::<Kanal>::new().with(Arc::clone(&source)).with(Box::new(source) as Box<dyn Source>);
    assert_eq!(relations(&chain), [Relation::Active, Relation::SameKey]);
}

/// Where each source of a chain looks, as its explanation says it.
#[cfg(any(feature = "dotenv", feature = "keychain"))]
fn provenances(chain: &Chain<Kanal>) -> Vec<String> {
    chain.explain().as_slice().iter().map(|attempt| attempt.provenance().to_string()).collect()
}

#[cfg(feature = "keychain")]
#[test]
fn the_standard_chain_reads_the_usual_sources_without_dotenv() {
    let folder = Folder::new();
    folder.write(".env", format!("KANAL_API_KEY={OTHER_KEY}\n"));
    folder.write("kanal_api_key", KEY);
    let name = "the_standard_chain_reads_the_usual_sources_without_dotenv";
    Child::new(name).var("CREDENTIALS_DIRECTORY", folder.path()).run(|| {
        std::env::set_current_dir(std::env::var_os("CREDENTIALS_DIRECTORY").unwrap()).unwrap();
        let selected = loaded(&Chain::standard());
        assert!(selected.key().matches(KEY.as_bytes()));
        let places: Vec<String> =
            selected.attempts().as_slice().iter().map(|step| step.provenance().to_string()).collect();
        let expected = [
            "variable KANAL_API_KEY",
            "the file that KANAL_API_KEY_FILE names",
            "systemd credential kanal_api_key",
            "keychain item keysheath/kanal",
        ];
        assert_eq!(places, expected);
        assert_eq!(provenances(&Chain::<Kanal>::for_service()), expected[..3]);
    });
}

#[test]
fn a_service_chain_refuses_a_variable_beside_its_file_variable() {
    let folder = Folder::new();
    let path = folder.write("key", OTHER_KEY);
    let child = Child::new("a_service_chain_refuses_a_variable_beside_its_file_variable");
    child.var("KATANA_API_KEY", KEY).var("KATANA_API_KEY_FILE", &path).run(|| {
        let error = Chain::<Katana>::for_service().load().unwrap_err();
        assert_prints_nothing_of(&error, KEY);
        let ChainError::Broken { error, attempts, .. } = error else { panic!("{error}") };
        assert_eq!(error.problem(), &Problem::BothSet { variable: "KATANA_API_KEY".to_owned() });
        assert!(attempts.as_slice()[1..].iter().all(|step| step.outcome() == &AttemptOutcome::NotAsked));
    });
}

/// "No keychain answers" is not "no key": the key of this user may be in it.
#[cfg(feature = "keychain")]
fn assert_ends_at_the_keychain() {
    let chain = Chain::<Kanal>::standard();
    let start = Instant::now();
    let (problem, witnesses) = broken(&chain);
    assert!(start.elapsed() < Duration::from_secs(20), "it took {:?}", start.elapsed());
    assert_eq!(problem, Problem::NoKeychain);
    let absent = [Absence::NotSet, Absence::NotSet, Absence::NoCredentials].map(AttemptOutcome::Absent);
    assert_eq!(witnesses[..3], absent);
    assert_eq!(witnesses[3], AttemptOutcome::Broken(Problem::NoKeychain));
    let message = chain.load().unwrap_err().to_string();
    // A first run: what is missing comes first, each cause is said once, and what to do is there.
    let headline = "no Kanal key was found, and keychain item keysheath/kanal could not be asked: ";
    assert!(message.starts_with(headline), "{message}");
    assert!(message.contains("create one in Kanal (Settings → API Keys → Add API key)"), "{message}");
    assert_eq!(message.matches("DBUS_SESSION_BUS_ADDRESS").count(), 1, "{message}");
    assert!(message.contains("  1. variable KANAL_API_KEY: not set\n"), "{message}");
    assert!(message.contains("could not be asked: no keychain answers"), "{message}");
    assert!(message.contains("keysheath/kanal: could not be asked\n"), "{message}");
}

#[cfg(all(target_os = "linux", feature = "keychain"))]
#[test]
fn a_session_bus_that_is_not_there_is_broken_and_not_absent() {
    let folder = Folder::new();
    let address = format!("unix:path={}", folder.at("no-bus").display());
    let name = "a_session_bus_that_is_not_there_is_broken_and_not_absent";
    Child::new(name).var("DBUS_SESSION_BUS_ADDRESS", address).run(assert_ends_at_the_keychain);
}

#[cfg(all(target_os = "linux", feature = "keychain"))]
#[test]
fn a_session_without_a_bus_address_is_broken_and_not_absent() {
    let folder = Folder::new();
    Child::new("a_session_without_a_bus_address_is_broken_and_not_absent")
        .without("DBUS_SESSION_BUS_ADDRESS")
        .var("XDG_RUNTIME_DIR", folder.path())
        .run(assert_ends_at_the_keychain);
}

#[cfg(all(target_os = "linux", feature = "keychain"))]
#[test]
fn a_missing_keychain_by_default_is_not_half_configured() {
    let folder = Folder::new();
    let address = format!("unix:path={}", folder.at("no-bus").display());
    let name = "a_missing_keychain_by_default_is_not_half_configured";
    Child::new(name).var("DBUS_SESSION_BUS_ADDRESS", address).var("KANAL_API_KEY", KEY).run(|| {
        let chain = Chain::<Kanal>::standard();
        assert_eq!(relations(&chain)[3], Relation::BrokenBelow);
        assert_eq!(half_configured(&chain), [false; 4]);
        let chain = chain.with_reference(&"keychain:kanal".parse().unwrap()).unwrap();
        assert_eq!(half_configured(&chain), [false, false, false, false, true]);
    });
}
