//! Times, durations and names as text.

use std::time::Duration;

use crate::net::WallTime;

const SECONDS_PER_DAY: u64 = 86_400;

/// `at` as RFC 3339 wants it, in UTC with milliseconds: `2026-01-31T12:00:00.250Z`.
#[must_use]
pub fn rfc3339(at: WallTime) -> String {
    let (seconds, millis) = (at.0 / 1_000, at.0 % 1_000);
    let (year, month, day) = civil_date(seconds / SECONDS_PER_DAY);
    let second = seconds % SECONDS_PER_DAY;
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// The date that lies `days` after 1970-01-01. Counts in eras of 400 years that begin in March, so
/// that the leap day is the last of its year.
fn civil_date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Reads `30s`, `500ms`, `2m` or `1h`.
#[must_use]
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|character: char| !character.is_ascii_digit())?;
    let count: u64 = text[..digits].parse().ok()?;
    match &text[digits..] {
        "ms" => Some(Duration::from_millis(count)),
        "s" => Some(Duration::from_secs(count)),
        "m" => Some(Duration::from_secs(count.checked_mul(60)?)),
        "h" => Some(Duration::from_secs(count.checked_mul(3_600)?)),
        _ => None,
    }
}

/// `duration` in whole seconds, as in `30s`.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs())
}

/// The name in `known` that `name` was probably meant to be.
pub(super) fn nearest<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let bare = bare(name);
    let ranked = known.into_iter().map(|candidate| (distance(&bare, &self::bare(candidate)), candidate));
    let (distance, candidate) = ranked.min()?;
    (distance <= (bare.len() / 3).max(1)).then_some(candidate)
}

/// The name without what people forget: case, and the signs between words.
fn bare(name: &str) -> Vec<u8> {
    name.bytes().filter(|byte| !matches!(byte, b'_' | b'-')).map(|byte| byte.to_ascii_lowercase()).collect()
}

/// How many bytes to insert, delete, replace or swap with the next one (optimal string alignment,
/// three rows at a time).
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    let mut above = row.clone();
    for i in 1..=a.len() {
        let two_above = std::mem::replace(&mut above, row.clone());
        row[0] = i;
        for j in 1..=b.len() {
            let replaced = above[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let is_swap = i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1];
            let swapped = if is_swap { two_above[j - 2] + 1 } else { usize::MAX };
            row[j] = replaced.min(swapped).min(above[j] + 1).min(row[j - 1] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_rfc_3339_in_utc() {
        let check = |millis, expect: &str| assert_eq!(rfc3339(WallTime(millis)), expect);
        check(0, "1970-01-01T00:00:00.000Z");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z");
        check(1_709_210_096_789, "2024-02-29T12:34:56.789Z");
        check(1_735_689_599_999, "2024-12-31T23:59:59.999Z");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z");
    }

    #[test]
    fn durations_need_a_unit() {
        let check = |text: &str, expect| assert_eq!(parse_duration(text), expect, "{text}");
        check("30s", Some(Duration::from_secs(30)));
        check("500ms", Some(Duration::from_millis(500)));
        check("2m", Some(Duration::from_secs(120)));
        check("1h", Some(Duration::from_secs(3_600)));
        for text in ["", "30", "s", "-1s", "1.5s", "3 s", "99999999999999999999s", "9999999999999999999h"] {
            check(text, None);
        }
    }

    #[test]
    fn nearest_finds_what_was_meant_and_nothing_far() {
        let known = ["node_id", "addr", "raft_addr"];
        let check = |name: &str, expect: Option<&str>| assert_eq!(nearest(name, known), expect, "{name}");
        check("nodeId", Some("node_id"));
        check("node-id", Some("node_id"));
        check("nod_id", Some("node_id"));
        check("raft_adr", Some("raft_addr"));
        check("addr", Some("addr"));
        check("adrd", Some("addr"));
        check("colour", None);
        check("", None);
    }
}
