//! From the OpenMetrics text that the registry writes to the older text format.
//!
//! The two differ in how a counter is named in its `# TYPE` line, in the types that only OpenMetrics
//! has, and in its last line. Tools that check metrics read the older one only.

/// `open_metrics` in the text format 0.0.4.
pub(super) fn plain_text(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = None;
    for line in open_metrics.lines() {
        if let Some(described) = line.strip_prefix("# HELP ") {
            // What the family is called is known only from its type, which comes next.
            help = described.split_once(' ').map(|(_, words)| words);
        } else if let Some(typed) = line.strip_prefix("# TYPE ") {
            describe(&mut text, typed, help.take());
        } else if !line.starts_with('#') {
            push_line(&mut text, &[line]);
        }
    }
    text
}

fn describe(text: &mut String, typed: &str, help: Option<&str>) {
    let (name, kind) = typed.split_once(' ').unwrap_or((typed, "untyped"));
    let (suffix, kind) = match kind {
        "counter" => ("_total", "counter"),
        "info" => ("_info", "gauge"),
        "unknown" => ("", "untyped"),
        other => ("", other),
    };
    push_line(text, &["# HELP ", name, suffix, " ", help.unwrap_or_default()]);
    push_line(text, &["# TYPE ", name, suffix, " ", kind]);
}

fn push_line(text: &mut String, parts: &[&str]) {
    parts.iter().for_each(|part| text.push_str(part));
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_typed_by_the_name_of_their_samples() {
        let open = "# HELP a_b Things.\n# TYPE a_b counter\na_b_total{k=\"# x\"} 1\n# EOF\n";
        let plain = "# HELP a_b_total Things.\n# TYPE a_b_total counter\na_b_total{k=\"# x\"} 1\n";
        assert_eq!(plain_text(open), plain);
    }

    #[test]
    fn types_that_only_open_metrics_has_are_replaced() {
        let open = "# HELP a Things.\n# TYPE a unknown\na 1\n# HELP b Things.\n# TYPE b info\nb_info 1\n\
                    # HELP c_s Things.\n# TYPE c_s gauge\n# UNIT c_s s\nc_s 1\n# EOF\n";
        let plain = "# HELP a Things.\n# TYPE a untyped\na 1\n# HELP b_info Things.\n# TYPE b_info gauge\n\
                     b_info 1\n# HELP c_s Things.\n# TYPE c_s gauge\nc_s 1\n";
        assert_eq!(plain_text(open), plain);
    }
}
