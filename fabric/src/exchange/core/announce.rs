//! When to tell the neighbours which cells are newly held.
//!
//! A cell that nobody but a seeder has besides us is announced soon: the swarm waits for it. One that others have too is
//! announced with many more later: on a 25 Mbit/s link with 31 neighbours, a message for each cell would take a tenth of the
//! link, and more CPU time than hashing and serving the cells.
//!
//! Simulated with 16 and 32 nodes: waiting 2 ms and 300 ms, with three holders still rare, sends 3.5 and 2.4 times as many
//! messages, and the last node is done no sooner. Waiting 250 ms for rare cells costs 2 and 5 per cent of the time.

use super::time::{MS, Time};

/// Wait before a cell is announced that nobody in our rack has besides us, where there are other racks: the rack waits for it, and
/// other racks that have not got it, and they come one by one anyway. Simulated with 25 racks of 40, waiting as for a rare cell
/// costs 3 per cent of the time and saves a tenth of the messages.
const SOLE_WAIT: u64 = 10 * MS;
/// Wait before a rare cell is announced: gathers what comes in one burst.
const RARE_WAIT: u64 = 100 * MS;
/// Wait before a common cell is announced.
const COMMON_WAIT: u64 = 500 * MS;
/// A cell with fewer holders than this besides us is rare. The seeder counts as one.
const RARE: u16 = 2;

/// Cells to announce and when.
#[derive(Debug, Default)]
pub(crate) struct Announcer {
    cells: Vec<u32>,
    due: Option<Time>,
}

impl Announcer {
    /// `cell` is held now; `holders` neighbours have it too, a seeder among them, or none in our rack.
    pub(crate) fn add(&mut self, now: Time, cell: u32, holders: u16) {
        let due = now.after(match holders {
            0 => SOLE_WAIT,
            1..RARE => RARE_WAIT,
            _ => COMMON_WAIT,
        });
        self.cells.push(cell);
        self.due = Some(self.due.map_or(due, |old| old.min(due)));
    }

    /// When the next announcement is due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.due
    }

    /// The cells to announce now, ascending, if it is time.
    pub(crate) fn take(&mut self, now: Time) -> Option<Vec<u32>> {
        if self.due.is_none_or(|due| due > now) {
            return None;
        }
        self.due = None;
        let mut cells = std::mem::take(&mut self.cells);
        cells.sort_unstable();
        Some(cells)
    }
}
