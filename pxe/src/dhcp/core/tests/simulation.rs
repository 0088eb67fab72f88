//! Many nodes and clients on one switch in virtual time, with loss, splits, deaths and restarts.
//!
//! The oracle is the clients' own view: whoever was told an address by an ACK believes it until its lease is over.

mod world;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use proptest::prelude::*;

use world::{Client, Fault, World};

const SECOND: Duration = Duration::from_secs(1);

/// Addresses that two clients believe to have at once.
fn held_twice(world: &World) -> Vec<Ipv4Addr> {
    let mut count = BTreeMap::<_, u32>::new();
    world.addresses().for_each(|address| *count.entry(address).or_default() += 1);
    count.into_iter().filter(|&(_, count)| count > 1).map(|(address, _)| address).collect()
}

#[test]
fn one_offer_for_each_discover_and_every_client_served_in_one_round() {
    for nodes in [1, 2, 5, 20] {
        let mut world = World::new(7, nodes, 60);
        world.power_on_all();
        world.run(5 * SECOND);
        assert_eq!(world.bound(), 60);
        assert_eq!(world.discovers, 60, "no client had to ask twice");
        assert_eq!(world.offers, world.discovers, "{nodes} nodes");
        assert!(held_twice(&world).is_empty());
    }
}

#[test]
fn dead_responders_are_replaced_before_the_first_retry() {
    let mut world = World::new(11, 5, 40);
    world.run(SECOND);
    // Dead, but the others have not noticed.
    world.fault(Fault::Kill(0));
    world.fault(Fault::Kill(3));
    world.power_on_all();
    world.run(5 * SECOND);
    assert_eq!(world.bound(), 40);
    assert_eq!(world.discovers, 40);
    assert!(held_twice(&world).is_empty());
}

#[test]
fn a_responder_that_dies_between_offer_and_request_costs_one_round_and_no_address() {
    let mut world = World::new(13, 4, 40);
    world.power_on_all();
    world.run_until(|world| world.clients().all(|client| client.offered().is_some()));
    let offered: Vec<_> = world.clients().map(Client::offered).collect();
    world.fault(Fault::Kill(1));
    world.run(10 * SECOND);
    assert_eq!(world.bound(), 40);
    for (client, offered) in world.clients().zip(offered) {
        assert_eq!(client.address(), offered, "the next node names the same address");
        assert!(client.rounds <= 2);
    }
}

#[test]
fn after_a_split_every_address_held_twice_is_found_and_one_holder_moves() {
    let mut found = 0;
    for seed in 0..20 {
        // A pool that is nearly used up makes both sides leave their slices.
        let mut world = World::new(seed, 4, 80);
        world.run(SECOND);
        world.fault(Fault::Split);
        world.power_on_all();
        world.run(10 * SECOND);
        let twice = held_twice(&world);
        found += twice.len();
        assert!(world.held_twice_on_one_side().is_empty(), "seed {seed}");
        world.fault(Fault::Heal);
        world.run(SECOND);
        let conflicts = world.conflicts();
        assert!(
            twice.iter().all(|address| conflicts.contains(address)),
            "seed {seed}: {twice:?} {conflicts:?}"
        );
        // Clients renew after half of their lease; by then each loser has been refused and has moved.
        world.run(Duration::from_secs(200));
        assert!(held_twice(&world).is_empty(), "seed {seed}");
        assert_eq!(world.bound(), 80, "seed {seed}");
    }
    assert!(found > 20, "the splits made conflicts: {found}");
}

#[test]
fn a_restarted_node_learns_and_stays_in_line() {
    let mut world = World::new(17, 3, 40);
    world.power_on_all();
    world.run(3 * SECOND);
    let before: Vec<_> = world.clients().map(Client::address).collect();
    world.fault(Fault::Kill(2));
    world.fault(Fault::Notice);
    world.run(SECOND);
    world.fault(Fault::Restart(2));
    world.run(SECOND);
    world.power_on_all();
    world.run(5 * SECOND);
    assert_eq!(world.clients().map(Client::address).collect::<Vec<_>>(), before);
    assert!(held_twice(&world).is_empty());
}

fn any_fault(nodes: usize, clients: usize) -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => (0..nodes).prop_map(Fault::Kill),
        4 => (0..nodes).prop_map(Fault::Restart),
        2 => Just(Fault::Notice),
        1 => Just(Fault::Split),
        3 => Just(Fault::Heal),
        2 => (0..clients).prop_map(Fault::PowerOn),
        1 => Just(Fault::PowerOnAll),
        1 => (0..30_u8).prop_map(Fault::Loss),
    ]
}

/// Runs a world through faults, each after so many milliseconds, then repairs everything. On the way no address is given
/// twice on one side; in the end every client has an address of its own.
fn survive(mut world: World, nodes: usize, faults: Vec<(Fault, u64)>) -> Result<(), TestCaseError> {
    world.power_on_all();
    for (fault, millis) in faults {
        world.run(Duration::from_millis(millis));
        world.fault(fault);
    }
    prop_assert!(world.violations.is_empty(), "{:#?}", world.violations);
    world.fault(Fault::Heal);
    (0..nodes).for_each(|node| world.fault(Fault::Restart(node)));
    world.fault(Fault::Loss(0));
    world.run(260 * SECOND);
    prop_assert!(world.violations.is_empty(), "{:#?}", world.violations);
    prop_assert!(held_twice(&world).is_empty());
    prop_assert_eq!(world.bound(), world.clients().count());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_breaks_on_a_busy_switch(
        seed: u64, faults in proptest::collection::vec((any_fault(5, 60), 0_u64..8000), 1..25),
    ) {
        survive(World::new(seed, 5, 60), 5, faults)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 9_800, ..ProptestConfig::default() })]

    #[test]
    fn whatever_breaks_with_hardly_an_address_to_spare(
        seed: u64, faults in proptest::collection::vec((any_fault(3, 10), 0_u64..8000), 1..25),
    ) {
        survive(World::with_pool(seed, 3, 10, 12), 3, faults)?;
    }
}

/// Runs of `make soak`.
const SOAK: u32 = 1_000_000;

/// On all processors; what fails prints itself.
#[test]
#[ignore = "soak: about 9 ms of a processor each, hours in all"]
fn soak_whatever_breaks_a_million_times() {
    let threads = u32::try_from(std::thread::available_parallelism().map_or(1, usize::from)).unwrap();
    let config = ProptestConfig { cases: SOAK.div_ceil(threads), ..ProptestConfig::default() };
    let faults = proptest::collection::vec((any_fault(3, 10), 0_u64..8000), 1..25);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let mut runner = proptest::test_runner::TestRunner::new(config.clone());
                let ran = runner.run(&(any::<u64>(), &faults), |(seed, faults)| {
                    survive(World::with_pool(seed, 3, 10, 12), 3, faults)
                });
                ran.unwrap_or_else(|error| panic!("{error}"));
            });
        }
    });
}
