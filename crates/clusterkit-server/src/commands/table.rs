//! Tables for people: columns with a head, and lists of properties.

use comfy_table::{Table, presets};

/// Between two columns.
const GAP: u16 = 2;

/// Rows below a head.
pub(super) fn columns<const N: usize>(
    head: [&str; N],
    rows: impl IntoIterator<Item = [String; N]>,
) -> String {
    let mut table = bare();
    table.set_header(head);
    for row in rows {
        table.add_row(row);
    }
    finished(table)
}

/// A name and a value a line.
pub(super) fn properties<'a>(rows: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let mut table = bare();
    for (name, value) in rows {
        table.add_row([name.to_owned(), value]);
    }
    finished(table)
}

fn bare() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

fn finished(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_padding((0, GAP));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// What stands where nothing is.
pub(super) fn or_dash(text: Option<&str>) -> String {
    text.filter(|text| !text.is_empty()).unwrap_or("-").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["node-1".to_owned(), "9".to_owned()], ["n".to_owned(), "10".to_owned()]];
        assert_eq!(columns(["NODE", "LEADS"], rows), "NODE    LEADS\nnode-1  9\nn       10\n");
        assert_eq!(columns(["NODE"], Vec::<[String; 1]>::new()), "NODE\n");
    }

    #[test]
    fn properties_stand_below_each_other() {
        let rows = [("id", "a".to_owned()), ("longer", "b".to_owned())];
        assert_eq!(properties(rows), "id      a\nlonger  b\n");
    }
}
