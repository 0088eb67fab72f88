//! Who is a neighbour of whom, and who stands where.

use std::collections::{BTreeMap, BTreeSet};

use super::super::core::rng::Rng;
use super::Scenario;
use super::net::NodeIndex;

/// The rack of each node.
pub(super) fn racks(scenario: &Scenario) -> Vec<u32> {
    let (nodes, racks) = (u64::from(scenario.nodes) + 1, u64::from(scenario.racks.count.max(1)));
    (0..nodes).map(|node| u32::try_from(node * racks / nodes).unwrap_or(u32::MAX)).collect()
}

/// The neighbours of each node: all others, or `degree` of them. Where racks count, `near` of those stand in its own.
pub(super) fn neighbours(scenario: &Scenario, racks: &[u32], rng: &mut Rng) -> Vec<Vec<NodeIndex>> {
    let all: Vec<NodeIndex> = (0..=scenario.nodes).collect();
    let mut edges = BTreeSet::new();
    let near = scenario.racks.near.min(scenario.degree);
    if scenario.racks.count > 1 && near > 0 {
        for mates in all.chunk_by(|&one, &other| racks.get(one as usize) == racks.get(other as usize)) {
            mesh(mates, near, rng, &mut edges);
        }
        let mut far = BTreeSet::new();
        mesh(&all, (scenario.degree - near).max(2), rng, &mut far);
        edges.extend(
            far.into_iter().filter(|&(one, other)| racks.get(one as usize) != racks.get(other as usize)),
        );
    } else {
        mesh(&all, scenario.degree, rng, &mut edges);
    }
    let mut neighbours = vec![Vec::new(); all.len()];
    for (one, other) in edges {
        for (from, to) in [(one, other), (other, one)] {
            if let Some(list) = neighbours.get_mut(from as usize) {
                list.push(to);
            }
        }
    }
    neighbours
}

/// Everybody with everybody, or `degree` neighbours for each node at least: the union of `degree / 2` random rings, and random
/// ones for those that the rings gave fewer because some coincide. A node does not stop dialling before it has as many either.
fn mesh(nodes: &[NodeIndex], degree: u32, rng: &mut Rng, edges: &mut BTreeSet<(NodeIndex, NodeIndex)>) {
    if degree as usize + 1 >= nodes.len() {
        for (place, &one) in nodes.iter().enumerate() {
            edges.extend(nodes.iter().skip(place + 1).map(|&other| (one, other)));
        }
        return;
    }
    for _ in 0..(degree / 2).max(1) {
        let mut ring: Vec<(u64, NodeIndex)> = nodes.iter().map(|&node| (rng.next(), node)).collect();
        ring.sort_unstable();
        let next = ring.iter().cycle().skip(1);
        edges.extend(ring.iter().zip(next).map(|(&(_, a), &(_, b))| (a.min(b), a.max(b))));
    }
    top_up(nodes, degree, rng, edges);
}

/// Gives each of `nodes` that has fewer than `degree` of the others for neighbours as many.
fn top_up(nodes: &[NodeIndex], degree: u32, rng: &mut Rng, edges: &mut BTreeSet<(NodeIndex, NodeIndex)>) {
    let mut degrees: BTreeMap<NodeIndex, u32> = nodes.iter().map(|&node| (node, 0)).collect();
    let mut count = |node: NodeIndex| {
        if let Some(count) = degrees.get_mut(&node) {
            *count += 1;
        }
    };
    for &(one, other) in edges.iter() {
        count(one);
        count(other);
    }
    for &node in nodes {
        while degrees.get(&node).is_some_and(|&count| count < degree) {
            let place = usize::try_from(rng.within(nodes.len() as u64)).unwrap_or(0);
            let Some(&other) = nodes.get(place).filter(|&&other| other != node) else { continue };
            if edges.insert((node.min(other), node.max(other))) {
                for end in [node, other] {
                    degrees.entry(end).and_modify(|count| *count += 1);
                }
            }
        }
    }
}

/// Bytes per second of each node's link, up and down.
pub(super) fn rates(scenario: &Scenario, rng: &mut Rng) -> Vec<(u64, u64)> {
    let range = scenario.rate * u64::from(scenario.spread.min(90)) / 100;
    let mut rate = || if range == 0 { scenario.rate } else { scenario.rate - range + rng.within(2 * range) };
    let others: Vec<(u64, u64)> = (0..scenario.nodes).map(|_| (rate(), rate())).collect();
    std::iter::once((scenario.rate, scenario.rate)).chain(others).collect()
}

/// Chunk lengths from a quarter of the mean to seven quarters of it.
pub(super) fn chunks(scenario: &Scenario, rng: &mut Rng) -> Vec<u32> {
    let mut lengths = Vec::new();
    let mut left = scenario.size;
    while left > 0 {
        let mean = u64::from(scenario.chunk);
        let length = (mean / 4 + rng.within(mean * 3 / 2)).clamp(1, left);
        lengths.push(u32::try_from(length).unwrap_or(u32::MAX));
        left -= length;
    }
    lengths
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rack_knows_itself_and_a_part_of_the_others() {
        let scenario = Scenario { degree: 20, ..Scenario::flash_crowd(99, 1 << 20, 1 << 20) }.in_racks(10, 4);
        let racks = racks(&scenario);
        assert!((0..10).all(|rack| racks.iter().filter(|&&of| of == rack).count() == 10));
        let neighbours = neighbours(&scenario, &racks, &mut Rng::new(1));
        for (node, others) in neighbours.iter().enumerate() {
            let near = others.iter().filter(|&&other| racks[other as usize] == racks[node]).count();
            assert_eq!(near, 9, "of node {node}");
            assert!((5..=16).contains(&(others.len() - near)), "{} far ones of {node}", others.len() - near);
        }
    }

    #[test]
    fn nobody_has_fewer_neighbours_than_asked_for() {
        let scenario = Scenario { degree: 16, ..Scenario::flash_crowd(60, 1 << 20, 1 << 20) };
        let neighbours = neighbours(&scenario, &racks(&scenario), &mut Rng::new(1));
        assert!(neighbours.iter().all(|others| (16..=24).contains(&others.len())), "{neighbours:?}");
    }
}
