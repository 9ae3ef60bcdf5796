//! The hooks of this node, and its leases.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::PoisonError;

use clusterkit_core::handoff::{Progress, Stage};

use super::collect::Sheet;
use crate::handle::ClusterKit;

/// Every stage has its series from the start, so that a rate over the first one is none of nothing.
const STAGES: [Stage; 5] = [Stage::Prepare, Stage::CatchUp, Stage::Seal, Stage::Activate, Stage::Release];

/// What is counted over the hooks under way. There is no series for each partition: there may be many.
#[derive(Debug, Default, PartialEq, Eq)]
struct Hooks {
    running: BTreeMap<Stage, u64>,
    overdue: BTreeMap<Stage, u64>,
    bytes_copied: u64,
    /// Of those copies that tell how large they will be.
    bytes_left: u64,
}

impl Hooks {
    fn of(ck: &ClusterKit) -> Self {
        let mut hooks = Self::default();
        for status in ck.stages() {
            let (running, overdue) = (status.running, status.overdue_since.is_some());
            hooks.add(status.stage, running, overdue, status.progress.unwrap_or_default());
        }
        hooks
    }

    fn add(&mut self, stage: Stage, running: bool, overdue: bool, progress: Progress) {
        *self.running.entry(stage).or_default() += u64::from(running);
        *self.overdue.entry(stage).or_default() += u64::from(overdue);
        let left = progress.bytes_total.map_or(0, |total| total.saturating_sub(progress.bytes));
        self.bytes_copied = self.bytes_copied.saturating_add(progress.bytes);
        self.bytes_left = self.bytes_left.saturating_add(left);
    }
}

/// One row for each stage.
fn rows(counts: &BTreeMap<Stage, u64>) -> [(&'static str, u64); 5] {
    STAGES.map(|stage| (stage.as_str(), counts.get(&stage).copied().unwrap_or_default()))
}

pub(super) fn hook_metrics(sheet: &mut Sheet<'_>, ck: &ClusterKit) -> fmt::Result {
    let hooks = Hooks::of(ck);
    let overruns = ck.shared().counters.overruns.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let help = "Hooks of this node that passed their deadline.";
    sheet.counters("clusterkit_hook_overruns", help, "stage", rows(&overruns))?;
    let help = "Hooks that run on this node just now.";
    sheet.gauges("clusterkit_hooks_running", help, "stage", rows(&hooks.running))?;
    let help = "Hooks of this node that are past their deadline and not done.";
    sheet.gauges("clusterkit_hooks_overdue", help, "stage", rows(&hooks.overdue))?;
    let help = "Bytes that the hooks under way on this node have copied so far, as they say.";
    sheet.gauge("clusterkit_hook_copied_bytes", help, hooks.bytes_copied)?;
    let help = "Bytes that those of them still have to copy that say how many there are.";
    sheet.gauge("clusterkit_hook_remaining_bytes", help, hooks.bytes_left)
}

pub(super) fn lease_metrics(sheet: &mut Sheet<'_>, ck: &ClusterKit) -> fmt::Result {
    let leases = &ck.shared().leases;
    let open = u64::try_from(leases.open_count()).unwrap_or(u64::MAX);
    sheet.gauge("clusterkit_leases", "Partitions that this node may write just now.", open)?;
    let help =
        "For how long this node may write if the control plane is never heard again; 0 for not at all.";
    let left = leases.support().until().since(ck.shared().now()).as_secs_f64();
    sheet.gauge("clusterkit_lease_support_seconds", help, left)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_are_counted_by_stage_and_copies_added_up() {
        let progress = |bytes, bytes_total| Progress { bytes, bytes_total };
        let mut hooks = Hooks::default();
        hooks.add(Stage::CatchUp, true, true, progress(10, Some(100)));
        hooks.add(Stage::CatchUp, true, false, progress(7, None));
        hooks.add(Stage::CatchUp, false, true, progress(30, Some(20)));
        hooks.add(Stage::Seal, false, false, Progress::default());
        let running = [("prepare", 0), ("catch_up", 2), ("seal", 0), ("activate", 0), ("release", 0)];
        assert_eq!(rows(&hooks.running), running);
        let overdue = [("prepare", 0), ("catch_up", 2), ("seal", 0), ("activate", 0), ("release", 0)];
        assert_eq!(rows(&hooks.overdue), overdue);
        assert_eq!((hooks.bytes_copied, hooks.bytes_left), (47, 90));
    }
}
