//! What random scripts are made of.

use proptest::prelude::*;

macro_rules! operations {
    ($($name:ident: $weight:literal),* $(,)?) => {
        /// What a step of a script does. Its arguments are chosen when it runs, see [`Step`].
        /// `Wait` moves the clock, after `Crash` another process finds blocks, after `Reopen` rows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub(super) enum Operation {
            $($name,)*
        }

        impl Operation {
            /// Every one, and how often it is drawn in comparison with others.
            pub(super) const ALL: &[(Self, u32)] = &[$((Self::$name, $weight)),*];
        }
    };
}

operations! {
    CreateUser: 6, UpsertOidc: 3, SignIn: 2, SetMetadata: 3, UpdateUser: 4, DeleteUser: 3, CreatePreAuthKey: 6,
    RevokePreAuthKey: 2, DeletePreAuthKey: 2, Register: 20, UpdateNode: 6, RotateKey: 5,
    ExpireNodes: 3, DeleteNode: 3, BackfillAddresses: 5, ReapEphemeral: 5, Connect: 8, Open: 3,
    Heartbeat: 5, PutEndpoint: 3, RemoveEndpoint: 3, Touch: 3, Disconnect: 4, DisconnectAll: 1,
    DisconnectAllOf: 2, DisconnectLost: 2, BeginInstance: 4, BeatInstance: 2, EndInstance: 2, Advertise: 7, Approve: 7, DeleteRoute: 2,
    SetApproved: 3, UpdateRoute: 4, SweepRoutes: 2,
    SwapPolicy: 6, RollbackPolicy: 3, PrunePolicies: 3, CreateDnsRecord: 5, UpdateDnsRecord: 5,
    DeleteDnsRecord: 2, PutDnsRecords: 5, DeleteDnsRecords: 5, PutNetwork: 6, PutDerpMap: 3,
    PutDns: 3, ResetSetting: 2, BeginSignIn: 5, TakeSignIn: 3, ReplaceSignIn: 6, SweepSignIns: 2, BeginSession: 6, TouchSession: 4, EndSession: 2, EndAllSessions: 2,
    SweepSessions: 4, CreateApiKey: 8, RevokeApiKey: 2, DeleteApiKey: 2, SweepApiKeys: 2,
    SweepPreAuthKeys: 2, RecordMetrics: 2, Transact: 6, Wait: 6, Crash: 2,
    Reopen: 2,
}

use Operation as Op;

impl Operation {
    /// Those that a transaction may contain.
    pub(super) fn in_transaction(choices: &mut Choices) -> Self {
        let steps: Vec<_> = Self::ALL.iter().filter(|(step, _)| step.is_step()).collect();
        let mut number = choices.roll_to(steps.iter().map(|(_, weight)| weight).sum());
        for (step, weight) in &steps {
            if number < *weight {
                return *step;
            }
            number -= weight;
        }
        Self::CreateUser
    }

    fn is_step(self) -> bool {
        !matches!(
            self,
            Self::CreatePreAuthKey
                | Self::CreateApiKey
                | Self::BeginSession
                | Self::BeginSignIn
                | Self::TakeSignIn
                | Self::ReplaceSignIn
                | Self::SweepRoutes
                | Self::RecordMetrics
                | Self::Transact
                | Self::Wait
                | Self::Crash
                | Self::Reopen
        )
    }
}

/// One step of a script: an operation, and random numbers that choose its arguments from what there
/// is when it runs. Smaller numbers make simpler choices, so that scripts shrink to simple ones.
#[derive(Debug, Clone)]
pub(super) struct Step {
    pub(super) operation: Operation,
    pub(super) numbers: Vec<u8>,
}

/// Each number is below this.
const SIDES: u8 = 16;
/// Enough for every operation but transactions, which use them again.
const CHOICES: usize = 16;

/// How most scripts begin, and how likely each step is: without users and nodes little happens.
const BEGINNING: [(Operation, f64); 14] = [
    (Op::PutNetwork, 0.8),
    (Op::CreateUser, 0.9),
    (Op::CreateUser, 0.5),
    (Op::CreatePreAuthKey, 0.8),
    (Op::CreatePreAuthKey, 0.5),
    (Op::Register, 0.9),
    (Op::Register, 0.8),
    (Op::Register, 0.6),
    (Op::Connect, 0.6),
    (Op::Connect, 0.4),
    (Op::PutNetwork, 0.3),
    (Op::BackfillAddresses, 0.3),
    (Op::CreateDnsRecord, 0.3),
    (Op::CreateDnsRecord, 0.3),
];

/// Most scripts are about one part of the store, so that they get far in it; the first is about
/// everything.
const THEMES: [&[Operation]; 11] = [
    &[],
    &[Op::CreateUser, Op::UpsertOidc, Op::UpdateUser, Op::SignIn, Op::SetMetadata, Op::DeleteUser],
    &[Op::Register, Op::UpdateNode, Op::RotateKey, Op::ExpireNodes, Op::CreatePreAuthKey],
    &[Op::Register, Op::PutNetwork, Op::BackfillAddresses, Op::DeleteNode],
    &[Op::Connect, Op::Heartbeat, Op::Disconnect, Op::Register, Op::ReapEphemeral, Op::Wait],
    &[
        Op::BeginInstance,
        Op::BeatInstance,
        Op::EndInstance,
        Op::Open,
        Op::Heartbeat,
        Op::PutEndpoint,
        Op::RemoveEndpoint,
        Op::Touch,
        Op::DisconnectAllOf,
        Op::DisconnectLost,
        Op::PutNetwork,
        Op::Wait,
    ],
    &[Op::BeginSignIn, Op::TakeSignIn, Op::ReplaceSignIn, Op::SweepSignIns, Op::Wait],
    &[
        Op::Advertise,
        Op::Approve,
        Op::DeleteRoute,
        Op::SetApproved,
        Op::UpdateRoute,
        Op::SweepRoutes,
        Op::ExpireNodes,
        Op::Connect,
        Op::Disconnect,
        Op::Wait,
    ],
    &[
        Op::BeginSession,
        Op::TouchSession,
        Op::EndAllSessions,
        Op::SweepSessions,
        Op::CreateApiKey,
        Op::SweepApiKeys,
        Op::PutNetwork,
        Op::Wait,
    ],
    &[Op::CreateDnsRecord, Op::UpdateDnsRecord, Op::PutDnsRecords, Op::DeleteDnsRecords],
    &[Op::SwapPolicy, Op::RollbackPolicy, Op::PrunePolicies, Op::PutDns, Op::PutDerpMap],
];

/// How scripts about routes go on, with the first random numbers: three nodes offer the same, so
/// that one can be the oldest of several that may take over.
const ROUTES: [(Operation, f64, &[u8]); 19] = [
    (Op::CreateUser, 0.9, &[0, 0]),
    (Op::Register, 0.9, &[0, 0, 0, 0, 0]),
    (Op::Register, 0.9, &[1, 1, 0, 0, 0]),
    (Op::Register, 0.9, &[2, 2, 0, 0, 0]),
    (Op::Connect, 0.9, &[0, 0]),
    (Op::Connect, 0.9, &[1, 0]),
    (Op::Connect, 0.9, &[2, 0]),
    (Op::Advertise, 0.9, &[0, 15]),
    (Op::Wait, 0.5, &[]),
    (Op::Advertise, 0.9, &[1, 15]),
    (Op::Wait, 0.5, &[]),
    (Op::Advertise, 0.9, &[2, 15]),
    (Op::Approve, 0.9, &[2, 15]),
    (Op::Approve, 0.9, &[1, 15]),
    (Op::Approve, 0.9, &[0, 15]),
    (Op::Disconnect, 0.7, &[]),
    // Their keys expire by themselves.
    (Op::ExpireNodes, 0.4, &[0, 2, 2, 0, 1, 2]),
    (Op::Wait, 0.4, &[0, 1]),
    (Op::SweepRoutes, 0.4, &[]),
];

/// How scripts about addresses go on: three nodes without an IPv4 address, and then two addresses.
const ADDRESSES: [(Operation, f64, &[u8]); 7] = [
    (Op::PutNetwork, 0.9, &[8, 0]),
    (Op::CreateUser, 0.9, &[0, 0]),
    (Op::Register, 0.9, &[0, 0, 0, 0, 0]),
    (Op::Register, 0.9, &[1, 1, 0, 0, 0]),
    (Op::Register, 0.9, &[2, 2, 0, 0, 0]),
    (Op::PutNetwork, 0.9, &[6, 0]),
    (Op::BackfillAddresses, 0.9, &[]),
];

pub(super) fn scripts() -> impl Strategy<Value = Vec<Step>, Tree: Send> {
    proptest::strategy::Union::new(THEMES.map(about))
}

fn about(theme: &[Operation]) -> impl Strategy<Value = Vec<Step>, Tree: Send> + use<> {
    let numbers = || proptest::collection::vec(0..SIDES, CHOICES);
    let step = |(operation, numbers)| Step { operation, numbers };
    let everywhere = BEGINNING.into_iter().map(|(operation, likely)| (operation, likely, &[][..]));
    let of_routes = ROUTES.into_iter().filter(|_| theme.contains(&Op::Advertise));
    let of_addresses = ADDRESSES.into_iter().filter(|_| theme.contains(&Op::BackfillAddresses));
    let beginning: Vec<_> = everywhere
        .chain(of_routes)
        .chain(of_addresses)
        .map(|(operation, likely, first)| {
            let numbers = numbers().prop_map(move |mut numbers| {
                numbers[..first.len()].copy_from_slice(first);
                numbers
            });
            proptest::option::weighted(likely, (Just(operation), numbers).prop_map(step))
        })
        .collect();
    // Each operation as often as it weighs.
    let repeat = |(operation, weight): (Operation, u32)| {
        let times = if theme.contains(&operation) { 8 * weight } else { weight };
        (0..times).map(move |_| operation)
    };
    let operations: Vec<_> = Operation::ALL.iter().copied().flat_map(repeat).collect();
    let operation = proptest::sample::select(operations);
    // Short ones are drawn too, so that long ones can shrink to them.
    let rest = proptest::collection::vec((operation, numbers()).prop_map(step), 1..=42);
    (beginning, rest)
        .prop_map(|(beginning, rest)| beginning.into_iter().flatten().chain(rest).collect())
}

/// Random numbers, one after the other.
#[derive(Debug, Clone)]
pub(super) struct Choices {
    numbers: Vec<u8>,
    next: usize,
}

impl Choices {
    pub(super) fn new(numbers: &[u8]) -> Self {
        Self { numbers: numbers.to_vec(), next: 0 }
    }

    /// 0 to 15.
    pub(super) fn roll(&mut self) -> usize {
        let round = self.next / self.numbers.len();
        let number = self.numbers[self.next % self.numbers.len()];
        self.next += 1;
        // In later rounds other numbers, but 0 stays 0 as long as it can.
        usize::from(number.wrapping_mul(2 * u8::try_from(round).unwrap_or(0) + 1) % SIDES)
    }

    /// 0 to `end`, exclusive.
    fn roll_to(&mut self, end: u32) -> u32 {
        let number = self.roll() * usize::from(SIDES) + self.roll();
        u32::try_from(number).unwrap_or(0) * end / 256
    }

    /// In `chances` of 16 cases.
    pub(super) fn happens(&mut self, chances: usize) -> bool {
        self.roll() >= usize::from(SIDES) - chances
    }

    pub(super) fn one_of<'t, T>(&mut self, pool: &'t [T]) -> &'t T {
        &pool[self.roll() % pool.len()]
    }

    pub(super) fn maybe<T>(
        &mut self,
        chances: usize,
        make: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        if self.happens(chances) { Some(make(self)) } else { None }
    }
}
