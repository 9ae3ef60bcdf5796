//! How many copies are enough where clients write and read the copies by themselves.
//!
//! A write is sent to every replica and counts with a majority of them. A read asks in-sync replicas
//! alone, since a replica that is still being copied may miss what was written before it came, and it
//! asks so many that one of them has what any counted write left:
//!
//! - a majority of the in-sync set: whatever was lost with replicas that went, one of them has;
//! - more than the replicas that a counted write may have left out.
//!
//! A replica comes with a copy from as many in-sync replicas as a read asks, each of which refuses
//! from then on what was routed by a record that does not name the newcomer. So a write that counts
//! under an older record either reached one of them before it was copied, or is refused by so many that
//! it never counts.

/// How many of `replicas` copies a write needs.
#[must_use]
pub fn for_write(replicas: usize) -> usize {
    replicas / 2 + 1
}

/// How many of the `in_sync` copies a read, or a copy of the partition, needs where there are
/// `replicas` in all.
#[must_use]
pub fn for_read(replicas: usize, in_sync: usize) -> usize {
    let majority = in_sync / 2 + 1;
    majority.max(replicas + 1 - for_write(replicas))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_meets_every_write_and_half_of_the_in_sync_copies_are_never_enough() {
        for replicas in 1..=9 {
            for in_sync in 1..=replicas {
                let read = for_read(replicas, in_sync);
                assert!(for_write(replicas) + read > replicas, "{replicas} {in_sync}");
                assert!(2 * read > in_sync, "{replicas} {in_sync}");
            }
        }
    }

    #[test]
    fn three_copies_need_two_and_a_fourth_that_comes_needs_three_for_a_write() {
        let check = |replicas, in_sync, expect: (usize, usize)| {
            assert_eq!((for_write(replicas), for_read(replicas, in_sync)), expect, "{replicas} {in_sync}");
        };
        check(3, 3, (2, 2));
        check(3, 2, (2, 2));
        check(4, 3, (3, 2));
        check(4, 4, (3, 3));
        check(2, 2, (2, 2));
        check(1, 1, (1, 1));
    }
}
