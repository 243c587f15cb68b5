//! P9 over every kind of fault of the emulator: a good key is never refused.

use std::time::Duration;

use keysheath::client::OriginGuard;
use keysheath::emulator::{Emulator, Fault, FaultRule, OWN_STORE, PAUSED_STORE};
use keysheath::failure::{KANAL, KATANA};
use keysheath::key::{Issuer, Katana, Roots};
use keysheath::probe::{HttpProbe, Probe, Verdict};

/// Far less than the configured latency, and far more than an answer takes.
const DEADLINE: Duration = Duration::from_secs(2);

fn guard<I: Issuer>(emulator: &Emulator) -> OriginGuard<I> {
    OriginGuard::for_loopback(emulator.origin().clone()).unwrap()
}

/// Each probe of the emulator's issuer.
fn probes(emulator: &Emulator) -> Vec<Box<dyn Probe>> {
    let roots = emulator.certificate_pem().map(|pem| Roots::from_pem(pem.as_bytes()).unwrap());
    if emulator.key().profile() == Katana::PROFILE {
        let probe = HttpProbe::by_product_list().with_guard(guard(emulator)).with_deadline(DEADLINE);
        return vec![match roots {
            None => Box::new(probe),
            Some(roots) => Box::new(probe.with_roots(roots)),
        }];
    }
    [HttpProbe::by_customer_upsert(OWN_STORE, []), HttpProbe::by_invalid_customer(OWN_STORE, [])]
        .into_iter()
        .map(|probe| probe.with_guard(guard(emulator)).with_deadline(DEADLINE))
        .map(|probe| match &roots {
            None => probe,
            Some(roots) => probe.with_roots(roots.clone()),
        })
        .map(|probe| Box::new(probe) as Box<dyn Probe>)
        .collect()
}

/// Every fault, and answers that only look like a refusal: another status with the refusal's body, and the
/// refusal's status with another body.
fn faults() -> Vec<Fault> {
    let mut faults = vec![Fault::Reset, Fault::TruncatedBody, Fault::Latency(Duration::from_secs(5))];
    for status in [
        400, 401, 402, 403, 404, 405, 407, 408, 409, 410, 418, 422, 425, 429, 451, 500, 501, 502, 503, 504,
        599,
    ] {
        faults.push(Fault::status(status));
        faults.push(Fault::status(status).with_retry_after(7));
        faults.push(Fault::status(status).with_body("<html>Please sign in</html>"));
        for row in KANAL.iter().chain(KATANA).filter(|row| row.status() != status) {
            faults.extend(row.body().map(|body| Fault::status(status).with_body(body)));
        }
    }
    faults
}

fn no_fault_refuses_a_good_key(emulator: &Emulator) {
    for probe in probes(emulator) {
        assert_eq!(probe.probe(emulator.key()).verdict(), Verdict::Accepted, "without a fault");
        let mut seen = 0;
        for fault in faults() {
            emulator.clear_faults();
            emulator.add_fault(FaultRule::new(fault.clone())).unwrap();
            let report = probe.probe(emulator.key());
            assert_eq!(report.verdict(), Verdict::Inconclusive, "{fault:?}: {report}");
            seen += 1;
        }
        assert!(seen > 200, "only {seen} faults were tried");
        emulator.clear_faults();
        assert_eq!(probe.probe(emulator.key()).verdict(), Verdict::Accepted, "after all faults");
    }
}

#[test]
fn no_fault_makes_a_good_kanal_key_look_refused() {
    no_fault_refuses_a_good_key(&Emulator::start().unwrap());
}

#[test]
fn no_fault_makes_a_good_katana_key_look_refused() {
    no_fault_refuses_a_good_key(&Emulator::katana().start().unwrap());
}

#[test]
fn no_fault_makes_a_good_key_look_refused_over_tls() {
    no_fault_refuses_a_good_key(&Emulator::kanal().with_tls().start().unwrap());
}

#[test]
fn a_refused_store_is_no_refused_key_but_a_deleted_key_is() {
    let emulator = Emulator::start().unwrap();
    let at = |store| {
        HttpProbe::by_invalid_customer(store, []).with_guard(guard(&emulator)).with_deadline(DEADLINE)
    };
    assert_eq!(at(PAUSED_STORE).probe(emulator.key()).verdict(), Verdict::StoreRefused);
    assert_eq!(at(keysheath::emulator::FOREIGN_STORE).probe(emulator.key()).verdict(), Verdict::StoreRefused);
    assert!(emulator.customers(OWN_STORE).is_empty());
    assert_eq!(at(OWN_STORE).probe(emulator.key()).verdict(), Verdict::Accepted);
    assert!(emulator.customers(OWN_STORE).is_empty(), "the inferred form writes nothing to the emulator");
    emulator.delete_key(emulator.key_id()).unwrap();
    assert_eq!(at(OWN_STORE).probe(emulator.key()).verdict(), Verdict::KeyRefused);
}

#[test]
fn the_rate_limits_of_both_issuers_are_inconclusive() {
    for emulator in [Emulator::kanal().with_rate_limit(), Emulator::katana().with_rate_limit()] {
        let emulator = emulator.start().unwrap();
        for probe in probes(&emulator) {
            let verdicts: Vec<Verdict> = (0..70).map(|_| probe.probe(emulator.key()).verdict()).collect();
            assert!(verdicts.contains(&Verdict::Inconclusive), "the limit was not reached");
            assert!(!verdicts.contains(&Verdict::KeyRefused));
            let report = probe.probe(emulator.key());
            assert!(report.retry_after().is_some_and(|wait| wait <= Duration::from_secs(60)), "{report}");
        }
    }
}
