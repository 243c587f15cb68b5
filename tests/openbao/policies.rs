//! The policies in the docs are enough, and no more than is needed.

use keysheath::Cadence;
use keysheath::key::ApiKey;
use keysheath::refresh::{RefreshSettings, Refresher};
use keysheath::rotation::{
    Fleet, NextStep, Presence, PresenceError, PresenceSettings, Rotation, RotationPolicy,
};

use super::*;
use crate::support::steps::Now as _;

/// The policies as the docs show them: of who reads and of who rotates, of who shows itself and of who sees
/// that.
fn documented() -> [String; 4] {
    let docs = include_str!("../../src/openbao.rs");
    let blocks: Vec<String> = docs
        .split("//! ```text\n")
        .skip(1)
        .filter_map(|rest| rest.split("//! ```").next())
        .filter(|block| block.contains("capabilities"))
        .map(|block| block.replace("//! ", ""))
        .collect();
    blocks.try_into().expect("four policies")
}

#[test]
fn who_reads_can_read_and_not_write() {
    let server = Server::start();
    let [reads, rotates, ..] = documented();
    let place = "secret/shop/kanal";
    let rotator = OpenBaoStore::new(server.client(Login::token(server.token(&rotates, "1h"))), place);
    let reader = OpenBaoStore::new(server.client(Login::token(server.token(&reads, "1h"))), place);
    assert_eq!(rotator.version(), Ok(None));
    let first = rotator.write(&content("first"), None).unwrap();
    let second = rotator.write(&content("second"), Some(&first)).unwrap();
    assert_eq!(rotator.write(&content("third"), Some(&first)), Err(DocumentError::Conflict));
    for store in [&reader, &rotator] {
        assert_eq!(store.version(), Ok(Some(second)));
        assert_eq!(store.read().unwrap().unwrap().content().expose_secret(), b"second");
    }
    let (unchanged, why) = refused(reader.write(&content("third"), Some(&second)));
    assert!(unchanged && matches!(why, OpenBaoError::Forbidden { access } if access.contains("update")));

    server.put(place, &json!({ "key": KEY }));
    assert_gives_the_key(&field(server.client(Login::token(server.token(&reads, "1h"))), place));
    let elsewhere = field(server.client(Login::token(server.token(&reads, "1h"))), "secret/shop/katana");
    assert!(matches!(refusal(&elsewhere), OpenBaoError::Forbidden { .. }));
}

#[test]
fn each_line_of_the_policies_is_needed() {
    let server = Server::start();
    let place = "secret/shop/kanal";
    OpenBaoStore::new(server.root(), place).write(&content("first"), None).unwrap();
    for policy in &documented()[..2] {
        for line in policy.lines().filter(|line| line.starts_with("path")) {
            let rest = policy.replace(line, "");
            let store = OpenBaoStore::new(server.client(Login::token(server.token(&rest, "1h"))), place);
            let forbidden = [store.read().map(drop), store.version().map(drop)];
            assert!(forbidden.iter().any(Result::is_err), "without {line}");
        }
    }
}

/// By its policies alone a fleet follows the key set, shows itself, and is seen by the rotating process.
#[test]
fn a_fleet_shows_which_key_it_uses_by_the_policies_for_that() {
    let server = Server::start();
    let [reads, rotates, presents, sees] = documented();
    let store = |policies: &[&String], place| {
        let policy = policies.iter().map(|policy| policy.as_str()).collect::<String>();
        OpenBaoStore::new(server.client(Login::token(server.token(&policy, "1h"))), place)
    };
    let (keys, presence) = ("secret/shop/kanal", "secret/shop/kanal-presence");
    let policy = RotationPolicy::new()
        .with_grace(Duration::ZERO)
        .with_settle(Duration::ZERO)
        .with_activation(Duration::ZERO);
    let rotator = [&rotates, &sees];
    let rotation = Rotation::<Kanal>::open(store(&rotator, keys), policy).unwrap();
    let rotation = rotation.with_presence(store(&rotator, presence));
    let key = |text: &str| ApiKey::<Kanal>::parse_bytes(text.as_bytes()).unwrap();
    rotation.adopt(&key(KEY)).unwrap();

    let service = [&reads, &presents];
    let slow = RefreshSettings::new().with_cadence(Cadence::every(Duration::from_secs(3600)));
    let refresher = Refresher::<Kanal>::from_store(store(&service, keys), slow).unwrap();
    let settings = PresenceSettings::new("shop-sync on shop-7").with_time_to_live(Duration::from_secs(1));
    let shown = Presence::show(store(&service, presence), &refresher.handle(), settings.clone()).unwrap();
    rotation.stage(&key(OTHER_KEY)).unwrap();
    rotation.promote_unverified_now().unwrap();
    let step = rotation.next_step().unwrap();
    assert!(
        matches!(&step, NextStep::Wait { still_using, .. } if still_using[0].name() == "shop-sync on shop-7"),
        "{step}"
    );
    assert_eq!(refresher.refresh_now(PATIENCE), Some(keysheath::handle::Reload::Newer));
    crate::support::openbao::eventually("the process shows the new key", || {
        matches!(rotation.next_step().unwrap(), NextStep::Delete { shown: Some(1), .. })
    });
    drop(shown);
    assert!(Fleet::read::<Kanal>(&store(&rotator, presence)).unwrap().records().is_empty());

    // Who only reads cannot show itself, and each line of the policies is needed.
    let mut fewer = vec![vec![&reads, &sees]];
    let without: Vec<String> = presents.lines().map(|line| presents.replace(line, "")).collect();
    fewer.extend(without.iter().map(|rest| vec![&reads, rest]));
    assert_eq!(fewer.len(), 3);
    for policies in fewer {
        let error =
            Presence::show(store(&policies, presence), &refresher.handle(), settings.clone()).unwrap_err();
        assert!(matches!(error, PresenceError::Document(DocumentError::OpenBao(_))), "{policies:?}: {error}");
    }
    let blind = Fleet::read::<Kanal>(&store(&[&rotates], presence)).unwrap_err();
    assert!(blind.to_string().contains("forbid"), "{blind}");
}
