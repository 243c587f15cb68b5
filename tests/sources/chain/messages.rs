//! What the operator sees where no key is found.

use keysheath::chain::NearMiss;
use keysheath::key::{KeyFormat, Profile};

use super::*;

#[test]
fn the_root_has_the_names_of_a_first_program() {
    use keysheath::{
        ApiKey, Chain, ChainError, Fingerprint, Issuer, KeyHandle, KeyRef, Origin, Source, StoreId,
    };

    fn first_program<I: Issuer>(chain: &Chain<I>) -> Result<(KeyHandle<I>, Option<Fingerprint>), ChainError> {
        let key: ApiKey<I> = chain.load()?.into_key();
        let fingerprint = key.fingerprint();
        Ok((KeyHandle::fixed(key), fingerprint))
    }

    let (_folder, file) = places();
    let chain = Chain::<keysheath::Kanal>::new().with(file("key"));
    assert_eq!(first_program(&chain).unwrap().1, fingerprint(KEY));
    assert!(first_program(&Chain::<keysheath::Katana>::new()).is_err());
    let source: Box<dyn Source> = KeyRef::from_text("env:A").source().unwrap();
    assert_eq!(source.provenance().to_string(), "variable A");
    assert_eq!(
        (Origin::https("a.example").to_string(), StoreId::new(7).unwrap().get()),
        ("https://a.example".into(), 7)
    );
}

#[test]
fn an_error_says_each_cause_once() {
    let (_folder, file) = places();
    let chains = [
        Chain::<Kanal>::new().with(file("missing")).with(file("malformed")).with(file("key")),
        Chain::<Kanal>::new().with(file("missing").required()),
        Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE")),
    ];
    let missing = chains[1].load().unwrap_err().to_string();
    assert!(missing.starts_with("no Kanal key was found; file /"), "{missing}");
    assert!(missing.contains("Settings → API Keys") && missing.contains("missing: nothing\n"), "{missing}");
    for (chain, cause) in
        chains.iter().zip(["bytes where exactly 24", "no such file, and it was named", "not set"])
    {
        let error = chain.load().unwrap_err();
        assert_eq!(error.to_string().matches(cause).count(), 1, "{error}");
        assert!(std::error::Error::source(&error).is_none(), "the cause would be printed again");
    }
}

/// Kanal, with keys of 24 to 64 characters.
enum LongKanal {}

impl Issuer for LongKanal {
    const PROFILE: &'static Profile = &Kanal::PROFILE.widened(KeyFormat::between(24, 64));
}

#[test]
fn near_misses_are_named_and_no_part_of_a_value() {
    let child = Child::new("messages::near_misses_are_named_and_no_part_of_a_value");
    let child = child.var("KANAL_KEY", KEY).var("KANAL_TOKEN", OTHER_KEY).var("kanal_api_key", KEY);
    child.var("KANAL_SECRET", "").var("KATANA_API_KEY", KEY).var("UNRELATED_KEY", KEY).run(|| {
        let chain = Chain::<Kanal>::for_service();
        let error = chain.load().unwrap_err();
        assert_prints_nothing_of(&error, KEY);
        assert_prints_nothing_of(&error, OTHER_KEY);
        let widened = Chain::<LongKanal>::for_service().explain();
        let name = |set: &str| NearMiss::Name { set: set.to_owned(), read: "KANAL_API_KEY".to_owned() };
        let other = NearMiss::OtherIssuer { set: "KATANA_API_KEY", title: "Kanal", read: "KANAL_API_KEY" };
        let expected = [name("KANAL_KEY"), name("KANAL_TOKEN"), name("kanal_api_key"), other];
        assert_eq!(error.attempts().near_misses(), expected);
        assert_eq!(chain.explain().near_misses(), expected);
        assert_eq!(widened.near_misses(), expected, "a widened format is of the same issuer");
        for printed in [error.to_string(), chain.explain().to_string()] {
            assert_nothing_of_in(KEY, &printed);
            let near = "  near miss: KANAL_KEY is set, and the variable that is read is KANAL_API_KEY\n";
            assert!(printed.contains(near), "{printed}");
            assert!(printed.contains("KATANA_API_KEY holds a text in the form of a Kanal key"), "{printed}");
        }
        // Where a key is found, and where the variable is not read, there is nothing to say.
        assert!(loaded(&Chain::new().with(Variable::new("KANAL_KEY"))).attempts().near_misses().is_empty());
        let file = Chain::<Kanal>::new().with(SecretFile::new("/no/such/key")).load().unwrap_err();
        assert!(file.attempts().near_misses().is_empty());
    });
}

#[test]
fn a_katana_key_under_the_name_of_kanal_is_a_near_miss() {
    let uuid = "0190b3c4-5d6e-7f80-9a1b-2c3d4e5f6071";
    let child = Child::new("messages::a_katana_key_under_the_name_of_kanal_is_a_near_miss");
    child.var("KANAL_API_KEY", uuid).var("KATANA_API_TOKEN", uuid).run(|| {
        let error = Chain::<Katana>::for_service().load().unwrap_err();
        assert_prints_nothing_of(&error, uuid);
        let message = error.to_string();
        assert!(message.contains("Settings → API → Add new API key"), "{message}");
        assert!(message.contains("KATANA_API_TOKEN is set, and the variable that is read is KATANA_API_KEY"));
        assert!(message.contains("KANAL_API_KEY holds a text in the form of a Katana key"), "{message}");
    });
}

#[test]
fn a_place_that_could_not_be_asked_is_told_with_its_remedy() {
    let (folder, _) = places();
    let path = folder.at("fifo");
    let made = std::process::Command::new("mkfifo").args(["-m", "600"]).arg(&path).status();
    assert!(made.expect("mkfifo runs (Debian: coreutils)").success());
    let slow = || SecretFile::new(&path).with_deadline(std::time::Duration::from_millis(50));
    let alone = Chain::<Kanal>::new().with(slow()).load().unwrap_err().to_string();
    assert!(!alone.contains("let it be asked") && !alone.contains("other place"), "{alone}");
    let headline = alone.lines().next().unwrap();
    assert!(headline.contains("could not be asked: it was not read within 50 ms: check the disk"), "{alone}");
    assert_eq!(alone.matches("was not read").count(), 1, "{alone}");
    assert!(alone.contains("fifo: could not be asked\n"), "{alone}");
    let two = Chain::<Kanal>::new().with(Variable::new("NO_SUCH_VARIABLE")).with(slow());
    let message = two.load().unwrap_err().to_string();
    assert!(message.contains("or put the key into another place of the chain"), "{message}");
}

#[test]
fn a_chain_without_sources_says_so() {
    let message = Chain::<Kanal>::new().load().unwrap_err().to_string();
    assert!(message.contains("the chain has no sources") && !message.contains("these places"), "{message}");
}

#[test]
fn a_place_that_is_named_and_has_nothing_is_not_called_broken() {
    let (_folder, file) = places();
    let chain = Chain::<Kanal>::new().with(file("missing").required()).with(file("key"));
    let explained = chain.explain().to_string();
    assert!(explained.contains("missing: nothing: no such file"), "{explained}");
    assert!(!explained.lines().next().unwrap().contains("broken"), "{explained}");
}

#[test]
fn a_placeholder_is_told_with_where_a_key_is_made() {
    let (folder, _) = places();
    for text in ["YOUR_API_KEY", "xxxxxxxxxxxxxxxxxxxxxxxx"] {
        let chain = Chain::<Kanal>::new().with(SecretFile::new(folder.write("placeholder", text)));
        let message = chain.load().unwrap_err().to_string();
        assert!(message.contains("create one in Kanal (Settings → API Keys"), "{message}");
        assert!(!message.contains("it cannot be one"), "{message}");
    }
}
