//! A set of nodes.

/// A set of nodes, as bits.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub(crate) struct Set(pub(crate) u8);

impl Set {
    pub(crate) const EMPTY: Self = Self(0);

    pub(crate) fn one(node: usize) -> Self {
        Self(1 << node)
    }

    pub(crate) fn first(count: usize) -> Self {
        Self(((1_u16 << count) - 1) as u8)
    }

    pub(crate) fn has(self, node: usize) -> bool {
        self.0 & (1 << node) != 0
    }

    pub(crate) fn with(self, node: usize) -> Self {
        Self(self.0 | 1 << node)
    }

    pub(crate) fn without(self, node: usize) -> Self {
        Self(self.0 & !(1 << node))
    }

    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    pub(crate) fn len(self) -> usize {
        self.0.count_ones() as usize
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn is_within(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// The member number `at`, counted round and round.
    pub(crate) fn pick(self, at: usize) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        self.into_iter().nth(at % self.len())
    }
}

impl IntoIterator for Set {
    type Item = usize;
    type IntoIter = Members;

    fn into_iter(self) -> Members {
        Members(self.0)
    }
}

/// The members of a set in ascending order.
pub(crate) struct Members(u8);

impl Iterator for Members {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        if self.0 == 0 {
            return None;
        }
        let node = self.0.trailing_zeros() as usize;
        self.0 &= self.0 - 1;
        Some(node)
    }
}

impl std::fmt::Debug for Set {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(*self).finish()
    }
}
