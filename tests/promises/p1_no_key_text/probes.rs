//! Probes, and the reports of servers that give the key back.

use keysheath::failure::{Answer, Obstacle};
use keysheath::key::{Roots, RootsError};
use keysheath::probe::{Finding, HttpProbe, Probe, Report, Verdict};

use super::*;
use crate::support::recorder::{Recorder, Request as Seen, write_answer};
use crate::support::tls::OwnCertificate;

/// Asks servers that put the key wherever an answer has room for it, and gives the reports.
fn ask_an_echo() -> Vec<Report> {
    let mut reports = Vec::new();
    for status in [200, 302, 401, 403, 422, 429, 500] {
        let server = Recorder::raw(move |request: &Seen, stream| {
            let key = request.header("authorization")[0];
            let head = format!("{status} {key}\r\nx-key: {key}\r\nretry-after: {key}\r\nlocation: /{key}");
            let body = format!(r#"{{ "error": "Invalid API key", "key": "{key}", "errors": "{key}" }}"#);
            write_answer(stream, &head.replace("/Bearer ", "/"), &body)
        });
        reports.extend(ask(&server));
    }
    let garbage = Recorder::raw(|request: &Seen, stream| {
        let key = request.header("authorization")[0];
        write!(stream, "{key}\r\n{key}: {key}\r\n\r\n{key}")
    });
    reports.extend(ask(&garbage));
    reports
}

fn ask(server: &Recorder) -> [Report; 2] {
    let origin = || Origin::parse(&format!("http://{}", server.address)).unwrap();
    let stores = [1, 2].map(|store| StoreId::new(store).unwrap());
    let kanal_probe = HttpProbe::by_customer_upsert(stores[0], [stores[1]])
        .with_guard(OriginGuard::for_loopback(origin()).unwrap());
    let katana_probe = HttpProbe::by_product_list().with_guard(OriginGuard::for_loopback(origin()).unwrap());
    assert_debug_silent("HttpProbe<Kanal>", &kanal_probe);
    assert_debug_silent("HttpProbe<Katana>", &katana_probe);
    let katana = ApiKey::<Katana>::parse(KATANA).unwrap();
    let other = katana_probe.probe(kanal().as_raw());
    assert_value_silent("a report of another issuer's key", &other);
    [kanal_probe.probe(kanal().as_raw()), katana_probe.probe(katana.as_raw())]
}

/// Asks servers that keep the key for themselves, and are given it.
pub(crate) fn ask_over_http_and_over_tls() {
    let server = Recorder::plain("204 No Content");
    assert!(ask(&server).iter().all(|report| report.verdict() == Verdict::Accepted));
    let own = OwnCertificate::new();
    let tls = Recorder::start("204 No Content", own.accept());
    let origin = Origin::parse(&format!("https://localhost:{}", tls.address.port())).unwrap();
    let probe = HttpProbe::by_invalid_customer(StoreId::new(1).unwrap(), [])
        .with_guard(OriginGuard::for_https(origin).unwrap())
        .with_roots(Roots::from_pem(own.pem.as_bytes()).unwrap());
    assert_eq!(probe.probe(kanal().as_raw()).verdict(), Verdict::Accepted);
    for server in [server, tls] {
        assert!(server.heads().iter().all(|head| head.contains(KANAL)));
    }
}

#[test]
fn the_client_underneath_would_log_the_key() {
    static LINES: Lines = Lines::new();
    const NAME: &str = "probes::the_client_underneath_would_log_the_key";
    in_child::<&str>(NAME, &[], || {
        LINES.install();
        let server = Recorder::plain("204 No Content");
        let origin = Origin::parse(&format!("http://{}", server.address)).unwrap();
        let mut request = Request::get(format!("{origin}/")).body(()).unwrap();
        let guard = OriginGuard::for_loopback(origin).unwrap();
        guard.authorize(&mut request, &BearerHeader::new(&kanal())).unwrap();
        let agent: ureq::Agent = ureq::Agent::config_builder().proxy(None).build().into();
        agent.run(request).unwrap();
        // When this fails, ureq has stopped, and SECURITY.md can say so.
        assert!(!traces(&LINES.all().join("\n")).is_empty());
    });
}

#[test]
fn a_report_on_a_server_that_echoes_the_key_shows_no_key() {
    let reports = ask_an_echo();
    let mut verdicts = HashSet::new();
    for report in &reports {
        assert_value_silent("Report", report);
        for finding in report.findings() {
            let finding: &Finding = finding;
            assert_value_silent("Finding", finding);
            match finding.outcome() {
                Ok(answer) => assert_value_silent("Answer", &{
                    let answer: Answer = answer;
                    answer
                }),
                Err(obstacle) => assert_error_silent("Obstacle", &{
                    let obstacle: Obstacle = obstacle;
                    obstacle
                }),
            }
        }
        let verdict: Verdict = report.verdict();
        assert_value_silent("Verdict", &verdict);
        verdicts.insert(verdict);
    }
    assert_eq!(reports.len(), 16);
    assert!(verdicts.contains(&Verdict::KeyRefused) && verdicts.contains(&Verdict::Accepted), "{verdicts:?}");
}

#[test]
fn roots_with_a_key_in_them_show_nothing_of_it() {
    for text in [
        KANAL.to_owned(),
        format!("-----BEGIN CERTIFICATE-----\n{KANAL}"),
        format!("-----BEGIN {KANAL}-----\nMAA=\n-----END {KANAL}-----\n"),
        format!("-----BEGIN CERTIFICATE-----\n{KANAL}*\n-----END CERTIFICATE-----\n"),
    ] {
        let error: RootsError = Roots::from_pem(text.as_bytes()).unwrap_err();
        assert_error_silent("RootsError", &error);
    }
    let text = format!("-----BEGIN CERTIFICATE-----\n{KANAL}\n-----END CERTIFICATE-----\n");
    assert_debug_silent("Roots", &Roots::from_pem(text.as_bytes()).unwrap());
}
