//! Chunks that something waits for.

use super::*;

fn requests(core: &mut Core) -> Vec<(RequestId, Run)> {
    let request = |output| match output {
        Output::Request { id, run, .. } => Some((id, run)),
        _ => None,
    };
    drain(core).into_iter().filter_map(request).collect()
}

#[test]
fn what_is_waited_for_comes_before_what_is_rarer() {
    let grid = Arc::new(Grid::new(blob(0), vec![1 << 20; 40]));
    let mut core = Core::new(1);
    core.peer_up(Time(0), peer(0), PeerHint::default());
    core.peer_up(Time(0), peer(1), PeerHint::default());
    core.fetch(Time(0), &grid, &Bitfield::empty(40), Priority::Root, Order::Rarest);
    core.first(Time(0), grid.blob(), Run { first: 30, count: 5 });
    // The second neighbour makes the waited for the most common.
    let mut have = Bitfield::empty(40);
    for chunk in 30..35 {
        have.insert(chunk);
    }
    core.message(Time(0), peer(1), &Message::Bitfield { blob: grid.blob(), have });
    core.message(Time(0), peer(0), &Message::Bitfield { blob: grid.blob(), have: Bitfield::full(40) });
    let mut order = Vec::new();
    loop {
        let asked = requests(&mut core);
        if asked.is_empty() {
            break;
        }
        for (id, run) in asked {
            order.extend(run.chunks());
            core.stored(Time(0), grid.blob(), run);
            core.finished(Time(0), id, Ok(()));
        }
    }
    assert_eq!(order.len(), 40);
    let mut began = order[..5].to_vec();
    began.sort_unstable();
    assert_eq!(began, [30, 31, 32, 33, 34], "{order:?}");
}
