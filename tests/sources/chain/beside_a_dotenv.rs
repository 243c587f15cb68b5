//! A `.env` beside other places.

use keysheath::key::Profile;
use keysheath::source::{Reading, Source, SourceError};

use super::*;

/// A source from outside the crate, which calls itself a keychain.
struct LikeAKeychain;

impl Source for LikeAKeychain {
    fn provenance(&self) -> Provenance {
        Provenance::Keychain { service: "test".to_owned(), name: "kanal".to_owned() }
    }

    fn read(&self, _: &'static Profile) -> Result<Reading, SourceError> {
        Ok(Reading::present(OTHER_KEY.to_owned()))
    }
}

#[test]
fn a_dotenv_comes_last_wherever_a_keychain_was_put() {
    let (folder, file) = places();
    let path = folder.write(".env", format!("KANAL_API_KEY={KEY}\n"));
    let dotenv = format!("KANAL_API_KEY in {}, line 1", path.display());
    let missing = format!("file {}", folder.at("missing").display());
    let keychain = "keychain item test/kanal".to_owned();
    let chain = Chain::<Kanal>::new().with(LikeAKeychain).with(file("missing")).with_dotenv(&path);
    assert_eq!(provenances(&chain), [keychain, missing.clone(), dotenv.clone()]);
    assert!(loaded(&chain).key().matches(OTHER_KEY.as_bytes()));
    let chain = Chain::<Kanal>::new().with(file("missing")).with_dotenv(&path);
    assert_eq!(provenances(&chain), [missing, dotenv]);
}

#[cfg(feature = "keychain")]
#[test]
fn a_dotenv_precedes_only_its_own_keychain_in_a_standard_chain() {
    let chain = Chain::<Kanal>::standard().with(LikeAKeychain).with_dotenv("one").with_dotenv("two");
    let here = format!("{}/", std::env::current_dir().unwrap().display());
    assert_eq!(
        format!("{chain:?}").replace(&here, ""),
        "Chain(kanal, variable KANAL_API_KEY, the file that KANAL_API_KEY_FILE names, \
         systemd credential kanal_api_key, KANAL_API_KEY in one, KANAL_API_KEY in two, \
         keychain item keysheath/kanal, keychain item test/kanal)"
    );
}
