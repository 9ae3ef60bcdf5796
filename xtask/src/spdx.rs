//! Licence expressions, as the SPDX specification 2.3, annex D, writes them.
//!
//! `OR` binds weaker than `AND`, `AND` weaker than `WITH`. The slash of old manifests
//! (`MIT/Apache-2.0`) is read as `OR`, which is what cargo once defined it to be.

use std::str::FromStr;

/// A licence expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// All of these hold at once.
    And(Vec<Expression>),
    /// One licence, with its exception if it has one: `Apache-2.0 WITH LLVM-exception`.
    Licence(String),
    /// Whoever takes the package chooses one of these.
    Or(Vec<Expression>),
}

impl Expression {
    /// Whether the package can be taken under licences that `allowed` accepts alone. The argument
    /// is the licence with its exception, in one text.
    pub fn is_met(&self, allowed: &dyn Fn(&str) -> bool) -> bool {
        match self {
            Self::And(parts) => parts.iter().all(|part| part.is_met(allowed)),
            Self::Licence(name) => allowed(name),
            Self::Or(parts) => parts.iter().any(|part| part.is_met(allowed)),
        }
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        let mut parser = Parser { words: words(text), next: 0 };
        let expression = parser.any_of()?;
        match parser.take() {
            None => Ok(expression),
            Some(found) => Err(ExpressionError::Unexpected { found }),
        }
    }
}

/// The text is no licence expression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpressionError {
    /// The expression stops where a licence or a closing parenthesis must follow.
    #[error("the expression stops too early")]
    Ended,
    /// A word stands where it cannot.
    #[error("{found:?} is not expected here")]
    Unexpected {
        /// The word.
        found: String,
    },
}

struct Parser {
    words: Vec<String>,
    next: usize,
}

impl Parser {
    fn any_of(&mut self) -> Result<Expression, ExpressionError> {
        let mut parts = vec![self.all_of()?];
        while self.take_if("OR") || self.take_if("/") {
            parts.push(self.all_of()?);
        }
        Ok(single_or(parts, Expression::Or))
    }

    fn all_of(&mut self) -> Result<Expression, ExpressionError> {
        let mut parts = vec![self.leaf()?];
        while self.take_if("AND") {
            parts.push(self.leaf()?);
        }
        Ok(single_or(parts, Expression::And))
    }

    fn leaf(&mut self) -> Result<Expression, ExpressionError> {
        if self.take_if("(") {
            let inner = self.any_of()?;
            return self.expect(")").map(|()| inner);
        }
        let licence = self.name()?;
        if self.take_if("WITH") {
            let exception = self.name()?;
            return Ok(Expression::Licence(format!("{licence} WITH {exception}")));
        }
        Ok(Expression::Licence(licence))
    }

    fn name(&mut self) -> Result<String, ExpressionError> {
        let found = self.take().ok_or(ExpressionError::Ended)?;
        match found.as_str() {
            "(" | ")" | "/" | "AND" | "OR" | "WITH" => Err(ExpressionError::Unexpected { found }),
            _ => Ok(found),
        }
    }

    fn expect(&mut self, word: &str) -> Result<(), ExpressionError> {
        match self.take() {
            Some(found) if found == word => Ok(()),
            Some(found) => Err(ExpressionError::Unexpected { found }),
            None => Err(ExpressionError::Ended),
        }
    }

    fn take(&mut self) -> Option<String> {
        let word = self.words.get(self.next).cloned();
        self.next += 1;
        word
    }

    fn take_if(&mut self, word: &str) -> bool {
        let is_next = self.words.get(self.next).is_some_and(|next| next == word);
        self.next += usize::from(is_next);
        is_next
    }
}

fn single_or(mut parts: Vec<Expression>, many: fn(Vec<Expression>) -> Expression) -> Expression {
    if parts.len() == 1 { parts.remove(0) } else { many(parts) }
}

/// Splits at blanks and makes each sign a word of its own.
fn words(text: &str) -> Vec<String> {
    let mut spaced = String::new();
    for character in text.chars() {
        match character {
            '(' | ')' | '/' => spaced.extend([' ', character, ' ']),
            _ => spaced.push(character),
        }
    }
    spaced.split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_are_met_as_their_operators_say() {
        let allowed = |name: &str| matches!(name, "MIT" | "ISC" | "Apache-2.0 WITH LLVM-exception");
        let check = |text: &str, expect| {
            let expression: Expression = text.parse().expect("an expression");
            assert_eq!(expression.is_met(&allowed), expect, "{text}");
        };
        check("MIT", true);
        check("GPL-3.0-only", false);
        check("GPL-3.0-only OR MIT", true);
        check("GPL-3.0-only/MIT", true);
        check("GPL-3.0-only AND MIT", false);
        check("MIT AND ISC", true);
        check("GPL-3.0-only OR MIT AND ISC", true);
        check("MIT OR ISC AND GPL-3.0-only", true);
        check("(MIT OR ISC) AND GPL-3.0-only", false);
        check("(MIT OR GPL-3.0-only) AND (ISC)", true);
        check("Apache-2.0 WITH LLVM-exception", true);
        check("Apache-2.0", false);
        check("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true);
        check("MIT WITH LLVM-exception", false);
    }

    #[test]
    fn what_is_no_expression_is_refused() {
        let unexpected = |found: &str| ExpressionError::Unexpected { found: found.to_owned() };
        let check = |text: &str, expect| assert_eq!(text.parse::<Expression>(), Err(expect), "{text}");
        check("", ExpressionError::Ended);
        check("MIT OR", ExpressionError::Ended);
        check("(MIT", ExpressionError::Ended);
        check("MIT)", unexpected(")"));
        check("MIT ISC", unexpected("ISC"));
        check("OR MIT", unexpected("OR"));
        check("MIT WITH OR", unexpected("OR"));
        check("(MIT ISC)", unexpected("ISC"));
    }
}
