//! The definition of linearizability, tried out in all orders.

use super::super::{Operation, Outcome, Specification};

/// Whether an order explains `operations` of one object.
pub(super) fn is_linearizable<S: Specification>(
    specification: &S,
    operations: &[Operation<S::Input, S::Output>],
) -> bool {
    let is_possible = |operation: &&Operation<_, _>| !matches!(operation.outcome, Outcome::Failed { .. });
    let rest: Vec<_> = operations.iter().filter(is_possible).collect();
    explains(specification, &specification.initial(), &rest)
}

fn explains<S: Specification>(
    specification: &S,
    state: &S::State,
    rest: &[&Operation<S::Input, S::Output>],
) -> bool {
    if rest.iter().all(|operation| operation.returned().is_none()) {
        return true;
    }
    (0..rest.len()).any(|at| {
        let mut others = rest.to_vec();
        let first = others.remove(at);
        let is_first =
            others.iter().all(|other| other.returned().is_none_or(|returned| returned >= first.invoked));
        let output = match &first.outcome {
            Outcome::Known { output, .. } => Some(output),
            Outcome::Failed { .. } | Outcome::Unknown => None,
        };
        let after = specification.step(state, &first.input, output);
        is_first && after.is_some_and(|after| explains(specification, &after, &others))
    })
}
