#![no_main]

use std::fmt::Display;
use std::str::FromStr;

use ghostwire_store::domain::*;
use libfuzzer_sys::fuzz_target;

/// What is accepted comes back from its own text.
fn round<T: FromStr + Display + PartialEq>(text: &str) {
    if let Ok(value) = text.parse::<T>() {
        assert!(value.to_string().parse::<T>().ok().is_some_and(|again| again == value));
    }
}

fuzz_target!(|text: &str| {
    round::<MachineKey>(text);
    round::<NodeKey>(text);
    round::<DiscoKey>(text);
    round::<UserName>(text);
    round::<Hostname>(text);
    round::<DnsLabel>(text);
    round::<DnsName>(text);
    round::<Email>(text);
    round::<Prefix>(text);
    round::<Tag>(text);
    round::<NodeId>(text);
    round::<Timestamp>(text);
    round::<MetricName>(text);
    round::<KeyPrefix>(text);
    let _ = text.parse::<Cursor>();
    let _ = JsonObject::new(text);
    let label = DnsLabel::from_hostname(text);
    round::<DnsLabel>(label.as_str());
    round::<DnsLabel>(label.with_suffix(text).as_str());
});
