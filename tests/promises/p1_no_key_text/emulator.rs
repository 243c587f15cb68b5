//! A server for tests whose first key is the canary, and that is sent it in every place of a request.

use keysheath::emulator::{
    Customer, Emulator, EmulatorError, EmulatorSettings, Fault, FaultRule, FaultStatus, JournalEntry,
    OWN_STORE,
};

use super::*;
use crate::support::canary::draw_the_canary;

#[test]
fn no_type_of_the_emulator_shows_the_key_that_it_is_sent() {
    let settings: EmulatorSettings = Emulator::kanal().with_random(|bytes| {
        draw_the_canary(bytes);
        Ok(())
    });
    assert_debug_silent("settings", &settings);
    let emulator: Emulator = settings.start().unwrap();
    assert!(emulator.key().matches(KANAL.as_bytes()), "the canary is the key");
    assert_debug_silent("an emulator", &emulator);
    let rule = FaultRule::new(Fault::status(503).with_retry_after(1))
        .with_key(emulator.key_id())
        .with_start(2)
        .with_times(1);
    assert_debug_silent("a rule", &rule);
    emulator.add_fault(rule).unwrap();
    let refused: EmulatorError =
        emulator.add_fault(FaultRule::new(Fault::status(7)).with_route(KANAL)).unwrap_err();
    assert_error_silent("a refused rule", &refused);
    let body = r#"{ "phone": "+33612345678" }"#;
    for path in ["/api/v1/stores/123/customers", "/api/v1/stores/456/customers", "/"] {
        for value in [format!("Bearer {KANAL}"), format!("Basic {KANAL}"), format!("Bearer {KANAL}A")] {
            let answer = ureq::post(format!("{}{path}?key={KANAL}", emulator.origin()))
                .config()
                .http_status_as_error(false)
                .proxy(None)
                .build()
                .header("authorization", value)
                .header("content-type", "application/json")
                .header("x-key", KANAL)
                .send(body)
                .unwrap();
            let (parts, mut body) = answer.into_parts();
            assert_debug_silent("the head of an answer", &parts);
            assert_silent("the body of an answer", &body.read_to_string().unwrap());
        }
    }
    let journal: Vec<JournalEntry> = emulator.journal();
    assert_eq!(journal.len(), 9);
    assert!(journal[0].key.is_some(), "the journal names the key");
    assert_debug_silent("the journal", &journal);
    let customers: Vec<Customer> = emulator.customers(OWN_STORE);
    assert_eq!(customers.len(), 1);
    assert_debug_silent("the customers", &customers);
    let rules: Vec<FaultStatus> = emulator.faults();
    assert_debug_silent("the rules", &rules);

    let taken = Emulator::kanal().with_port(emulator.origin().port());
    let error: EmulatorError = taken.start().map(drop).unwrap_err();
    assert_error_silent("a port that is taken", &error);
}
