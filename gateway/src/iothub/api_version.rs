//! The api-version: a date that says which of IoT Hub's interfaces a client speaks. This hub has one for all.

/// The parameter's name, in a query and in a user name.
pub const PARAMETER: &str = "api-version";

/// What the gateway's own clients say, and what is taken where none is asked for.
pub const DEFAULT: &str = "2021-04-12";

/// What a query is without, or has wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidApiVersion {
    /// There is none.
    Missing,
    /// It is given twice, or is no date.
    Malformed,
}

/// Whether a query has exactly one well-formed api-version; which one makes no difference.
pub fn check_query(query: &str) -> Result<(), InvalidApiVersion> {
    let mut versions = in_query(query);
    match (versions.next(), versions.next()) {
        (Some(version), None) if is_well_formed(version) => Ok(()),
        (None, _) => Err(InvalidApiVersion::Missing),
        _ => Err(InvalidApiVersion::Malformed),
    }
}

/// The api-versions a query gives, as written.
pub fn in_query(query: &str) -> impl Iterator<Item = &str> {
    query.split('&').filter_map(|pair| pair.strip_prefix(PARAMETER)?.strip_prefix('='))
}

/// `YYYY-MM-DD` with an optional `-preview`.
fn is_well_formed(text: &str) -> bool {
    let date = text.strip_suffix("-preview").unwrap_or(text);
    date.len() == 10
        && date.bytes().enumerate().all(|(place, byte)| match place {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t702_only_a_date_is_an_api_version() {
        for good in ["2021-04-12", "2016-11-14", "2020-10-01-preview", DEFAULT] {
            assert!(is_well_formed(good), "{good}");
        }
        for bad in
            ["", "2021", "2021-4-12", "2021-04-12-draft", "20210412", "latest", "2021-04-12-preview-preview"]
        {
            assert!(!is_well_formed(bad), "{bad}");
        }
    }

    #[test]
    fn a_query_gives_it_once() {
        assert_eq!(check_query("a=1&api-version=2021-04-12&b"), Ok(()));
        for query in ["", "a=1", "api-version", "Api-Version=2021-04-12", "xapi-version=2021-04-12"] {
            assert_eq!(check_query(query), Err(InvalidApiVersion::Missing), "{query}");
        }
        for query in ["api-version=", "api-version=1", "api-version=2021-04-12&api-version=2021-04-12"] {
            assert_eq!(check_query(query), Err(InvalidApiVersion::Malformed), "{query}");
        }
    }
}
