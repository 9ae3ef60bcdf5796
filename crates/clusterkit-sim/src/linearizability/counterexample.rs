//! A history without an order, as short as it can be, and how it is shown.

use std::collections::BTreeMap;
use std::fmt;

use super::history::{History, HistoryError, Key, Moment, Operation, Outcome};
use super::schedule::Entry;
use super::shorten::Short;

/// Operations of one object that no order explains.
///
/// [`Display`](fmt::Display) draws them as a chart. Time runs to the right and is not to scale: what matters is which
/// operations had returned before others were invoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counterexample<I, O> {
    specification: &'static str,
    key: Key,
    count: usize,
    rows: Vec<Row<I, O>>,
    is_minimal: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Row<I, O> {
    operation: Operation<I, O>,
    /// Whether the counterexample is one whatever became of this operation.
    is_loose: bool,
}

impl<I: Clone, O: Clone> Counterexample<I, O> {
    /// Of what is left of `count` operations of one object.
    pub(super) fn new(specification: &'static str, count: usize, short: &Short<'_, I, O>) -> Self {
        let row = |entry: &Entry<'_, I, O>| Row {
            operation: entry.operation.clone(),
            is_loose: entry.result.is_none(),
        };
        let rows: Vec<_> = short.entries.iter().map(row).collect();
        let key = rows.first().expect("no operations have an order").operation.key;
        Self { specification, key, count, rows, is_minimal: short.is_minimal }
    }

    /// The operations as a history that has no order either, to be kept and checked again. What is there only as a
    /// possible explanation has an unknown outcome in it.
    ///
    /// # Errors
    ///
    /// None where the operations were one history.
    pub fn history(&self) -> Result<History<I, O>, HistoryError> {
        let loosened = self.rows.iter().map(|row| match row.is_loose {
            true => Operation { outcome: Outcome::Unknown, ..row.operation.clone() },
            false => row.operation.clone(),
        });
        History::new(loosened.collect())
    }
}

impl<I, O> Counterexample<I, O> {
    /// The object.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }

    /// Whether there is an order as soon as any of its known operations is taken as unknown. If not, the steps for
    /// shortening did not suffice.
    #[must_use]
    pub fn is_minimal(&self) -> bool {
        self.is_minimal
    }

    /// The operations whose outcomes contradict each other, in the order of their invocations.
    pub fn contradiction(&self) -> impl Iterator<Item = &Operation<I, O>> {
        self.rows.iter().filter(|row| !row.is_loose).map(|row| &row.operation)
    }
}

impl<I: fmt::Display, O: fmt::Display> fmt::Display for Counterexample<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { specification, key, count, rows, is_minimal } = self;
        let reach =
            if *is_minimal { "none of which can be left out" } else { "which may be more than needed" };
        let shown = rows.len();
        writeln!(
            f,
            "{specification} {key} is not linearizable: no order explains these operations, {reach}"
        )?;
        writeln!(
            f,
            "({shown} of {count}; |--| invoked and returned, |~~> at any time from there, or never)"
        )?;
        let lines = lines(rows);
        let width =
            |of: fn(&Line) -> &String| lines.iter().map(|line| of(line).chars().count()).max().unwrap_or(0);
        let (who, what, when) = (width(|line| &line.who), width(|line| &line.what), width(|line| &line.when));
        for line in &lines {
            let Line { who: process, what: label, when: times, .. } = line;
            writeln!(f, "  {process:who$}  {label:what$}  {times:when$}  {}", line.bar)?;
        }
        Ok(())
    }
}

/// One line of the chart.
struct Line {
    who: String,
    what: String,
    when: String,
    bar: String,
}

/// The chart: a line for each operation that has to be explained, and one for all loose ones that are alike.
fn lines<I: fmt::Display, O: fmt::Display>(rows: &[Row<I, O>]) -> Vec<Line> {
    let columns = Columns::new(rows);
    let mut alike: BTreeMap<String, Vec<&Row<I, O>>> = BTreeMap::new();
    for row in rows.iter().filter(|row| row.is_loose) {
        alike.entry(label(row)).or_default().push(row);
    }
    let mut lines: Vec<(Moment, Line)> = Vec::new();
    for row in rows.iter().filter(|row| !row.is_loose) {
        lines.push((row.operation.invoked, line(row, &columns)));
    }
    for (what, rows) in alike {
        lines.push((rows[0].operation.invoked, loose_line(what, &rows, &columns)));
    }
    lines.sort_by_key(|(invoked, _)| *invoked);
    lines.into_iter().map(|(_, line)| line).collect()
}

fn line<I: fmt::Display, O: fmt::Display>(row: &Row<I, O>, columns: &Columns) -> Line {
    let Operation { process, invoked, .. } = &row.operation;
    let (when, bar) = match row.operation.returned() {
        Some(returned) => (format!("{}..{}", invoked.0, returned.0), columns.closed(*invoked, returned)),
        None => (format!("{}..", invoked.0), columns.open(*invoked)),
    };
    Line { who: process.to_string(), what: label(row), when, bar }
}

fn loose_line<I: fmt::Display, O: fmt::Display>(
    what: String,
    alike: &[&Row<I, O>],
    columns: &Columns,
) -> Line {
    let first = alike[0];
    let Operation { process, invoked, .. } = &first.operation;
    let (who, what) = match alike.len() {
        1 => (process.to_string(), what),
        count => (format!("{process}.."), format!("{count} x {what}")),
    };
    Line { who, what, when: format!("{}..", invoked.0), bar: columns.open(*invoked) }
}

fn label<I: fmt::Display, O: fmt::Display>(row: &Row<I, O>) -> String {
    let input = &row.operation.input;
    match &row.operation.outcome {
        Outcome::Known { output, .. } if row.is_loose => format!("({input} -> {output})"),
        Outcome::Known { output, .. } => format!("{input} -> {output}"),
        Outcome::Failed { .. } => format!("{input} -> failed"),
        Outcome::Unknown => format!("{input} -> unknown"),
    }
}

/// Columns of the chart: one for invocations that no return comes between, one for returns that no invocation does.
struct Columns {
    invoked: BTreeMap<Moment, usize>,
    returned: BTreeMap<Moment, usize>,
    end: usize,
}

impl Columns {
    fn new<I, O>(rows: &[Row<I, O>]) -> Self {
        let invoked = rows.iter().map(|row| (row.operation.invoked, false));
        let required = rows.iter().filter(|row| !row.is_loose);
        let returned = required.filter_map(|row| Some((row.operation.returned()?, true)));
        let mut events: Vec<(Moment, bool)> = invoked.chain(returned).collect();
        events.sort_unstable();
        let mut columns = Self { invoked: BTreeMap::new(), returned: BTreeMap::new(), end: 0 };
        let mut last = false;
        for (moment, is_return) in events {
            columns.end += usize::from(is_return != last) * 2;
            last = is_return;
            let side = if is_return { &mut columns.returned } else { &mut columns.invoked };
            side.insert(moment, columns.end);
        }
        columns
    }

    fn closed(&self, invoked: Moment, returned: Moment) -> String {
        let (start, end) = (self.invoked[&invoked], self.returned[&returned]);
        format!("{}|{}|", " ".repeat(start), "-".repeat(end - start - 1))
    }

    fn open(&self, invoked: Moment) -> String {
        let start = self.invoked[&invoked];
        format!("{}|{}>", " ".repeat(start), "~".repeat(self.end - start + 1))
    }
}
