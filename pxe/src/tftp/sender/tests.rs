//! The sender against single packets, and against a model client over a seeded network that loses, repeats and reorders.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn agreed(windowsize: u16, oack: bool) -> Agreed {
    Agreed { blksize: 10, windowsize, timeout: None, oack: oack.then(|| b"oack".to_vec()) }
}

/// Takes all transmissions as blocks, marked as sent at `now`.
fn drain(sender: &mut Sender, now: Instant) -> Vec<u64> {
    let mut blocks = Vec::new();
    while let Some(transmit) = sender.poll_transmit() {
        match transmit {
            Transmit::Oack(_) => blocks.push(0),
            Transmit::Data(range) => blocks.extend(range),
        }
        sender.sent(now);
    }
    blocks
}

#[test]
fn lock_step_to_a_short_last_block() {
    let now = Instant::now();
    let mut sender = Sender::new(agreed(1, false), 25);
    assert_eq!(drain(&mut sender, now), [1]);
    for block in 1..=2 {
        sender.on_ack(block, now);
        assert_eq!(drain(&mut sender, now), [u64::from(block) + 1]);
    }
    sender.on_ack(3, now);
    assert_eq!(sender.verdict(), Some(&Verdict::Complete));
    assert_eq!((sender.bytes_acked(), sender.deadline()), (25, None));
}

#[test]
fn t5_an_exact_multiple_ends_with_an_empty_block() {
    let now = Instant::now();
    for (len, last) in [(0, 1), (9, 1), (10, 2), (20, 3)] {
        let mut sender = Sender::new(agreed(8, false), len);
        assert_eq!(drain(&mut sender, now).last(), Some(&last), "{len} bytes");
    }
}

#[test]
fn t1_an_error_after_the_oack_is_a_probe() {
    let now = Instant::now();
    let mut sender = Sender::new(agreed(4, true), 100);
    assert_eq!(drain(&mut sender, now), [0]);
    sender.on_error(8, "User aborted the transfer".into());
    assert_eq!(sender.verdict(), Some(&Verdict::Probe));
    let mut sender = Sender::new(agreed(4, true), 100);
    drain(&mut sender, now);
    sender.on_ack(0, now);
    sender.on_error(3, "disk full".into());
    assert_eq!(sender.verdict(), Some(&Verdict::Aborted { code: 3, message: "disk full".into() }));
}

#[test]
fn nothing_is_sent_before_the_oack_is_acknowledged() {
    let now = Instant::now();
    let mut sender = Sender::new(agreed(4, true), 100);
    drain(&mut sender, now);
    for number in [1, 4, 65_535] {
        sender.on_ack(number, now);
        assert!(drain(&mut sender, now).is_empty());
    }
    assert!(!sender.answered());
    sender.on_ack(0, now);
    assert!(sender.answered());
    assert_eq!(drain(&mut sender, now), [1, 2, 3, 4]);
}

#[test]
fn an_ack_inside_the_window_restarts_there() {
    let now = Instant::now();
    let mut sender = Sender::new(agreed(4, false), 100);
    assert_eq!(drain(&mut sender, now), [1, 2, 3, 4]);
    sender.on_ack(2, now);
    assert_eq!(drain(&mut sender, now), [3, 4, 5, 6]);
    sender.on_ack(6, now);
    assert_eq!(drain(&mut sender, now), [7, 8, 9, 10]);
}

#[test]
fn duplicate_old_and_foreign_acks_send_nothing() {
    let now = Instant::now();
    let mut sender = Sender::new(agreed(2, false), 1000);
    drain(&mut sender, now);
    sender.on_ack(2, now);
    assert_eq!(drain(&mut sender, now), [3, 4]);
    for number in [2, 2, 1, 0, 5, 40_000] {
        sender.on_ack(number, now);
        assert!(drain(&mut sender, now).is_empty(), "ACK {number}");
    }
}

#[test]
fn a_duplicate_ack_brings_the_repetition_forward_once() {
    let mut now = Instant::now();
    let mut sender = Sender::new(agreed(2, false), 1000);
    drain(&mut sender, now);
    now += MS;
    sender.on_ack(2, now);
    drain(&mut sender, now);
    let before = sender.deadline().unwrap();
    sender.on_ack(2, now + MS);
    let hinted = sender.deadline().unwrap();
    assert!(hinted < before && hinted > now + MS);
    sender.on_timeout(hinted);
    assert_eq!(drain(&mut sender, hinted), [3, 4]);
    let after = sender.deadline().unwrap();
    sender.on_ack(2, hinted + MS);
    assert_eq!(sender.deadline(), Some(after));
}

#[test]
fn silence_ends_the_transfer() {
    let mut sender = Sender::new(agreed(2, true), 1000);
    let start = Instant::now();
    drain(&mut sender, start);
    let mut sent = 1;
    while let Some(deadline) = sender.deadline() {
        sender.on_timeout(deadline);
        sent += drain(&mut sender, deadline).len();
        assert!(deadline - start < Duration::from_secs(60));
    }
    assert_eq!((sent, sender.verdict()), (9, Some(&Verdict::TimedOut)));
}

#[test]
fn a_rom_that_never_acknowledges_the_end_is_no_failure() {
    let mut sender = Sender::new(agreed(1, false), 5);
    drain(&mut sender, Instant::now());
    while let Some(deadline) = sender.deadline() {
        sender.on_timeout(deadline);
        drain(&mut sender, deadline);
    }
    assert_eq!(sender.verdict(), Some(&Verdict::Unacknowledged));
}

#[test]
fn t5_block_numbers_roll_over() {
    let now = Instant::now();
    let blocks = 200_000u64;
    let mut sender = Sender::new(agreed(7, false), blocks * 10);
    let mut expected = 1;
    while sender.verdict().is_none() {
        for block in drain(&mut sender, now) {
            assert_eq!(block, expected);
            expected += 1;
        }
        sender.on_ack((expected - 1) as u16, now);
    }
    assert_eq!(expected - 1, blocks + 1);
}

/// What travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Message {
    Oack,
    Data(u64),
    Ack(u16),
}

/// A receiver after RFC 7440: acknowledges each full window, the last block, and on a gap the last block in sequence.
struct Client {
    windowsize: u64,
    last: u64,
    received: u64,
    since_ack: u64,
    timer: Instant,
}

impl Client {
    const TIMER: Duration = Duration::from_secs(1);

    fn on_message(&mut self, message: Message, now: Instant) -> Option<Message> {
        let block = match message {
            Message::Oack => 0,
            Message::Data(block) => block,
            Message::Ack(_) => unreachable!("clients get no ACK"),
        };
        if block == self.received + 1 {
            self.received = block;
            self.since_ack += 1;
            self.timer = now + Self::TIMER;
            if self.since_ack < self.windowsize && block < self.last {
                return None;
            }
        }
        self.ack()
    }

    fn ack(&mut self) -> Option<Message> {
        self.since_ack = 0;
        Some(Message::Ack(self.received as u16))
    }
}

/// A network whose faults follow from a seed.
struct Network {
    random: u64,
    loss: u64,
    duplication: u64,
    reordering: u64,
    serial: u64,
    in_flight: BinaryHeap<Reverse<(Instant, u64, Message)>>,
}

impl Network {
    /// True with a chance of `percent`.
    fn chance(&mut self, percent: u64) -> bool {
        // xorshift64*
        self.random ^= self.random >> 12;
        self.random ^= self.random << 25;
        self.random ^= self.random >> 27;
        (self.random.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % 100 < percent
    }

    fn send(&mut self, message: Message, now: Instant) {
        let copies = if self.chance(self.loss) { 0 } else { 1 + usize::from(self.chance(self.duplication)) };
        for _ in 0..copies {
            let delay = if self.chance(self.reordering) { 3 * MS } else { MS };
            self.serial += 1;
            self.in_flight.push(Reverse((now + delay, self.serial, message)));
        }
    }
}

/// Runs a transfer to its end; returns the verdict, blocks received and blocks sent.
fn simulate(mut network: Network, windowsize: u16, blocks: u64) -> (Option<Verdict>, u64, u64) {
    let mut now = Instant::now();
    let mut sender = Sender::new(agreed(windowsize, true), (blocks - 1) * 10 + 3);
    let mut client = Client {
        windowsize: u64::from(windowsize),
        last: blocks,
        received: 0,
        since_ack: 0,
        timer: now + Client::TIMER,
    };
    let mut sent = 0;
    for _ in 0..1_000_000 {
        while let Some(transmit) = sender.poll_transmit() {
            match transmit {
                Transmit::Oack(_) => network.send(Message::Oack, now),
                Transmit::Data(range) => {
                    sent += range.end() - range.start() + 1;
                    range.for_each(|block| network.send(Message::Data(block), now));
                }
            }
            sender.sent(now);
        }
        let Some(deadline) = sender.deadline() else { break };
        let arrival = network.in_flight.peek().map(|Reverse((at, ..))| *at);
        let client_timer = (client.received < client.last).then_some(client.timer);
        now = [Some(deadline), arrival, client_timer].into_iter().flatten().min().unwrap_or(now).max(now);
        if arrival.is_some_and(|at| at <= now) {
            let Some(Reverse((_, _, message))) = network.in_flight.pop() else { unreachable!() };
            match message {
                Message::Ack(number) => sender.on_ack(number, now),
                other => {
                    if let Some(ack) = client.on_message(other, now) {
                        network.send(ack, now);
                    }
                }
            }
        } else if client_timer.is_some_and(|at| at <= now) {
            client.timer = now + Client::TIMER;
            if let Some(ack) = client.ack() {
                network.send(ack, now);
            }
        } else {
            sender.on_timeout(now);
        }
    }
    (sender.verdict().cloned(), client.received, sent)
}

fn network(seed: u64, loss: u64, duplication: u64, reordering: u64) -> Network {
    Network { random: seed | 1, loss, duplication, reordering, serial: 0, in_flight: BinaryHeap::new() }
}

#[test]
fn t6_a_network_that_doubles_everything_starts_no_avalanche() {
    for windowsize in [1, 4, 16] {
        let (verdict, received, sent) = simulate(network(1, 0, 100, 0), windowsize, 1000);
        assert_eq!((verdict, received), (Some(Verdict::Complete), 1000));
        if windowsize == 1 {
            assert_eq!(sent, 1000);
        }
        assert!(sent <= 3000, "window {windowsize}: {sent} blocks sent for 1000");
    }
}

#[test]
fn a_clean_network_carries_every_block_once() {
    for windowsize in [1, 3, 64] {
        assert_eq!(
            simulate(network(1, 0, 0, 0), windowsize, 70_000),
            (Some(Verdict::Complete), 70_000, 70_000)
        );
    }
}

proptest! {
    #[test]
    fn the_file_arrives_whole(
        seed in any::<u64>(), loss in 0u64..15, duplication in 0u64..20, reordering in 0u64..10,
        windowsize in 1u16..33, blocks in 1u64..400,
    ) {
        let (verdict, received, sent) = simulate(network(seed, loss, duplication, reordering), windowsize, blocks);
        prop_assert_eq!(received, blocks);
        prop_assert!(matches!(verdict, Some(Verdict::Complete | Verdict::Unacknowledged)), "{:?}", verdict);
        // Going back by whole windows costs at most about a window per fault.
        prop_assert!(sent <= blocks * (2 + u64::from(windowsize)), "{sent} sent for {blocks}");
    }

    #[test]
    fn no_sequence_of_inputs_panics(inputs in proptest::collection::vec((0u8..4, any::<u16>(), 0u64..3000), 0..200)) {
        let mut now = Instant::now();
        let mut sender = Sender::new(agreed(16, true), 5000);
        for (kind, number, pause) in inputs {
            now += MS * u32::try_from(pause).unwrap();
            match kind {
                0 => sender.on_ack(number, now),
                1 => sender.on_ack(number % 64, now),
                2 => sender.on_timeout(now),
                _ if number % 16 == 0 => sender.on_error(number, String::new()),
                _ => {}
            }
            drain(&mut sender, now);
            prop_assert!(sender.bytes_acked() <= 5000);
            prop_assert!(sender.deadline().is_some() != sender.verdict().is_some());
        }
    }
}
