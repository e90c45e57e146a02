//! The query of a request: each parameter checked when it is asked for.

use std::ops::RangeInclusive;

/// A query's parameters, in order.
#[derive(Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn of(query: Option<&str>) -> Self {
        let query = query.unwrap_or_default();
        Self(form_urlencoded::parse(query.as_bytes()).map(|(name, value)| (name.into(), value.into())).collect())
    }

    /// The last value given; an empty one is none.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(have, _)| have == name).map(|(_, value)| value.as_str()).filter(|v| !v.is_empty())
    }

    /// Yes or no, in the words that clients use for them; no where nothing is said.
    ///
    /// # Errors
    /// What is wrong, for its sender.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, String> {
        let Some(value) = self.text(name) else { return Ok(false) };
        match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => Ok(true),
            "false" | "no" | "off" | "0" => Ok(false),
            _ => Err(format!("{name}: {value:?} is neither true nor false")),
        }
    }

    /// A number in a range.
    ///
    /// # Errors
    /// What is wrong, for its sender.
    pub(crate) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, String> {
        let Some(value) = self.text(name) else { return Ok(None) };
        match value.parse() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(format!("{name}: {value:?} is no number from {} to {}", range.start(), range.end())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_read_as_clients_write_them() {
        let query = Query::of(Some("blocking=True&result=0&x=&limit=7&name=a%20b&limit=8"));
        assert_eq!((query.flag("blocking"), query.flag("result"), query.flag("x")), (Ok(true), Ok(false), Ok(false)));
        assert_eq!((query.number("limit", 0..=200), query.number("skip", 0..=9)), (Ok(Some(8)), Ok(None)));
        assert_eq!(query.text("name"), Some("a b"));
        assert!(query.flag("name").is_err() && query.number("name", 0..=1).is_err());
        assert!(query.number("limit", 9..=10).is_err() && query.number("limit", 0..=7).is_err());
        assert!(Query::of(Some("")).text("").is_none() && Query::of(None).text("a").is_none());
    }
}
