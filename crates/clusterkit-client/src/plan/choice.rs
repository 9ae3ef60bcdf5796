//! Which node is asked next.

/// The node to ask, by address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) addr: String,
    /// Whether it is thought to lead, and shall say so if it does not, instead of passing the request on.
    pub(crate) is_direct: bool,
}

/// The candidates of a request, each by address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Candidates {
    /// Who leads, if the request needs the leader and one is known.
    pub(crate) leader: Option<String>,
    /// Who has a copy.
    pub(crate) holders: Vec<String>,
    /// All the others, seeds included.
    pub(crate) others: Vec<String>,
}

/// Picks the leader unless it failed in this call or is left alone; then a holder; then any node. Among equals `chance`
/// decides. Once every node failed or is left alone, both are forgotten: it is the network then, or the cluster.
///
/// None if there is no candidate.
pub(crate) fn choose(
    candidates: &Candidates,
    failed: &[String],
    admits: impl Fn(&str) -> bool,
    chance: u64,
) -> Option<Choice> {
    let is_good = |addr: &str| !failed.iter().any(|failed| failed == addr) && admits(addr);
    pick(candidates, is_good, chance).or_else(|| pick(candidates, |_| true, chance))
}

fn pick(candidates: &Candidates, is_good: impl Fn(&str) -> bool, chance: u64) -> Option<Choice> {
    if let Some(leader) = candidates.leader.as_ref().filter(|leader| is_good(leader)) {
        return Some(Choice { addr: leader.clone(), is_direct: true });
    }
    let any = |from: &[String]| {
        let good: Vec<_> = from.iter().filter(|addr| is_good(addr)).collect();
        let at = chance.checked_rem(good.len() as u64)?;
        Some(Choice { addr: good[at as usize].clone(), is_direct: false })
    };
    any(&candidates.holders).or_else(|| any(&candidates.others))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Candidates as in `L AB CD`, those that failed, those that are left alone, and the choice, with `!` if direct.
    fn check(candidates: &str, failed: &str, alone: &str, chance: u64, expect: &str) {
        let addrs = |text: &str| text.chars().filter(|c| *c != '-').map(String::from).collect::<Vec<_>>();
        let [leader, holders, others] =
            candidates.split(' ').map(addrs).collect::<Vec<_>>().try_into().unwrap();
        let candidates = Candidates { leader: leader.first().cloned(), holders, others };
        let choice = choose(&candidates, &addrs(failed), |addr| !alone.contains(addr), chance);
        let shown =
            choice.map(|choice| format!("{}{}", choice.addr, if choice.is_direct { "!" } else { "" }));
        assert_eq!(shown.unwrap_or_default(), expect);
    }

    #[test]
    fn the_leader_is_asked_directly() {
        check("a abc d", "", "", 5, "a!");
    }

    #[test]
    fn without_a_leader_a_holder_is_asked() {
        check("- abc d", "", "", 0, "a");
        check("- abc d", "", "", 5, "c");
        check("- - de", "", "", 1, "e");
    }

    #[test]
    fn a_leader_that_failed_or_is_left_alone_is_passed_over() {
        check("a abc d", "a", "", 0, "b");
        check("a abc d", "", "a", 1, "c");
        check("a abc d", "ab", "c", 0, "d");
    }

    #[test]
    fn once_all_failed_the_leader_has_another_turn() {
        check("a abc d", "abcd", "", 0, "a!");
        check("- bc -", "b", "c", 1, "c");
    }

    #[test]
    fn nobody_is_asked_if_nobody_is_known() {
        check("- - -", "", "", 3, "");
    }
}
