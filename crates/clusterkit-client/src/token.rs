//! How far whoever holds it has written and read.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use clusterkit_core::id::PartitionId;

/// The newest place in the log of each partition that its owner has written or read at: a read
/// [after](crate::Read::After) it misses nothing of that.
///
/// Its text, as in `3:17,5:9`, can be handed to another process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Token {
    indices: BTreeMap<PartitionId, u64>,
}

impl Token {
    /// Adds what `other` stands for.
    pub fn merge(&mut self, other: &Self) {
        for (partition, index) in &other.indices {
            self.note(*partition, *index);
        }
    }

    /// The place in the log of `partition`. None if nothing was written or read there.
    #[must_use]
    pub fn index(&self, partition: PartitionId) -> Option<u64> {
        self.indices.get(&partition).copied()
    }

    /// Whether it stands for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    pub(crate) fn note(&mut self, partition: PartitionId, index: u64) {
        let newest = self.indices.entry(partition).or_default();
        *newest = index.max(*newest);
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (partition, index)) in self.indices.iter().enumerate() {
            write!(f, "{}{}:{index}", if at == 0 { "" } else { "," }, partition.0)?;
        }
        Ok(())
    }
}

/// The text is no token. Nothing changed; take it from [`Token`]'s own text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token is written as partitions and indices, as in 3:17,5:9")]
pub struct InvalidToken;

impl FromStr for Token {
    type Err = InvalidToken;

    fn from_str(text: &str) -> Result<Self, InvalidToken> {
        let mut token = Self::default();
        for part in text.split(',').filter(|_| !text.is_empty()) {
            let (partition, index) = part.split_once(':').ok_or(InvalidToken)?;
            let partition = partition.parse().map_err(|_| InvalidToken)?;
            token.note(PartitionId(partition), index.parse().map_err(|_| InvalidToken)?);
        }
        Ok(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_token_reads_back() {
        let check = |text: &str, expect: Option<&str>| {
            let token = text.parse::<Token>().ok().map(|token| token.to_string());
            assert_eq!(token.as_deref(), expect, "{text}");
        };
        check("", Some(""));
        check("3:17,5:9", Some("3:17,5:9"));
        check("5:9,3:17,5:12", Some("3:17,5:12"));
        check("3", None);
        check("3:x", None);
        check("3:17,", None);
    }

    #[test]
    fn merging_keeps_the_newest_place_of_each_partition() {
        let mut token: Token = "1:5,2:7".parse().unwrap();
        token.merge(&"2:6,3:1".parse().unwrap());
        assert_eq!(token.to_string(), "1:5,2:7,3:1");
        assert_eq!(token.index(PartitionId(2)), Some(7));
        assert_eq!(token.index(PartitionId(9)), None);
    }
}
