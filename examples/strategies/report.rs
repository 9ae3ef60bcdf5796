//! What came of a run.

use std::fmt::Write;

use serde::Serialize;

use crate::node::Mode;

/// One run, in numbers. The module documentation of the example says what each means.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) mode: Mode,
    pub(crate) nodes: u8,
    pub(crate) ops: usize,
    pub(crate) success: usize,
    pub(crate) failed: usize,
    pub(crate) lost: usize,
    #[serde(serialize_with = "rounded")]
    pub(crate) duration_s: f64,
    #[serde(serialize_with = "rounded")]
    pub(crate) writes_per_s: f64,
    #[serde(serialize_with = "rounded")]
    pub(crate) reads_per_s: f64,
}

impl Report {
    /// Whether nothing is lost that the mode promised to keep.
    pub(crate) fn keeps_its_promise(&self) -> bool {
        self.mode == Mode::Async || self.lost == 0
    }

    pub(crate) fn json(&self) -> String {
        serde_json::to_string(self).expect("numbers and names are JSON")
    }

    pub(crate) fn table(&self) -> String {
        let rows = [
            ("mode", self.mode.to_string()),
            ("nodes", self.nodes.to_string()),
            ("success", format!("{}/{}", self.success, self.ops)),
            ("failed", self.failed.to_string()),
            ("lost", format!("{} ({})", self.lost, self.promise())),
            ("duration", format!("{:.1} s", self.duration_s)),
            ("writes", format!("{:.0} /s", self.writes_per_s)),
            ("reads", format!("{:.0} /s", self.reads_per_s)),
        ];
        let mut text = String::new();
        for (name, value) in rows {
            writeln!(text, "{name:<10} {value}").expect("it is memory");
        }
        text.truncate(text.trim_end().len());
        text
    }

    fn promise(&self) -> &'static str {
        match self.mode {
            Mode::Sync => "promised: 0, with a majority of the copies left",
            Mode::Async => "possible: what the killed node had acknowledged and not passed on",
            Mode::ServerSide => "promised: 0, with one in-sync copy left",
        }
    }
}

/// Tenths are more than such a run can tell.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn rounded<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((value * 10.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_promised_can_be_broken() {
        let check = |mode, lost, expect: bool| {
            let report = Report {
                mode,
                nodes: 6,
                ops: 10,
                success: 10,
                failed: 0,
                lost,
                duration_s: 1.0,
                writes_per_s: 10.0,
                reads_per_s: 10.0,
            };
            assert_eq!(report.keeps_its_promise(), expect, "{mode} {lost}");
        };
        check(Mode::Sync, 0, true);
        check(Mode::Sync, 1, false);
        check(Mode::ServerSide, 1, false);
        check(Mode::Async, 1, true);
    }
}
