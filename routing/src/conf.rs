//! Conf strings: `k=v,k=v`, the form in which policies, optimizers and estimators are chosen and tuned.

/// Why a conf string or one of its values is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfError {
    /// Not `k=v,k=v`.
    #[error("{given:?} is not of the form key=value,key=value")]
    Form {
        /// What was given, shortened.
        given: String,
    },
    /// A key that has to be there.
    #[error("{key} is missing; add {key}=…")]
    Missing {
        /// Which.
        key: &'static str,
    },
    /// A value of another type.
    #[error("{key}={value}: give {expected}")]
    Value {
        /// Of which key.
        key: String,
        /// What was given, shortened.
        value: String,
        /// What would do.
        expected: &'static str,
    },
    /// A key that means nothing here.
    #[error("{key} means nothing to {of}; it takes {known}")]
    UnknownKey {
        /// Which.
        key: String,
        /// Whose conf it is.
        of: &'static str,
        /// The keys that do.
        known: String,
    },
    /// A name that is none.
    #[error("unknown {what} {given:?}: use {known}")]
    UnknownName {
        /// What kind of thing.
        what: &'static str,
        /// What was given, shortened.
        given: String,
        /// The names there are.
        known: String,
    },
}

pub(crate) fn shortened(given: &str) -> String {
    given.chars().take(64).collect()
}

/// `a, b or c`.
pub(crate) fn listed(names: &[&str]) -> String {
    match names {
        [] => String::new(),
        [one] => (*one).to_owned(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

/// A parsed conf string. The first occurrence of a key counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Conf(Vec<(String, String)>);

impl Conf {
    /// Parses `k=v,k=v`. Empty text is an empty conf, and one comma at the end is tolerated.
    ///
    /// # Errors
    /// [`ConfError::Form`].
    pub fn parse(text: &str) -> Result<Self, ConfError> {
        let form = || ConfError::Form { given: shortened(text) };
        let mut pairs: Vec<(String, String)> = Vec::new();
        let text_without_end = text.strip_suffix(',').unwrap_or(text);
        if text_without_end.is_empty() {
            return if text.is_empty() { Ok(Self::default()) } else { Err(form()) };
        }
        for pair in text_without_end.split(',') {
            let (key, value) = pair.split_once('=').ok_or_else(form)?;
            if key.is_empty() || value.is_empty() || value.contains('=') {
                return Err(form());
            }
            if !pairs.iter().any(|(have, _)| have == key) {
                pairs.push((key.to_owned(), value.to_owned()));
            }
        }
        Ok(Self(pairs))
    }

    /// Parses `NAME,k=v` or `type=NAME,k=v`: the name, and the conf without it. Without a name it is `default`.
    ///
    /// # Errors
    /// [`ConfError::Form`].
    pub fn parse_named(text: &str, default: &str) -> Result<(String, Self), ConfError> {
        let (first, rest) = text.split_once(',').unwrap_or((text, ""));
        if !first.is_empty() && !first.contains('=') {
            return Ok((first.to_owned(), Self::parse(rest)?));
        }
        let mut conf = Self::parse(text)?;
        let at = conf.0.iter().position(|(key, _)| key == "type");
        let name = at.map_or_else(|| default.to_owned(), |at| conf.0.remove(at).1);
        Ok((name, conf))
    }

    /// A value as text; empty where the key is missing.
    pub fn text(&self, key: &str) -> &str {
        self.get(key).unwrap_or_default()
    }

    /// A number.
    ///
    /// # Errors
    /// [`ConfError::Missing`] or [`ConfError::Value`].
    pub fn double(&self, key: &'static str) -> Result<f64, ConfError> {
        let value = self.value(key)?;
        let number = value.parse::<f64>().ok().filter(|number| number.is_finite());
        number.ok_or_else(|| self.wrong(key, value, "a number"))
    }

    /// A whole number, cut off towards zero.
    ///
    /// # Errors
    /// As [`Conf::double`].
    pub fn int(&self, key: &'static str) -> Result<i64, ConfError> {
        let value = self.value(key)?;
        let number = self.double(key)?.trunc();
        #[expect(clippy::cast_possible_truncation, reason = "checked to fit")]
        let whole = (number.abs() < 2f64.powi(63)).then_some(number as i64);
        whole.ok_or_else(|| self.wrong(key, value, "a smaller number"))
    }

    /// A whole number from 0, cut off towards zero.
    ///
    /// # Errors
    /// As [`Conf::double`].
    pub fn uint(&self, key: &'static str) -> Result<u64, ConfError> {
        let value = self.value(key)?;
        self.int(key)?.try_into().map_err(|_| self.wrong(key, value, "a number from 0"))
    }

    /// `true`, `yes`, `1`, `false`, `no` or `0`, in any case.
    ///
    /// # Errors
    /// As [`Conf::double`].
    pub fn bool(&self, key: &'static str) -> Result<bool, ConfError> {
        let value = self.value(key)?;
        match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "1" => Ok(true),
            "false" | "no" | "0" => Ok(false),
            _ => Err(self.wrong(key, value, "true or false")),
        }
    }

    /// A number, or this where the key is missing.
    pub(crate) fn double_or(&self, key: &'static str, default: f64) -> Result<f64, ConfError> {
        if self.get(key).is_some() { self.double(key) } else { Ok(default) }
    }

    /// A whole number from 0, or this where the key is missing.
    ///
    /// # Errors
    /// [`ConfError::Value`].
    pub fn uint_or(&self, key: &'static str, default: u64) -> Result<u64, ConfError> {
        if self.get(key).is_some() { self.uint(key) } else { Ok(default) }
    }

    /// Refuses keys other than these: a misspelt one must not be lost silently.
    ///
    /// # Errors
    /// [`ConfError::UnknownKey`].
    pub fn only(&self, of: &'static str, known: &[&str]) -> Result<(), ConfError> {
        match self.0.iter().find(|(key, _)| !known.contains(&key.as_str())) {
            None => Ok(()),
            Some((key, _)) => {
                let known = if known.is_empty() { "no parameters".to_owned() } else { listed(known) };
                Err(ConfError::UnknownKey { key: shortened(key), of, known })
            }
        }
    }

    /// Refuses a number outside a range.
    pub(crate) fn check(&self, key: &str, fits: bool, expected: &'static str) -> Result<(), ConfError> {
        if fits { Ok(()) } else { Err(self.wrong(key, self.text(key), expected)) }
    }

    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(have, _)| have == key).map(|(_, value)| value.as_str())
    }

    fn value(&self, key: &'static str) -> Result<&str, ConfError> {
        self.get(key).ok_or(ConfError::Missing { key })
    }

    pub(crate) fn wrong(&self, key: &str, value: &str, expected: &'static str) -> ConfError {
        ConfError::Value { key: key.to_owned(), value: shortened(value), expected }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pairs_are_read_and_the_first_of_a_key_counts() {
        let conf = Conf::parse("a=1,b=x,a=2,").unwrap();
        assert_eq!((conf.text("a"), conf.text("b"), conf.text("c")), ("1", "x", ""));
        assert_eq!(Conf::parse("").unwrap(), Conf::default());
    }

    #[test]
    fn what_is_not_pairs_is_refused() {
        for bad in [",", "a", "=1", "a=", ",a=1", "a=1,,b=2", "a==1", "a=1,,", "a=1=2", "a=1,b"] {
            assert!(matches!(Conf::parse(bad), Err(ConfError::Form { .. })), "{bad:?}");
        }
    }

    #[test]
    fn values_have_types() {
        let conf = Conf::parse("d=3.75,n=-0.99,m=-1,y=YES,f=0,t=maybe,big=1e300").unwrap();
        assert_eq!((conf.double("d"), conf.int("d"), conf.uint("d")), (Ok(3.75), Ok(3), Ok(3)));
        assert_eq!((conf.uint("n"), conf.int("m")), (Ok(0), Ok(-1)));
        assert!(matches!(conf.uint("m"), Err(ConfError::Value { .. })));
        assert_eq!((conf.bool("y"), conf.bool("f")), (Ok(true), Ok(false)));
        for wrong in [conf.bool("t").err(), conf.double("t").err(), conf.int("big").err(), conf.bool("d").err()] {
            assert!(matches!(wrong, Some(ConfError::Value { .. })), "{wrong:?}");
        }
        assert_eq!(conf.double("none"), Err(ConfError::Missing { key: "none" }));
    }

    #[test]
    fn a_name_stands_first_or_under_type() {
        let parts = |text| Conf::parse_named(text, "fallback").map(|(name, conf)| (name, conf.text("a").to_owned()));
        for text in ["random,a=1", "type=random,a=1", "a=1,type=random"] {
            assert_eq!(parts(text).unwrap(), ("random".to_owned(), "1".to_owned()), "{text}");
        }
        assert_eq!(parts("a=1").unwrap().0, "fallback");
        assert_eq!(parts("").unwrap().0, "fallback");
        assert!(parts("random,,a=1").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_judged_without_panic(text in "[a-c=,0-9.-]{0,24}") {
            if let Ok(conf) = Conf::parse(&text) {
                let _ = (conf.double("a"), conf.int("a"), conf.uint("a"), conf.bool("a"));
            }
        }
    }
}
