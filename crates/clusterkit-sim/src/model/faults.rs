//! What goes wrong: crashes, pauses, damage, failing disks, jumping clocks.

use super::limits::{NODES_MAX, PARTITIONS};
use super::rules::Rule;
use super::state::World;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// It is killed; what it wrote stays in the system's cache.
    Process,
    /// The machine loses power; what was not synced may be lost.
    Power,
}

impl World {
    /// Ends the process of `node`. `keeps` says how much a power cut leaves of what was not synced.
    pub(crate) fn crash(&mut self, node: usize, end: End, keeps: u8) -> bool {
        if !self.nodes[node].is_up {
            return false;
        }
        let state = &mut self.nodes[node];
        state.is_up = false;
        state.is_paused = false;
        state.inc = 0;
        state.promised = [0; NODES_MAX];
        state.promised_inc = [0; NODES_MAX];
        state.support = [0; NODES_MAX];
        if end == End::Power && !self.setting.is_synced {
            self.nodes[node].has_lost = true;
        }
        for partition in 0..PARTITIONS {
            self.leading[partition] = self.leading[partition].without(node);
            if end == End::Power {
                self.cut_power(node, partition, keeps);
            }
            let replica = &mut self.replicas[partition][node];
            replica.is_streaming = false;
            replica.commit = replica.mark;
            self.touch(node, partition);
        }
        true
    }

    /// Loses the tail that was not synced, or a part of it, and with it what was acknowledged of it.
    fn cut_power(&mut self, node: usize, partition: usize, keeps: u8) {
        let before = self.log_end(node, partition);
        let held = self.held_end(node, partition);
        let on_disk = self.replicas[partition][node].on_disk;
        let left = (before - on_disk).saturating_sub(keeps % 4);
        let to = before - left;
        if to < held {
            let ghost = &mut self.ghosts[partition];
            ghost.lost = ghost.lost.with(node);
        }
        self.truncate(node, partition, to);
    }

    /// D1, D2: the process of `node` starts and opens its logs; a log that lost what it knows to be
    /// committed is damaged.
    pub(crate) fn start(&mut self, node: usize) -> bool {
        if self.nodes[node].is_up {
            return false;
        }
        self.nodes[node].is_up = true;
        self.promise_everybody(node);
        for partition in 0..PARTITIONS {
            let end = self.log_end(node, partition);
            let notices = self.holds(Rule::DamageStepsOut);
            let replica = &mut self.replicas[partition][node];
            replica.durable = end;
            replica.on_disk = end;
            replica.is_damaged |= end < replica.mark && notices;
            replica.mark = replica.mark.min(end);
            replica.log_start = replica.log_start.min(end);
            replica.commit = replica.mark;
        }
        true
    }

    pub(crate) fn pause(&mut self, node: usize) -> bool {
        let is_changed = self.nodes[node].is_up && !self.nodes[node].is_paused;
        self.nodes[node].is_paused |= is_changed;
        is_changed
    }

    pub(crate) fn wake(&mut self, node: usize) -> bool {
        std::mem::take(&mut self.nodes[node].is_paused)
    }

    /// D2: records that were durable cannot be read any more; found at the next start.
    pub(crate) fn damage(&mut self, node: usize, partition: usize, loses: u8) -> bool {
        let end = self.log_end(node, partition);
        if self.nodes[node].is_up || end == 0 || self.replicas[partition][node].uid == 0 {
            return false;
        }
        let ghost = &mut self.ghosts[partition];
        ghost.lost = ghost.lost.with(node);
        let notices = self.holds(Rule::DamageStepsOut);
        self.truncate(node, partition, end.saturating_sub(1 + loses % 4));
        let replica = &mut self.replicas[partition][node];
        replica.is_damaged |= notices;
        if !notices {
            // Taken for a torn tail, and cut off.
            replica.mark = replica.mark.min(end.saturating_sub(1 + loses % 4));
        }
        replica.commit = replica.mark;
        true
    }

    /// D3: a sync fails, and the system forgets what it should have written.
    pub(crate) fn fail_sync(&mut self, node: usize, partition: usize) -> bool {
        let end = self.log_end(node, partition);
        let replica = &mut self.replicas[partition][node];
        if !self.nodes[node].is_up || replica.uid == 0 || replica.on_disk == end {
            return false;
        }
        if !self.holds(Rule::SyncErrorStops) {
            // The next sync says that all is well.
            self.replicas[partition][node].durable = end;
            return true;
        }
        self.cut_power(node, partition, 0);
        self.crash(node, End::Process, 0);
        if !self.setting.is_synced && self.holds(Rule::TaintAfterSyncError) {
            self.nodes[node].has_lost = true;
        }
        true
    }

    pub(crate) fn jump_wall(&mut self, node: usize, to: u8) -> bool {
        let is_changed = self.nodes[node].wall != to;
        self.nodes[node].wall = to;
        is_changed
    }

    /// Time passes, for every node by its own rate.
    pub(crate) fn pass(&mut self, units: u32) -> bool {
        self.now += units;
        true
    }
}
