//! The policies in the docs are enough, and no more than is needed.

use super::*;

/// The policies as the docs show them: of who reads and of who rotates.
fn documented() -> [String; 2] {
    let docs = include_str!("../../src/openbao.rs");
    let blocks: Vec<String> = docs
        .split("//! ```text\n")
        .skip(1)
        .filter_map(|rest| rest.split("//! ```").next())
        .filter(|block| block.contains("capabilities"))
        .map(|block| block.replace("//! ", ""))
        .collect();
    blocks.try_into().expect("two policies")
}

#[test]
fn who_reads_can_read_and_not_write() {
    let server = Server::start();
    let [reads, rotates] = documented();
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
    for policy in documented() {
        for line in policy.lines().filter(|line| line.starts_with("path")) {
            let rest = policy.replace(line, "");
            let store = OpenBaoStore::new(server.client(Login::token(server.token(&rest, "1h"))), place);
            let forbidden = [store.read().map(drop), store.version().map(drop)];
            assert!(forbidden.iter().any(Result::is_err), "without {line}");
        }
    }
}
