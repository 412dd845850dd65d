//! Query strings and percent-encoding. Strict: what a handler does not know or cannot read is an error that
//! names it, because a misspelt parameter silently ignored answers another question.

use super::problem::Failure;
use bytes::Bytes;
use std::str::FromStr;
use trandb_cluster::Error;
use trandb_cluster::Timestamp;

/// The parameters of a query, each at most once.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, Vec<u8>)>);

impl Query {
    /// Reads `raw`, in which only the names of `known` may occur. `+` stands for a space, as in forms.
    pub(super) fn parse(raw: Option<&str>, known: &[&str]) -> Result<Self, Failure> {
        let mut parameters: Vec<(String, Vec<u8>)> = Vec::new();
        for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decode_text(&name.replace('+', " "))
                .map_err(|error| Error::invalid(format!("query parameter: {}", error.message)))?;
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(
                    Error::invalid(format!("unknown query parameter {name:?}; known here: {known}")).into()
                );
            }
            if parameters.iter().any(|(earlier, _)| *earlier == name) {
                return Err(Error::invalid(format!("query parameter {name:?} stands twice")).into());
            }
            let value = percent_decode(&value.replace('+', " "))
                .map_err(|error| Error::invalid(format!("query parameter {name:?}: {}", error.message)))?;
            parameters.push((name, value));
        }
        Ok(Self(parameters))
    }

    /// A parameter's bytes.
    pub(super) fn bytes(&self, name: &str) -> Option<Bytes> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| Bytes::copy_from_slice(value))
    }

    /// A parameter's text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>, Failure> {
        let Some((_, value)) = self.0.iter().find(|(known, _)| known == name) else { return Ok(None) };
        match std::str::from_utf8(value) {
            Ok(text) => Ok(Some(text)),
            Err(_) => Err(Error::invalid(format!("query parameter {name:?} is not UTF-8")).into()),
        }
    }

    /// A parameter in the form `wanted` describes.
    pub(super) fn parsed<T: FromStr>(&self, name: &str, wanted: &str) -> Result<Option<T>, Failure> {
        self.text(name)?
            .map(|text| {
                text.parse().map_err(|_| {
                    Error::invalid(format!("query parameter {name:?} is {text:?}, not {wanted}")).into()
                })
            })
            .transpose()
    }

    /// The point in time `at`: a version, or milliseconds since the Unix epoch with the suffix `ms`.
    pub(super) fn at(&self) -> Result<Option<Timestamp>, Failure> {
        let Some(text) = self.text("at")? else { return Ok(None) };
        let at = point_in_time(text);
        Ok(Some(at.map_err(|error| Error::invalid(format!("query parameter {}", error.message)))?))
    }
}

/// Reads the point in time `at`.
pub(super) fn point_in_time(text: &str) -> Result<Timestamp, Error> {
    /// Milliseconds fill the high 46 bits of a timestamp.
    const MILLIS_END: u64 = 1 << 46;
    let at = match text.strip_suffix("ms") {
        Some(millis) => millis.parse().ok().filter(|millis| *millis < MILLIS_END).map(Timestamp::from_millis),
        None => text.parse().ok(),
    };
    at.ok_or_else(|| {
        Error::invalid(format!(
            "\"at\" is {text:?}, neither a version nor milliseconds since 1970 such as 1764000000000ms"
        ))
    })
}

/// Replaces `%XX` by the byte that it stands for.
pub(super) fn percent_decode(text: &str) -> Result<Vec<u8>, Error> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        if byte == b'%' {
            let digit = |index: usize| bytes.get(index).and_then(|byte| char::from(*byte).to_digit(16));
            let (Some(high), Some(low)) = (digit(at + 1), digit(at + 2)) else {
                return Err(Error::invalid(format!("bad percent-encoding at byte {at}")));
            };
            decoded.push((high * 16 + low) as u8);
            at += 3;
        } else {
            decoded.push(byte);
            at += 1;
        }
    }
    Ok(decoded)
}

fn decode_text(text: &str) -> Result<String, Error> {
    String::from_utf8(percent_decode(text)?).map_err(|_| Error::invalid("not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T: std::fmt::Debug>(result: Result<T, Failure>) -> String {
        result.expect_err("refused").error().message.clone()
    }

    #[test]
    fn percent_encoding_is_strict() {
        assert_eq!(percent_decode("a%2Fb%ff+").expect("valid"), b"a/b\xff+");
        for bad in ["%", "%4", "%zz", "ab%+1"] {
            assert!(percent_decode(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_are_known_and_single() {
        let query =
            Query::parse(Some("prefix=a%2Bb+c&limit=7&flag"), &["prefix", "limit", "flag"]).expect("valid");
        assert_eq!(query.bytes("prefix").expect("there"), "a+b c");
        assert_eq!(query.parsed::<u32>("limit", "a number").expect("valid"), Some(7));
        assert_eq!(query.text("flag").expect("valid"), Some(""));
        assert_eq!(query.text("absent").expect("valid"), None);
        assert_eq!(
            message(Query::parse(Some("limmit=7"), &["limit", "cursor"])),
            "unknown query parameter \"limmit\"; known here: limit, cursor"
        );
        assert_eq!(message(Query::parse(Some("a=1&a=1"), &["a"])), "query parameter \"a\" stands twice");
        let query = Query::parse(Some("limit=many&text=%ff"), &["limit", "text"]).expect("valid");
        assert_eq!(
            message(query.parsed::<u32>("limit", "a number")),
            "query parameter \"limit\" is \"many\", not a number"
        );
        assert_eq!(message(query.text("text")), "query parameter \"text\" is not UTF-8");
    }

    #[test]
    fn a_point_in_time_is_a_version_or_milliseconds() {
        let at = |raw: &str| Query::parse(Some(raw), &["at"]).and_then(|query| query.at());
        assert_eq!(at("at=42").expect("valid"), Some(Timestamp(42)));
        assert_eq!(at("at=42ms").expect("valid"), Some(Timestamp::from_millis(42)));
        assert_eq!(at("").expect("valid"), None);
        for bad in ["at=", "at=ms", "at=-1", "at=2026-01-01", "at=70368744177664ms"] {
            assert!(at(bad).is_err(), "{bad}");
        }
    }
}
