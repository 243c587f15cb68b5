//! Which texts are origins, and which origins are the same.

use proptest::strategy::Strategy as _;

use super::*;

#[test]
fn what_is_not_an_origin_is_refused_with_the_part_that_is_wrong() {
    for (text, error) in [
        ("", ParseError::OriginScheme),
        ("api.getkanal.com", ParseError::OriginScheme),
        ("ftp://api.getkanal.com", ParseError::OriginScheme),
        ("https://key@api.getkanal.com", ParseError::OriginUserInfo),
        ("https://api.getkanal.com/api", ParseError::OriginTrailing),
        ("https://api.getkanal.com//", ParseError::OriginTrailing),
        ("https://api.getkanal.com?x", ParseError::OriginTrailing),
        ("https://", ParseError::OriginHost),
        ("https://api..com", ParseError::OriginHost),
        ("https://api.getkanal.com.", ParseError::OriginHost),
        ("https://api%2egetkanal.com", ParseError::OriginHost),
        ("https://api.getkänal.com", ParseError::OriginHost),
        ("https://127.1", ParseError::OriginHost),
        ("https://0x7f.0.0.1", ParseError::OriginHost),
        ("https://127.0.0.0x1", ParseError::OriginHost),
        ("https://2130706433", ParseError::OriginHost),
        ("https://[::1", ParseError::OriginHost),
        ("https://[::1]x", ParseError::OriginHost),
        ("https://[zz]", ParseError::OriginHost),
        ("https://api.getkanal.com:", ParseError::OriginPort),
        ("https://api.getkanal.com:0", ParseError::OriginPort),
        ("https://api.getkanal.com:+443", ParseError::OriginPort),
        ("https://api.getkanal.com:65536", ParseError::OriginPort),
    ] {
        assert_eq!((Origin::parse(text), text.parse::<Origin>()), (Err(error), Err(error)), "{text}");
    }
}

#[test]
fn only_ip_literals_are_loopback() {
    for (text, loopback) in [
        ("http://127.0.0.1", true),
        ("http://127.255.255.254:9", true),
        ("http://[::1]:9", true),
        ("http://[0:0:0:0:0:0:0:1]:9", true),
        ("http://localhost", false),
        ("http://127.0.0.1.example.com", false),
        ("http://[::ffff:127.0.0.1]", false),
        ("http://0.0.0.0", false),
        ("http://10.0.0.1", false),
    ] {
        assert_eq!(Origin::parse(text).unwrap().is_loopback(), loopback, "{text}");
    }
}

#[test]
fn the_host_of_a_const_is_one_that_parsing_takes() {
    for host in [
        "127.1",
        "2130706433",
        "0x7f.1",
        "0x7f000001",
        "127.0.0.0x1",
        "127.0.0.01",
        "1.2.3.256",
        "1.2.3.4.5",
        "a.1",
        "a.0x",
        "",
        "a..b",
        "a.",
        ".a",
        "A.example",
        "[::1]",
        "a:1",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "api.getkanal.com",
        "1.2.3.4.example",
        "0xa.example",
        "a_b.example",
    ] {
        let made = std::panic::catch_unwind(|| Origin::https(host));
        let parsed = Origin::parse(&format!("https://{host}"));
        // A `const` has neither upper case nor another port, and no address of version 6.
        let is_plain = !host.contains([':', '[']) && host.to_ascii_lowercase() == host;
        assert_eq!(made.ok(), parsed.ok().filter(|_| is_plain), "{host}");
    }
}

#[test]
fn an_address_is_the_same_in_each_way_of_writing_it() {
    let short = Origin::parse("http://[::1]:8080").unwrap();
    for text in ["http://[0:0:0:0:0:0:0:1]:8080", "HTTP://[0000::0001]:8080", "http://[::0.0.0.1]:8080/"] {
        assert_eq!(Origin::parse(text).as_ref(), Ok(&short), "{text}");
    }
    assert_eq!(short.to_string(), "http://[::1]:8080");
    assert!(short.is_at("http", "[0:0:0:0:0:0:0:1]:8080") && short.is_at("http", "[::1]:8080"));
    assert!(!short.is_at("http", "[::2]:8080") && !short.is_at("http", "::1:8080"));
    assert!(!short.is_at("http", "[::1]"));
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig {
        cases: 20_000, failure_persistence: None, ..Default::default()
    })]
    #[test]
    fn an_origin_means_the_same_to_the_crate_url(text in host(), port in port()) {
        let text = format!("https://{text}{port}");
        if let (Ok(origin), Ok(url)) = (Origin::parse(&text), url::Url::parse(&text)) {
            let own = match url.host().expect("https has a host") {
                url::Host::Domain(name) => origin.host() == name && !origin.is_loopback(),
                url::Host::Ipv4(address) => origin.host().parse() == Ok(address),
                url::Host::Ipv6(address) => address_in_brackets(origin.host()) == Some(address),
            };
            proptest::prop_assert!(own, "{}: {} and {:?}", text, origin, url.host());
            proptest::prop_assert_eq!(Some(origin.port()), url.port_or_known_default(), "{}", text);
            proptest::prop_assert!(matches!(url.path(), "/") && url.username().is_empty(), "{}", text);
        }
    }
}

fn host() -> impl proptest::strategy::Strategy<Value = String> {
    use proptest::prelude::*;

    const PIECES: [&str; 48] = [
        ".",
        ".",
        ".",
        ".",
        "a",
        "api",
        "example",
        "com",
        "localhost",
        "127",
        "0",
        "1",
        "255",
        "256",
        "017",
        "0x7f",
        "0x",
        "0X1",
        "2130706433",
        "4294967296",
        "-",
        "_",
        "xn--",
        "xn--a",
        "xn--bcher-kva",
        "[",
        "]",
        "::1",
        "::",
        "ffff",
        ":",
        "%31",
        "%2e",
        "%",
        "\u{ff11}",
        "\u{3002}",
        "\u{ff0e}",
        "\u{e4}",
        "\u{200d}",
        "@",
        "/",
        "\\",
        "?",
        "#",
        " ",
        "\t",
        "A",
        "1e3",
    ];
    let pieces = prop::collection::vec(prop::sample::select(&PIECES[..]), 1..8).prop_map(|all| all.concat());
    let v6 = proptest::string::string_regex("\\[[0-9a-f:]{0,4}:[0-9a-f:.]{1,12}\\]").expect("a pattern");
    let v4 = proptest::string::string_regex(
        "(0x[0-9a-f]{0,3}|[0-9]{1,4})(\\.(0x[0-9a-f]{0,2}|[0-9]{1,3})){0,4}\\.?",
    )
    .expect("a pattern");
    prop_oneof![pieces, v6, v4]
}

fn port() -> impl proptest::strategy::Strategy<Value = String> {
    proptest::sample::select(&["", "", ":443", ":80", ":0443", ":65535", ":65536", ":", ":+1", ":x"][..])
        .prop_map(str::to_owned)
}
