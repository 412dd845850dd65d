//! Versions as entity tags, and the conditions that requests make with them.

use super::problem::Failure;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use trandb_cluster::command::Condition;
use trandb_cluster::{Error, Timestamp};

/// A version as a strong entity tag.
pub(super) fn etag(version: Timestamp) -> HeaderValue {
    HeaderValue::from_str(&format!("\"{version}\"")).expect("quoted digits are a valid header")
}

/// The condition of a write: `If-Match` with one version or `*`, or `If-None-Match: *`.
///
/// A condition that cannot be kept is refused, never ignored: its writer relies on it.
pub(super) fn of_write(headers: &HeaderMap) -> Result<Condition, Failure> {
    let if_match = text(headers, &header::IF_MATCH)?;
    let if_none_match = text(headers, &header::IF_NONE_MATCH)?;
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::Any),
        (Some("*"), None) => Ok(Condition::Present),
        (Some(tag), None) => version(tag).map(Condition::Version).ok_or_else(|| {
            Error::invalid(format!("if-match is {tag:?}, neither * nor one version in quotes")).into()
        }),
        (None, Some("*")) => Ok(Condition::Absent),
        (None, Some(tag)) => {
            Err(Error::invalid(format!("if-none-match of a write is {tag:?}, it can only be *")).into())
        }
        (Some(_), Some(_)) => Err(Error::invalid("if-match and if-none-match exclude each other").into()),
    }
}

/// Whether a read's `If-None-Match` names `current`, so that the client has the value already.
pub(super) fn is_known(headers: &HeaderMap, current: Timestamp) -> Result<bool, Failure> {
    let Some(tags) = text(headers, &header::IF_NONE_MATCH)? else { return Ok(false) };
    Ok(tags == "*"
        || tags
            .split(',')
            .map(str::trim)
            .any(|tag| version(tag.strip_prefix("W/").unwrap_or(tag)) == Some(current)))
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Failure> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(Error::invalid(format!("header {name} stands twice")).into());
    }
    match value.to_str() {
        Ok(text) => Ok(Some(text.trim())),
        Err(_) => Err(Error::invalid(format!("header {name} is not text")).into()),
    }
}

fn version(tag: &str) -> Option<Timestamp> {
    tag.strip_prefix('"')?.strip_suffix('"')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(HeaderName, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn writes_take_the_conditions_that_can_be_kept() {
        let of = |pairs: &[(HeaderName, &'static str)]| of_write(&headers(pairs));
        assert_eq!(of(&[]).expect("none"), Condition::Any);
        assert_eq!(of(&[(header::IF_MATCH, "\"12\"")]).expect("one"), Condition::Version(Timestamp(12)));
        assert_eq!(of(&[(header::IF_MATCH, "*")]).expect("any"), Condition::Present);
        assert_eq!(of(&[(header::IF_NONE_MATCH, "*")]).expect("absent"), Condition::Absent);
        for bad in [
            vec![(header::IF_MATCH, "12")],
            vec![(header::IF_MATCH, "W/\"12\"")],
            vec![(header::IF_MATCH, "\"12\", \"13\"")],
            vec![(header::IF_NONE_MATCH, "\"12\"")],
            vec![(header::IF_MATCH, "\"12\""), (header::IF_NONE_MATCH, "*")],
        ] {
            assert!(of(&bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn reads_compare_weakly_with_any_of_a_list() {
        let known = |tags: &'static str| is_known(&headers(&[(header::IF_NONE_MATCH, tags)]), Timestamp(12));
        for tags in ["\"12\"", "\"7\" , \"12\"", "W/\"12\"", "*"] {
            assert!(known(tags).expect("valid"), "{tags}");
        }
        for tags in ["\"7\"", "12", "\"abc\""] {
            assert!(!known(tags).expect("valid"), "{tags}");
        }
        assert!(!is_known(&HeaderMap::new(), Timestamp(12)).expect("valid"));
        assert_eq!(etag(Timestamp(12)), "\"12\"");
    }
}
