//! Several racks: what a seeder gives each of them, what is rare in one, and who imports.

use super::super::governor::{Candidate, Governor};
use super::super::rng::Rng;
use super::super::view::View;
use super::*;
use crate::exchange::core::time::{MS, SECOND};

const NEAR: PeerHint = PeerHint { origin: false, far: false, rack: 1 };

fn far(rack: u64) -> PeerHint {
    PeerHint { far: true, rack, ..NEAR }
}

fn cells(count: u32) -> Arc<Grid> {
    Arc::new(Grid::new(blob(0), vec![32 * 1024; count as usize]))
}

fn has(core: &mut Core, number: u8, grid: &Grid, held: &[u32]) {
    let mut have = Bitfield::empty(grid.chunks());
    for &cell in held {
        have.insert(cell);
    }
    core.message(Time(0), peer(number), &Message::Bitfield { blob: grid.blob(), have });
}

#[test]
fn a_seeder_gives_each_rack_as_much_of_its_first_copy() {
    let grid = cells(400);
    let view = View::new(&grid, false);
    // Of its own rack it knows ten nodes, of the three others one or two.
    let racks = [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3, 3, 4];
    let crowd: BTreeMap<Slot, Candidate<'_>> =
        (0..).zip(racks).map(|(slot, rack)| (slot, Candidate { view: &view, rack })).collect();
    let mut governor = Governor::default();
    governor.start(Time(0), Bitfield::empty(grid.cells()), &mut Rng::new(1));
    let mut given = BTreeMap::<u64, usize>::new();
    for round in 1..=10 {
        for (slot, offered) in governor.offers(Time(round * SECOND), &crowd) {
            *given.entry(racks[slot as usize]).or_default() += offered.len();
            for cell in offered {
                governor.seen(slot, cell);
                governor.seen((slot + 1) % 14, cell);
            }
        }
    }
    let (least, most) = (given.values().min().unwrap(), given.values().max().unwrap());
    assert!(given.len() == 4 && most - least <= 1, "{given:?}");
}

#[test]
fn what_our_rack_has_once_comes_before_what_it_has_twice() {
    let grid = cells(3);
    let mut core = Core::new(1);
    core.seed(Time(0), &grid, &Bitfield::empty(3));
    for (number, hint) in [(0, NEAR), (1, NEAR), (2, far(2)), (3, far(3)), (4, far(4))] {
        core.peer_up(Time(0), peer(number), hint);
    }
    // Four neighbours hold the first cell and two each of the others.
    for number in 2..5 {
        has(&mut core, number, &grid, &[0]);
    }
    has(&mut core, 1, &grid, &[1, 2]);
    has(&mut core, 0, &grid, &[0, 1, 2]);
    drain(&mut core);
    core.fetch(Time(0), &grid, &Bitfield::empty(3), Priority::Root, Order::Rarest);
    let asked = drain(&mut core).into_iter().find_map(|output| match output {
        Output::Request { peer: of, run, .. } if of == peer(0) => Some(run.first),
        _ => None,
    });
    assert_eq!(asked, Some(0));
}

#[test]
fn a_seeder_of_our_rack_that_governed_does_not_keep_us_from_importing() {
    let grid = cells(64);
    let mut core = Core::new(1);
    core.seed(Time(0), &grid, &Bitfield::empty(64));
    core.peer_up(Time(0), peer(0), NEAR);
    core.peer_up(Time(0), peer(1), far(2));
    core.message(Time(0), peer(0), &Message::Offer { blob: grid.blob(), runs: Vec::new() });
    let all: Vec<u32> = (0..64).collect();
    has(&mut core, 0, &grid, &all);
    has(&mut core, 1, &grid, &all);
    core.message(Time(0), peer(0), &Message::Open { blob: grid.blob() });
    drain(&mut core);
    core.fetch(Time(0), &grid, &Bitfield::empty(64), Priority::Root, Order::Rarest);
    let asked = |output| matches!(output, Output::Request { peer: of, .. } if of == peer(1));
    assert!(drain(&mut core).into_iter().any(asked));
}

/// Whether `ours` gives up its import of a cell when it hears that `theirs` fetches it too.
fn gives_way(ours: u8, theirs: u8) -> bool {
    let grid = cells(1);
    let mut core = Core::new(1);
    core.known_as(peer(ours));
    core.peer_up(Time(0), peer(theirs), NEAR);
    core.peer_up(Time(0), peer(100), far(2));
    core.fetch(Time(0), &grid, &Bitfield::empty(1), Priority::Root, Order::Rarest);
    core.message(Time(0), peer(theirs), &Message::Interested { blob: grid.blob() });
    has(&mut core, 100, &grid, &[0]);
    let mut now = Time(0);
    let id = loop {
        let requests = |output| match output {
            Output::Request { id, .. } => Some(id),
            _ => None,
        };
        if let Some(id) = drain(&mut core).into_iter().find_map(requests) {
            break id;
        }
        now = core.deadline().unwrap();
        assert!(now <= Time(100 * MS), "nobody imports");
        core.tick(now);
    };
    let claim = Message::Fetching { blob: grid.blob(), runs: vec![Run { first: 0, count: 1 }] };
    core.message(now.after(30 * MS), peer(theirs), &claim);
    drain(&mut core).contains(&Output::Cancel(id))
}

#[test]
fn of_two_whose_claims_cross_one_gives_way() {
    for other in 1..20 {
        assert_ne!(gives_way(0, other), gives_way(other, 0), "nodes 0 and {other}");
    }
}
