//! Names from outside (paths, variables, programs, places, people) that would forge a line of a log, or send
//! codes to a terminal: no message prints one as it stands.

use crate::support::keys::Keys;
use keysheath::rotation::KeyDetails;
use keysheath::source::Absence;

use super::*;

/// A line feed, a carriage return, an escape sequence, C1 controls, and what turns or hides text.
const HOSTILE: &str =
    "X\n2026-11-28 all is well\r\u{1b}[2J\u{9b}1m\u{85}\u{202e}\u{2066}\u{2028}\u{200b}\u{feff}Y";

fn is_hostile(character: char) -> bool {
    HOSTILE.contains(character) && !matches!(character, ' '..='~')
}

/// `lines` line feeds are the message's own.
fn assert_harmless(what: &str, printed: &str, lines: usize) {
    let found: Vec<char> = printed.chars().filter(|&c| is_hostile(c)).collect();
    let feeds = found.iter().filter(|&&c| c == '\n').count();
    let others = found.len() - feeds;
    assert!(feeds <= lines && others == 0, "{what} prints {found:?}: {printed:?}");
}

fn assert_harmless_debug(what: &str, value: &dyn Debug) {
    assert_harmless(what, &format!("{value:?}"), 0);
}

fn assert_harmless_error(what: &str, error: &(dyn Error + 'static)) {
    let mut cause = Some(error);
    while let Some(error) = cause {
        assert_harmless(what, &error.to_string(), 0);
        assert_harmless_debug(what, &error);
        cause = error.source();
    }
}

fn provenances() -> Vec<Provenance> {
    let (name, path) = (HOSTILE.to_owned(), PathBuf::from(HOSTILE));
    let mut places = vec![
        Provenance::Variable { name: name.clone() },
        Provenance::FileVariable { name: name.clone(), path: None },
        Provenance::FileVariable { name: name.clone(), path: Some(path.clone()) },
        Provenance::Dotenv { path: path.clone(), name: name.clone(), line: None },
        Provenance::Dotenv { path: path.clone(), name: name.clone(), line: Some(1) },
        Provenance::File { path: path.clone() },
        Provenance::Systemd { name: name.clone() },
        Provenance::Command { program: path, arguments: 1 },
        Provenance::Keychain { service: name.clone(), name: name.clone() },
        Provenance::other("vault", HOSTILE),
    ];
    places.push(Provenance::OpenBao { place: name.clone(), field: Some(name), version: None });
    places
}

#[test]
fn no_place_forges_a_line() {
    for place in provenances() {
        assert_harmless("Provenance", &place.to_string(), 0);
        assert_harmless_debug("Provenance", &place);
        let error = SourceError::new(place, Problem::BothSet { variable: HOSTILE.to_owned() });
        assert_harmless_error("SourceError", &error);
        assert_harmless_debug("Problem", error.problem());
    }
}

fn look_at(what: &str, source: impl Source + Debug + 'static) {
    assert_harmless_debug(what, &source);
    assert_harmless(what, &source.provenance().to_string(), 0);
    if let Err(error) = source::load(&source, Kanal::PROFILE) {
        assert_harmless_error(what, &error);
    }
    let chain = Chain::<Kanal>::new().with(source);
    assert_harmless_debug(what, &chain);
    assert_harmless(what, &chain.explain().to_string(), 1);
    let error = chain.load().unwrap_err();
    for printed in [error.to_string(), format!("{error:?}"), error.attempts().to_string()] {
        assert_harmless(what, &printed.lines().collect::<String>(), 0);
        assert!(printed.lines().all(|line| !line.starts_with("2026")), "{printed}");
    }
}

#[test]
fn no_source_forges_a_line() {
    let folder = Folder::new();
    let path = folder.write(HOSTILE, KANAL.repeat(2));
    look_at("Variable", Variable::new(HOSTILE));
    look_at("a file that a variable names", SecretFile::named_by_variable(HOSTILE));
    look_at("SecretFile", SecretFile::new(&path));
    look_at("SecretFile", SecretFile::new(folder.at(&format!("missing{HOSTILE}"))));
    look_at("DotenvFile", DotenvFile::new(&path, HOSTILE));
    look_at("a systemd credential", SecretFile::systemd_credential(HOSTILE));
    look_at("Command", Command::new(HOSTILE).args([HOSTILE]));
    look_at("Base64", SecretFile::new(&path).base64());
    #[cfg(feature = "keychain")]
    {
        let keychain = source::Keychain::for_service(HOSTILE);
        assert_harmless_debug("Keychain", &keychain);
        look_at("KeychainItem", source::KeychainItem::new(keychain, HOSTILE));
    }
}

#[test]
fn no_file_variable_forges_a_line() {
    let folder = Folder::new();
    let path = folder.write(HOSTILE, KANAL.repeat(2));
    in_child("names::no_file_variable_forges_a_line", &[("SHOP_FILE", &path)], || {
        look_at("a file that a variable names", SecretFile::named_by_variable("SHOP"));
    });
}

#[test]
fn no_reference_forges_a_line() {
    let encoded: String = HOSTILE
        .chars()
        .map(|c| if c.is_ascii_control() { format!("%{:02X}", u32::from(c)) } else { c.to_string() })
        .collect();
    for text in [
        format!("file:/{encoded}"),
        format!("dotenv:/{encoded}#A"),
        format!("systemd:{encoded}"),
        format!("openbao:{encoded}/{encoded}#{encoded}"),
        format!("command:{}", encoded.replace(' ', "%20")),
    ] {
        let reference: KeyRef = text.parse().unwrap_or_else(|error| panic!("{text:?}: {error}"));
        assert_harmless_debug("KeyRef", &reference);
        assert_harmless("KeyRef", &reference.to_string(), 0);
        assert_eq!(reference.to_string().parse::<KeyRef>().unwrap(), reference);
        if let Ok(source) = reference.allow_commands().source() {
            assert_harmless("KeyRef", &source.provenance().to_string(), 0);
        }
    }
}

#[cfg(feature = "rotation")]
#[test]
fn no_event_and_no_error_of_a_reload_or_a_step_forges_a_line() {
    use keysheath::keyset::KeySetError;
    use keysheath::refresh::RefreshEvent;
    use keysheath::rotation::{NextStep, Reason, RotationError};
    use keysheath::store::{DocumentError, DocumentStore as _, FileStore};

    for place in provenances() {
        for event in [
            RefreshEvent::Recovered { provenance: place.clone(), failures: 1 },
            RefreshEvent::CannotChange { provenance: place.clone() },
        ] {
            assert_harmless("RefreshEvent", &event.to_string(), 0);
            assert_harmless_debug("RefreshEvent", &event);
        }
        let problem = DocumentError::Conflict;
        assert_harmless_error("RotationError", &RotationError::Document { place, problem });
    }
    let folder = Folder::new();
    let path = folder.at(HOSTILE);
    let store = FileStore::new(path.join("missing"));
    assert_harmless_debug("FileStore", &store);
    assert_harmless_error("DocumentError", &store.read().unwrap_err());
    let now = std::time::SystemTime::now();
    let key = kanal();
    let details = || KeyDetails::from(&key).with_name(HOSTILE).with_note(HOSTILE);
    assert_harmless_debug("KeyDetails", &details());
    let keys = Keys::new();
    assert_harmless_error("RotationError", &keys.adopt(details()).unwrap_err());
    let rotation = keys.stage(&key).unwrap().rotation();
    let refused = KeySetError::InProgress { rotation, since: now, by: HOSTILE.to_owned() };
    assert_harmless_error("KeySetError", &refused);
    let create =
        NextStep::Create { profile: Kanal::PROFILE, name: HOSTILE.to_owned(), reason: Reason::NoKey };
    assert_harmless("NextStep", &create.to_string(), 0);
    assert_harmless_debug("NextStep", &create);
}

#[cfg(feature = "openbao")]
#[test]
fn no_openbao_client_and_no_error_of_one_forges_a_line() {
    use keysheath::openbao::{Login, OpenBao, OpenBaoError};
    use keysheath::source::OpenBaoField;

    let path = PathBuf::from(HOSTILE);
    assert_harmless_error("OpenBaoError", &OpenBaoError::NoFile { path: path.clone() });
    assert_harmless_error(
        "OpenBaoError",
        &OpenBaoError::FileRefused { path: path.clone(), problem: keysheath::FileProblem::NotAFile },
    );
    for login in [Login::token_file(&path), Login::kubernetes(HOSTILE).at_mount(HOSTILE)] {
        assert_harmless_debug("Login", &login);
        if let Ok(client) = OpenBao::at(Origin::https("bao.example"), login) {
            assert_harmless_debug("OpenBao", &client);
            assert_harmless_debug("OpenBaoField", &OpenBaoField::new(client, HOSTILE, HOSTILE));
        }
    }
}

#[cfg(feature = "sqlite")]
#[test]
fn no_registry_and_no_pepper_forges_a_line() {
    use keysheath::registry::{KeyRegistry, Pepper, PepperError, RecordError, RegistryError, TeamId};

    let folder = Folder::new();
    let pepper = || Pepper::random().unwrap();
    let missing = KeyRegistry::open(Kanal::PROFILE, pepper(), folder.at(HOSTILE)).unwrap_err();
    assert_eq!(missing, RegistryError::Records(RecordError::Missing));
    assert_harmless_error("RecordError", &missing);
    let registry = KeyRegistry::create(Kanal::PROFILE, pepper(), folder.at(HOSTILE)).unwrap();
    assert_harmless_debug("KeyRegistry", &registry);
    let name: String = HOSTILE.chars().filter(|c| !c.is_control()).collect();
    match registry.create_key(TeamId::new(1), &name) {
        Ok(new) => assert_harmless_debug("NewKey", &new),
        Err(error) => assert_harmless_error("RegistryError", &error),
    }
    assert_harmless_error("RegistryError", &registry.create_key(TeamId::new(1), HOSTILE).unwrap_err());
    for place in provenances() {
        assert_harmless_error(
            "PepperError",
            &PepperError::Absent { place: place.clone(), absence: Absence::NoFile },
        );
        assert_harmless_error("PepperError", &PepperError::Weak { place });
    }
}

#[cfg(feature = "oauth")]
#[test]
fn no_event_of_a_keeper_forges_a_line() {
    use keysheath::oauth::KeeperEvent;

    for place in provenances() {
        for event in [
            KeeperEvent::Refused { provenance: place.clone() },
            KeeperEvent::InDoubt { provenance: place.clone() },
            KeeperEvent::Recovered { provenance: place, failures: 1 },
        ] {
            assert_harmless("KeeperEvent", &event.to_string(), 0);
            assert_harmless_debug("KeeperEvent", &event);
        }
    }
}
