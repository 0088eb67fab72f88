//! The releases of which a node has heard.

use fabric::swarm::Announcement;

/// Announced releases that are remembered: what peers say is not checked, so it is bounded.
const MAX_HEARD: usize = 64;

/// Releases that peers announced, as they came.
#[derive(Debug, Default)]
pub(crate) struct Heard(Vec<Announcement>);

impl Heard {
    /// Takes note of one; of too many the first is forgotten.
    pub(crate) fn add(&mut self, announcement: &Announcement) {
        self.0.retain(|known| known != announcement);
        if self.0.len() == MAX_HEARD {
            self.0.remove(0);
        }
        self.0.push(announcement.clone());
    }

    /// Those of the image `name`, newest first.
    pub(crate) fn of(&self, name: &str) -> Vec<Announcement> {
        let mut of: Vec<_> = self.0.iter().filter(|known| known.name == name).cloned().collect();
        of.sort_by_key(|known| std::cmp::Reverse(known.generation));
        of
    }
}

#[cfg(test)]
mod tests {
    use fabric::id::{Hash, ObjectId};
    use fabric::swarm::AnnouncedKind;

    use super::*;

    #[test]
    fn announcements_are_kept_by_name_newest_first_and_bounded() {
        let announce = |name: &str, generation| Announcement {
            kind: AnnouncedKind::Release,
            name: name.into(),
            generation,
            object: ObjectId(Hash::of(name.as_bytes())),
        };
        let mut heard = Heard::default();
        for generation in [2, 9, 2, 5] {
            heard.add(&announce("a", generation));
        }
        heard.add(&announce("b", 7));
        let generations =
            |heard: &Heard, name| heard.of(name).iter().map(|one| one.generation).collect::<Vec<_>>();
        assert_eq!((generations(&heard, "a"), generations(&heard, "b")), (vec![9, 5, 2], vec![7]));
        for generation in 0..1000 {
            heard.add(&announce("b", generation));
        }
        assert_eq!((heard.0.len(), generations(&heard, "b")[0]), (MAX_HEARD, 999));
    }
}
