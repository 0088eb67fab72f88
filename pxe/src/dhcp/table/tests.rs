use proptest::prelude::*;

use super::super::config::{Network, Subnet};
use super::super::lease::{LeaseRecord, Version};
use super::super::rank::MemberId;
use super::*;

fn client(n: u8) -> Holder {
    Holder::Client(ClientKey::ethernet([2, 0, 0, 0, 0, n]))
}

fn address(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, n)
}

fn lease(holder: Holder, at: u8, state: LeaseState, counter: u64, millis: u64) -> Lease {
    Lease {
        holder,
        address: address(at),
        state,
        version: Version { counter, author: MemberId::new([1; 32]) },
        since: counter,
        expires: Some(Time::from_millis(millis)),
    }
}

#[test]
fn expired_addresses_are_stale_then_free() {
    let mut table = Table::default();
    table.merge(lease(client(1), 9, LeaseState::Bound, 1, 1000), Time::ZERO);
    let at = |millis| Time::from_millis(millis);
    assert_eq!(table.occupancy(address(9), &client(2), at(999)), Occupancy::Held(client(1)));
    assert_eq!(table.occupancy(address(9), &client(1), at(999)), Occupancy::Free);
    assert_eq!(table.occupancy(address(9), &client(2), at(1000)), Occupancy::Stale);
    table.purge(at(1000) + STALE_KEEP);
    assert_eq!(table.occupancy(address(9), &client(2), at(1000) + STALE_KEEP), Occupancy::Free);
    assert!(table.is_empty() && table.next_purge().is_none());
}

#[test]
fn the_stronger_claim_keeps_the_address() {
    let mut table = Table::default();
    table.merge(lease(client(1), 9, LeaseState::Offered, 1, 1000), Time::ZERO);
    table.merge(lease(client(2), 9, LeaseState::Bound, 7, 1000), Time::ZERO);
    table.merge(lease(client(3), 9, LeaseState::Bound, 5, 1000), Time::ZERO);
    let keeper =
        |table: &Table, millis| table.keeper(address(9), Time::from_millis(millis)).map(|lease| lease.holder);
    assert_eq!(keeper(&table, 0), Some(client(3)));
    assert_eq!(keeper(&table, 1000), None);
    table.merge(lease(client(3), 9, LeaseState::Released, 8, 1000), Time::ZERO);
    assert_eq!(keeper(&table, 0), Some(client(2)));
}

#[test]
fn renewing_does_not_weaken_a_claim() {
    let mut table = Table::default();
    table.merge(lease(client(1), 9, LeaseState::Bound, 1, 1000), Time::ZERO);
    table.merge(lease(client(2), 9, LeaseState::Bound, 2, 1000), Time::ZERO);
    let renewed = Lease { since: 1, ..lease(client(1), 9, LeaseState::Bound, 50, 2000) };
    assert_eq!(table.merge(renewed, Time::ZERO), Merge::Applied { new_claim: false });
    assert_eq!(table.keeper(address(9), Time::ZERO).unwrap().holder, client(1));
}

#[test]
fn holders_of_one_address_are_bounded() {
    let mut table = Table::default();
    for n in 0..=u8::try_from(MAX_CLAIMS).unwrap() {
        let expected =
            if usize::from(n) < MAX_CLAIMS { Merge::Applied { new_claim: true } } else { Merge::Refused };
        assert_eq!(table.merge(lease(client(n), 9, LeaseState::Bound, 1, 1000), Time::ZERO), expected);
    }
    let later = Time::from_millis(2000);
    let fresh = lease(client(200), 9, LeaseState::Bound, 1, 9000);
    assert_eq!(table.merge(fresh, later), Merge::Applied { new_claim: true }, "expired ones make room");
    assert_eq!(table.len(), 1);
}

prop_compose! {
    fn any_record()(
        holder in 0_u8..4, at in 1_u8..5, state in 0..3, counter in 1_u64..8, author in 1_u8..3, left in 1_u32..5000,
    ) -> LeaseRecord {
        let state = [LeaseState::Offered, LeaseState::Bound, LeaseState::Released][usize::try_from(state).unwrap()];
        LeaseRecord {
            holder: client(holder), address: address(at), state, counter, since: counter,
            author: MemberId::new([author; 32]), remaining_ms: left,
        }
    }
}

fn merged(records: &[LeaseRecord]) -> Vec<Lease> {
    let mut table = Table::default();
    for record in records {
        table.merge(record.received(Time::ZERO).unwrap(), Time::ZERO);
    }
    table.iter().copied().collect()
}

proptest! {
    #[test]
    fn merging_forgets_order_and_repetition(records in proptest::collection::vec(any_record(), 0..30)) {
        let once = merged(&records);
        let mut other: Vec<_> = records.iter().rev().chain(&records).copied().collect();
        prop_assert_eq!(&once, &merged(&other));
        other.sort_unstable_by_key(|record| (record.remaining_ms, record.counter));
        prop_assert_eq!(&once, &merged(&other));
    }

    #[test]
    fn indices_agree_with_a_plain_search(
        records in proptest::collection::vec(any_record(), 0..30), now in 0_u64..6000,
    ) {
        let network = Network::new(address(0), 29).unwrap();
        let pool = Pool::new(&Subnet { ranges: vec![(address(1), address(4))], ..Subnet::whole(network) });
        let mut table = Table::new([pool.clone()]);
        for record in &records {
            table.merge(record.received(Time::ZERO).unwrap(), Time::ZERO);
        }
        let now = Time::from_millis(now);
        table.purge(now);
        for at in 1..5 {
            let slow = table.iter().filter(|l| l.address == address(at) && l.is_live(now)).min_by_key(|l| l.claim());
            prop_assert_eq!(table.keeper(address(at), now), slow);
            for holder in (0..4).map(client) {
                let others = || table.iter().filter(|l| l.address == address(at) && l.holder != holder);
                let held = others().any(|l| l.is_live(now));
                let stale = others().any(|l| l.state != LeaseState::Released);
                match table.occupancy(address(at), &holder, now) {
                    Occupancy::Held(_) => prop_assert!(held),
                    Occupancy::Stale => prop_assert!(!held && stale),
                    Occupancy::Free => prop_assert!(!held && !stale),
                }
            }
        }
        let unused = |at| !table.iter().any(|l| l.address == address(at) && l.state != LeaseState::Released);
        prop_assert_eq!(table.is_full(&pool), !(1..5).any(unused));
        prop_assert!(table.offers.iter().all(|(_, holder)| table.get(holder).is_some()));
    }

    #[test]
    fn hostile_records_are_refused_or_bounded(counter: u64, since: u64, left: u32, foreign: bool) {
        let holder = if foreign { Holder::Foreign(address(7)) } else { client(1) };
        let record = LeaseRecord {
            holder, address: address(9), state: LeaseState::Bound, counter, since,
            author: MemberId::new([9; 32]), remaining_ms: left,
        };
        if let Ok(lease) = record.received(Time::ZERO) {
            prop_assert!(!foreign && lease.since <= lease.version.counter);
            prop_assert!(lease.expires.unwrap().since_start() <= super::super::lease::MAX_REMAINING);
        }
    }
}
