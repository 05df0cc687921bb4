//! Weights: what part of a pool's slots a namespace gets, and in it a fairness key.

use super::id::{FairnessKey, Namespace};

/// Rules of one pool.
pub const WEIGHTS_MAX: usize = 100;

/// Relative weight, 0.01 to 100, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight(u32);

impl Weight {
    pub const ONE: Self = Self(1_000);
    pub const MIN: f64 = 0.01;
    pub const MAX: f64 = 100.0;

    /// `None` if the number is out of range or NaN.
    pub fn new(number: f64) -> Option<Self> {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "10 to 100,000")]
        (Self::MIN..=Self::MAX).contains(&number).then(|| Self((number * 1_000.0).round() as u32))
    }

    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1_000.0
    }

    pub fn thousandths(self) -> u64 {
        self.0.into()
    }

    /// What a flow with this weight is charged for a cost.
    pub fn charge(self, cost: u64) -> u64 {
        if self == Self::ONE {
            return cost;
        }
        cost.saturating_mul(1_000) / u64::from(self.0)
    }
}

/// The weight of a namespace, or of fairness keys in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightRule {
    pub namespace: Namespace,
    /// `None`: of the namespace, among others.
    pub key: Option<KeyPattern>,
    pub weight: Weight,
}

/// A fairness key, or the beginning of some.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyPattern {
    text: Box<str>,
    is_prefix: bool,
}

impl KeyPattern {
    /// Parses a fairness key, or its beginning and `*`.
    ///
    /// # Errors
    /// The end of a sentence about the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (beginning, is_prefix) = text.strip_suffix('*').map_or((text, false), |beginning| (beginning, true));
        if !(is_prefix && beginning.is_empty()) {
            FairnessKey::parse(beginning).map_err(|error| error.to_string())?;
        }
        Ok(Self { text: beginning.into(), is_prefix })
    }

    fn matches(&self, key: &str) -> bool {
        if self.is_prefix { key.starts_with(&*self.text) } else { *key == *self.text }
    }
}

impl std::fmt::Display for KeyPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.text, if self.is_prefix { "*" } else { "" })
    }
}

/// The weights of a pool. Everything that no rule matches has weight 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Weights(pub Box<[WeightRule]>);

impl Weights {
    /// Of a namespace, among others.
    pub fn of_namespace(&self, namespace: &Namespace) -> Weight {
        let found = self.0.iter().find(|rule| rule.key.is_none() && rule.namespace == *namespace);
        found.map_or(Weight::ONE, |rule| rule.weight)
    }

    /// Of a fairness key, among those of its namespace: that of the first rule that matches it. Tasks without a key have weight 1.
    pub fn of_key(&self, namespace: &Namespace, key: Option<&FairnessKey>) -> Weight {
        let Some(key) = key else { return Weight::ONE };
        let matches = |rule: &&WeightRule| {
            rule.namespace == *namespace && rule.key.as_ref().is_some_and(|pattern| pattern.matches(key.as_str()))
        };
        self.0.iter().find(matches).map_or(Weight::ONE, |rule| rule.weight)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_in_its_range() {
        for number in [0.01, 0.5, 1.0, 2.25, 100.0] {
            assert_eq!(Weight::new(number).map(Weight::as_f64), Some(number));
        }
        for number in [0.0, -1.0, 0.009, 100.1, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(Weight::new(number), None, "{number}");
        }
        assert_eq!(Weight::new(2.5).unwrap().charge(1_000_000), 400_000);
        assert_eq!(Weight::new(0.01).unwrap().charge(3_600_000_000), 360_000_000_000);
    }

    #[test]
    fn the_first_rule_that_matches_a_key_of_the_namespace_has_its_weight() {
        let (a, b) = (Namespace::parse("a").unwrap(), Namespace::parse("b").unwrap());
        let rule = |namespace: &Namespace, key: Option<&str>, weight| WeightRule {
            namespace: namespace.clone(),
            key: key.map(|key| KeyPattern::parse(key).unwrap()),
            weight: Weight::new(weight).unwrap(),
        };
        let rules =
            [rule(&a, None, 3.0), rule(&a, Some("gold"), 9.0), rule(&a, Some("g*"), 5.0), rule(&a, Some("*"), 0.5)];
        let weights = Weights(rules.into());
        let of_key =
            |namespace, key: &str| weights.of_key(namespace, FairnessKey::parse(key).ok().as_ref()).thousandths();
        assert_eq!([of_key(&a, "gold"), of_key(&a, "golden"), of_key(&a, "free")], [9_000, 5_000, 500]);
        assert_eq!([of_key(&a, ""), of_key(&b, "gold")], [1_000, 1_000], "no key, and another namespace");
        assert_eq!([weights.of_namespace(&a), weights.of_namespace(&b)].map(Weight::thousandths), [3_000, 1_000]);
    }

    #[test]
    fn a_pattern_is_a_key_or_the_beginning_of_one() {
        assert_eq!(KeyPattern::parse("gold:*").unwrap().to_string(), "gold:*");
        for text in ["", "a*b", "**", "a b", "a b*", &"x".repeat(65)] {
            assert!(KeyPattern::parse(text).is_err(), "{text:?}");
        }
    }
}
