//! The same by the clock, as dudect does it (Reparaz, Balasch and Verbauwhede, DATE 2017): one input
//! again and again, and random ones, in random order; Welch's t-test tells whether they take different
//! times. It sees what memcheck does not, such as instructions that take longer for some operands, and
//! only on the machine that it runs on.

#![allow(clippy::print_stdout)]
use std::time::Instant;

use super::*;

/// Below, a difference is chance; dudect calls it proved from here on.
const LEAKS: f64 = 10.0;
const MEASUREMENTS: usize = 100_000;
/// Calls in one measurement: a clock tells some tens of nanoseconds apart.
const CALLS: usize = 20;

/// Mean and variance, one value after the other (Welford).
#[derive(Default)]
struct Class {
    count: f64,
    mean: f64,
    squares: f64,
}

impl Class {
    fn take(&mut self, value: f64) {
        self.count += 1.0;
        let from_mean = value - self.mean;
        self.mean += from_mean / self.count;
        self.squares += from_mean * (value - self.mean);
    }

    fn error(&self) -> f64 {
        self.squares / (self.count - 1.0) / self.count
    }
}

/// How surely the times of `run` differ between the input `fixed` and random ones.
fn difference(fixed: &[u8], random: impl Fn() -> Vec<u8>, run: impl Fn(&[u8])) -> f64 {
    // All of them before anything is measured, so that making them shows in no time.
    let inputs: Vec<_> = (0..MEASUREMENTS)
        .map(|_| {
            let [class] = draw::<1>(&SystemRandom).expect("a byte");
            let is_fixed = class & 1 == 0;
            (is_fixed, if is_fixed { fixed.to_vec() } else { random() })
        })
        .collect();
    let measured: Vec<_> = inputs
        .iter()
        .map(|(is_fixed, input)| {
            let began = Instant::now();
            (0..CALLS).for_each(|_| run(black_box(input)));
            (*is_fixed, began.elapsed().as_nanos() as f64)
        })
        .collect();
    // What an interrupt made long says nothing.
    let mut times: Vec<f64> = measured.iter().map(|(_, time)| *time).collect();
    times.sort_by(f64::total_cmp);
    let longest = times[times.len() * 9 / 10];
    let [mut one, mut other] = [Class::default(), Class::default()];
    for (is_fixed, time) in measured.into_iter().filter(|(_, time)| *time <= longest) {
        if is_fixed { one.take(time) } else { other.take(time) }
    }
    ((one.mean - other.mean) / (one.error() + other.error()).sqrt()).abs()
}

#[test]
#[ignore = "takes a quiet machine and optimised code: .ci/long secrets"]
fn nothing_of_ours_takes_longer_for_some_secrets() {
    let secret: [u8; 32] = draw(&SystemRandom).expect("bytes");
    let random = || draw::<32>(&SystemRandom).expect("bytes").to_vec();
    let comparing = difference(&secret, random, |input| {
        black_box(equal(&secret, input));
    });
    let text = Identity::draw(&SystemRandom).expect("an identity").to_text();
    let texts =
        || Identity::draw(&SystemRandom).expect("an identity").to_text().as_bytes().to_vec();
    // Making key pairs takes long, so there are few, again and again.
    let some: Vec<_> = (0..256).map(|_| texts()).collect();
    let one_of_them = || {
        let [which] = draw::<1>(&SystemRandom).expect("a byte");
        some[usize::from(which)].clone()
    };
    let decoding = difference(text.as_bytes(), one_of_them, |input| {
        drop(black_box(bech32::decode_blindly("age-secret-key-pq-", input, Case::Upper)));
    });
    println!("comparing: t = {comparing:.1}; decoding an identity: t = {decoding:.1}");
    assert!(comparing < LEAKS && decoding < LEAKS, "{comparing:.1} {decoding:.1}");
}

#[test]
#[ignore = "takes a quiet machine and optimised code: .ci/long secrets"]
fn what_takes_longer_for_some_secrets_is_found() {
    let secret: [u8; 32] = draw(&SystemRandom).expect("bytes");
    let random = || draw::<32>(&SystemRandom).expect("bytes").to_vec();
    let until_they_differ = |input: &[u8]| {
        for (one, other) in secret.iter().zip(input) {
            if black_box(one) != black_box(other) {
                return;
            }
        }
    };
    let found = difference(&secret, random, until_they_differ);
    println!("a comparison that ends at the first difference: t = {found:.1}");
    assert!(found > LEAKS, "{found:.1}");
}
