//! Printing and parsing are inverse, whatever the text.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, PartialEq)]
enum Part {
    Name,
    Path,
    Word,
    Option,
}

/// The encoding of a reference's part, written a second time from its description.
fn escape(text: &str, part: Part) -> String {
    let last = text.chars().count().saturating_sub(1);
    let hidden = |c: char| {
        c.is_control()
            || matches!(u32::from(c), 0xad | 0x61c | 0x180e | 0xfeff | 0x200b..=0x200f | 0x2028..=0x202e
                | 0x2060..=0x206f | 0xfff9..=0xfffb | 0xe0000..=0xe007f)
    };
    let encode = |(at, c): (usize, char)| {
        let rest: String = text.chars().skip(at + 1).take(1).collect();
        let expands = match c {
            '~' => at == 0,
            '$' => rest.contains(|c: char| c.is_ascii_alphabetic() || "_{(".contains(c)),
            '*' => part == Part::Path,
            _ => false,
        };
        let must = "%?#".contains(c)
            || hidden(c)
            || (expands && matches!(part, Part::Path | Part::Word))
            || (c == '&' && part == Part::Option)
            || (c.is_whitespace() && (at == 0 || at == last))
            || (c == ' ' && part == Part::Word);
        if must {
            c.to_string().bytes().fold(String::new(), |text, byte| format!("{text}%{byte:02X}"))
        } else {
            c.to_string()
        }
    };
    text.chars().enumerate().map(encode).collect()
}

/// A part without NUL and, as a path, without `..`.
fn path() -> impl Strategy<Value = String> {
    prop_oneof!["[^\0]{1,40}", r"([A-Z]:)?[\\/][a-z %?#.]{1,12}[\\/][a-z]{1,8}"]
        .prop_filter("climbs", |path: &String| !path.split(['/', '\\']).any(|part| part == ".."))
        .prop_filter("names a host", |path: &String| !path.starts_with("//"))
}

fn variable() -> impl Strategy<Value = String> {
    "[A-Za-z_.][A-Za-z0-9_.]{0,30}"
}

fn item() -> impl Strategy<Value = String> {
    r"[^/\p{Cc}]{1,30}"
}

fn word() -> impl Strategy<Value = String> {
    "[^\0\"'`]{1,20}"
}

/// A reference of every scheme in its one canonical form.
fn canonical() -> impl Strategy<Value = String> {
    let part = |text: &str| escape(text, Part::Name);
    let path_part = |text: &str| escape(text, Part::Path);
    let place = prop_oneof![
        variable().prop_map(|name| format!("env:{name}")),
        path().prop_map(move |path| format!("file:{}", path_part(&path))),
        (path(), variable()).prop_map(move |(path, name)| format!("dotenv:{}#{name}", path_part(&path))),
        r"[^\x00/\\:.][^\x00/\\:]{0,30}".prop_map(move |name| format!("systemd:{}", part(&name))),
        item().prop_map(move |name| format!("keychain:{}", part(&name))),
        (item(), item()).prop_map(move |(service, name)| format!(
            "keychain:{}/{}",
            part(&service),
            part(&name)
        )),
        proptest::collection::vec(word(), 1..6).prop_map(|words| {
            let words: Vec<String> = words.iter().map(|word| escape(word, Part::Word)).collect();
            format!("command:{}", words.join(" "))
        }),
        ("[^\0/.]{1,10}", "[^\0/.]{1,10}(/[^\0/.]{1,10}){0,2}", "[^\0]{1,10}").prop_map(
            move |(mount, path, field)| format!("openbao:{}/{}#{}", part(&mount), part(&path), part(&field))
        ),
    ];
    let pick = prop_oneof![
        Just(String::new()),
        "[^\0]{1,20}".prop_map(|name| format!("&field={}", escape(&name, Part::Option))),
        (1..=u32::MAX).prop_map(|line| format!("&line={line}")),
    ];
    let number =
        |name| proptest::option::of(any::<u32>().prop_map(move |number| format!("&{name}={number}")));
    (place, number("owner"), number("group"), pick, any::<bool>()).prop_map(
        |(place, owner, group, pick, base64)| {
            let is_file = place.starts_with("file:") || place.starts_with("dotenv:");
            let of_files = [owner, group].into_iter().flatten().filter(|_| is_file);
            let mut options: String = of_files.chain([pick]).collect();
            options += if base64 { "&encoding=base64" } else { "" };
            if options.is_empty() { place } else { format!("{place}?{}", &options[1..]) }
        },
    )
}

/// Something that is nearly a reference.
fn nearly() -> impl Strategy<Value = String> {
    let scheme = "(env|file|dotenv|systemd|keychain|command|openbao):";
    let noise = prop_oneof![".*", "[%?#/:. A-F0-9\\\\'a=\n]{0,24}"];
    let end = proptest::option::of(
        "\\?(encoding=base64|field=[a%25=&]{0,4}|line=[0-9]{0,3}|owner=[0-9]{0,3}|&){1,3}",
    );
    (scheme, noise, end).prop_map(|(scheme, noise, end)| scheme + &noise + &end.unwrap_or_default())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn what_is_read_is_printed_as_it_was(text in canonical()) {
        prop_assert_eq!(parse(&text).to_string(), text);
    }

    #[test]
    fn a_path_is_taken_as_it_stands(path in path()) {
        let reference = parse(&format!("file:{}", escape(&path, Part::Path)));
        let provenance = reference.source().expect("a file").provenance();
        prop_assert_eq!(provenance, Provenance::File { path: std::path::absolute(path).unwrap() });
    }

    #[test]
    fn parsing_never_panics_and_accepted_text_prints_back(
        text in prop_oneof![any::<String>(), nearly(), canonical()],
    ) {
        if let Ok(reference) = text.parse::<KeyRef>() {
            let printed = reference.to_string();
            prop_assert_eq!(printed.parse::<KeyRef>(), Ok(reference.clone()), "{}", printed);
            prop_assert!(printed.len() <= MAX_REFERENCE);
            let _ = (format!("{reference:?}"), reference.allow_commands().source().map(|it| it.provenance()));
        }
    }

    #[test]
    fn no_accepted_path_climbs(text in nearly()) {
        if let Ok(source) = text.parse::<KeyRef>().and_then(|reference| reference.source())
            && let Provenance::File { path } | Provenance::Dotenv { path, .. } = source.provenance()
        {
            prop_assert!(path.components().all(|part| part != std::path::Component::ParentDir), "{:?}", path);
        }
    }
}

#[test]
fn what_is_accepted_is_short_enough_when_printed() {
    // A character that is not shown is written as three times as many bytes.
    for count in [100, 1_300] {
        let text = format!("file:/{}", "\u{200b}".repeat(count));
        match text.parse::<KeyRef>() {
            Ok(reference) => assert_eq!(reference.to_string().parse(), Ok(reference), "{count}"),
            Err(error) => assert_eq!((error, count), (KeyRefError::TooLong, 1_300)),
        }
    }
}
