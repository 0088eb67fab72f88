use super::*;

fn node(n: u8) -> NodeId {
    NodeId(Hash::from_bytes([n; 32]))
}

fn at(n: u16) -> SocketAddr {
    ([10, 0, 0, 1], n).into()
}

#[test]
fn first_peers_are_dialled_at_once_and_again_with_growing_pauses() {
    let now = Instant::now();
    let mut policy = DialPolicy::new(node(5), 32);
    policy.learn(at(1), Source::First, now);
    assert_eq!(policy.poll(now), [at(1)]);
    assert_eq!((policy.poll(now), policy.next_deadline()), (vec![], None));
    let mut last = now;
    for failures in 0..20u32 {
        policy.failed(at(1), last);
        let next = policy.next_deadline().unwrap();
        assert_eq!(next - last, (BACK_OFF * (1 << failures.min(10))).min(LONGEST_BACK_OFF));
        assert_eq!(policy.poll(next), [at(1)]);
        last = next;
    }
}

#[test]
fn the_newcomer_dials_and_who_hears_of_it_yields() {
    let now = Instant::now();
    let mut policy = DialPolicy::new(node(5), 32);
    policy.learn(at(3), Source::Listed(node(3)), now);
    policy.learn(at(4), Source::Heard(node(4)), now);
    policy.learn(at(6), Source::Heard(node(6)), now);
    policy.learn(at(5), Source::Heard(node(5)), now);
    policy.learn(at(7), Source::Heard(node(7)), now);
    policy.learn(at(7), Source::Listed(node(7)), now);
    policy.learn(at(8), Source::Heard(node(8)), now);
    policy.arriving(node(8));
    let mut first = policy.poll(now);
    first.sort();
    assert_eq!(first, [at(3), at(7)]);
    assert_eq!(policy.poll(now + YIELD), [at(6)]);
    policy.left(node(8));
    assert_eq!(policy.poll(now + YIELD), [at(8)]);
    assert_eq!(policy.poll(now + 2 * YIELD), [at(4)]);
    policy.connected(node(4), None);
    policy.failed(at(4), now);
    assert_eq!(policy.poll(now + Duration::from_secs(99)), []);
}

#[test]
fn the_target_bounds_connections_and_one_node_is_dialled_at_one_address_only() {
    let now = Instant::now();
    let mut policy = DialPolicy::new(node(0), 3);
    for n in 1..20 {
        policy.learn(at(n), Source::Listed(node(1 + u8::try_from(n).unwrap())), now);
    }
    let dialled = policy.poll(now);
    assert_eq!(dialled.len(), 3);
    for at in &dialled {
        policy.connected(node(1 + u8::try_from(at.port()).unwrap()), Some(*at));
    }
    assert_eq!((policy.poll(now), policy.next_deadline()), (vec![], None));
    policy.disconnected(node(1 + u8::try_from(dialled[0].port()).unwrap()), false, now);
    assert_eq!(policy.poll(now).len(), 1);
}

#[test]
fn more_are_dialled_for_a_while_when_those_connected_are_not_enough() {
    let now = Instant::now();
    let mut policy = DialPolicy::new(node(0), 3);
    let other = |n: u16| node(u8::try_from(n).unwrap());
    (1..200).for_each(|n| policy.learn(at(n), Source::Listed(other(n)), now));
    let mut count = 0;
    let mut dial_all = |policy: &mut DialPolicy, now| {
        loop {
            let dialled = policy.poll(now);
            if dialled.is_empty() {
                return count;
            }
            count += dialled.len();
            dialled.iter().for_each(|at| policy.connected(other(at.port()), Some(*at)));
        }
    };
    assert_eq!(dial_all(&mut policy, now), 3);
    policy.seek(now);
    assert_eq!(dial_all(&mut policy, now), 3 + SOUGHT);
    policy.seek(now);
    assert_eq!(policy.next_deadline(), Some(now));
    assert_eq!((dial_all(&mut policy, now + SEEKING), policy.next_deadline()), (3 + SOUGHT, None));
    for _ in 0..20 {
        policy.seek(now);
        dial_all(&mut policy, now);
    }
    assert_eq!(dial_all(&mut policy, now), MOST_SOUGHT);
}

#[test]
fn our_own_and_foreign_addresses_are_left_alone_and_dead_gossip_is_forgotten() {
    let now = Instant::now();
    let mut policy = DialPolicy::new(node(0), 32);
    policy.learn(at(1), Source::First, now);
    policy.learn(at(2), Source::Stranger(node(9)), now);
    assert_eq!(policy.poll(now).len(), 2);
    policy.ourselves(at(1));
    policy.foreign(at(2), now);
    assert_eq!(policy.poll(now + FOREIGN_PAUSE / 2), []);
    assert_eq!(policy.poll(now + FOREIGN_PAUSE), [at(2)]);
    for _ in 0..MAX_FAILURES {
        policy.failed(at(2), now);
    }
    assert_eq!(policy.poll(now + FOREIGN_PAUSE * 2), []);
    assert_eq!(policy.addresses.len(), 1);
}

#[test]
fn who_was_told_to_wait_goes_on_asking_and_who_was_admitted_is_dialled_at_once() {
    let now = Instant::now();
    let mut policy = DialPolicy::new(node(5), 32);
    policy.learn(at(1), Source::Stranger(node(1)), now);
    let mut time = now + YIELD;
    for _ in 0..2 * MAX_FAILURES {
        assert_eq!(policy.poll(time), [at(1)]);
        policy.waits(at(1), time);
        policy.failed(at(1), time);
        time += WAIT;
    }
    policy.hurry(at(1), node(1), time);
    policy.hurry(at(2), node(2), time);
    assert_eq!(policy.poll(time).len(), 2);
}

#[test]
fn strangers_are_dialled_whatever_the_degree() {
    let now = Instant::now();
    let mut policy = DialPolicy::new(node(0), 1);
    policy.connected(node(1), None);
    policy.learn(at(2), Source::Listed(node(2)), now);
    policy.learn(at(3), Source::Stranger(node(3)), now);
    assert_eq!(policy.next_deadline(), Some(now));
    assert_eq!((policy.poll(now), policy.next_deadline()), (vec![at(3)], None));
}

#[test]
fn dead_addresses_leave_room_for_new_ones_and_the_deadline_agrees() {
    let now = Instant::now();
    let mut policy = DialPolicy::new(node(0), 32);
    for n in 1..30 {
        policy.learn(at(n), Source::First, now);
    }
    for _ in 0..4 {
        for at in policy.poll(now) {
            policy.failed(at, now);
        }
    }
    let later = now + LONGEST_BACK_OFF;
    assert_eq!(policy.poll(later).len(), MAX_RETRYING);
    assert_eq!((policy.poll(later), policy.next_deadline()), (vec![], None));
    policy.learn(at(99), Source::Listed(node(99)), later);
    assert_eq!(policy.next_deadline(), Some(later));
    assert_eq!((policy.poll(later), policy.next_deadline()), (vec![at(99)], None));
}

#[test]
fn addresses_are_bounded() {
    let now = Instant::now();
    let mut policy = DialPolicy::new(node(0), 32);
    for n in 0..u16::MAX {
        policy.learn(at(n), Source::First, now);
    }
    assert_eq!(policy.addresses.len(), MAX_ADDRESSES);
}
