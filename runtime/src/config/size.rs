//! An amount of memory as people write it.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// Units of bytes, largest first.
const UNITS: [(&str, u64); 3] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Bytes (`536870912`, `512MiB`), or a share of what there is (`70%`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemorySize {
    /// So many.
    Bytes(u64),
    /// From 1 to 100 parts of a hundred.
    Percent(u8),
}

impl MemorySize {
    /// In bytes, where there are `available`; none for a share of what is not known.
    pub fn of(self, available: Option<u64>) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Percent(percent) => available.map(|bytes| bytes / 100 * u64::from(percent)),
        }
    }
}

impl FromStr for MemorySize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("\"{text}\" is neither a size (512MiB, 2GiB, or bytes) nor a share (1% to 100%)");
        let number = |digits: &str| digits.trim_end().parse::<u64>().map_err(|_| wrong());
        if let Some(digits) = text.strip_suffix('%') {
            let percent = number(digits)?;
            return match u8::try_from(percent) {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                _ => Err(wrong()),
            };
        }
        let unit = UNITS.iter().find_map(|(unit, bytes)| Some((text.strip_suffix(unit)?, *bytes)));
        let (digits, unit) = unit.unwrap_or((text, 1));
        number(digits)?.checked_mul(unit).map(Self::Bytes).ok_or_else(wrong)
    }
}

impl fmt::Display for MemorySize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Percent(percent) => write!(f, "{percent}%"),
            Self::Bytes(bytes) => match UNITS.iter().find(|(_, unit)| bytes > 0 && bytes % unit == 0) {
                Some((name, unit)) => write!(f, "{}{name}", bytes / unit),
                None => write!(f, "{bytes}"),
            },
        }
    }
}

impl Serialize for MemorySize {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MemorySize {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Reader;
        impl de::Visitor<'_> for Reader {
            type Value = MemorySize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a size such as \"512MiB\" or a share such as \"70%\"")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<MemorySize, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<MemorySize, E> {
                let bytes = u64::try_from(bytes);
                bytes.map(MemorySize::Bytes).map_err(|_| E::custom("a size is not below zero"))
            }

            fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<MemorySize, E> {
                Ok(MemorySize::Bytes(bytes))
            }
        }
        input.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_shares_are_read_and_shown_alike() {
        for (text, size) in [
            ("70%", MemorySize::Percent(70)),
            ("100%", MemorySize::Percent(100)),
            ("512MiB", MemorySize::Bytes(512 << 20)),
            ("3GiB", MemorySize::Bytes(3 << 30)),
            ("1KiB", MemorySize::Bytes(1 << 10)),
            ("1000", MemorySize::Bytes(1000)),
            ("0", MemorySize::Bytes(0)),
        ] {
            assert_eq!(text.parse(), Ok(size));
            assert_eq!(size.to_string(), text);
        }
        assert_eq!("64 MiB".parse(), Ok(MemorySize::Bytes(64 << 20)));
    }

    #[test]
    fn what_is_neither_is_refused() {
        for text in ["", "%", "0%", "101%", "-1", "512MB", "half", "1.5GiB", "GiB", "18446744073709551615KiB"]
        {
            let error = text.parse::<MemorySize>().expect_err(text);
            assert!(error.starts_with(&format!("\"{text}\" is neither a size")), "{error}");
        }
    }

    #[test]
    fn a_share_is_of_what_there_is() {
        assert_eq!(MemorySize::Percent(70).of(Some(1000)), Some(700));
        assert_eq!(MemorySize::Percent(70).of(None), None);
        assert_eq!(MemorySize::Bytes(5).of(None), Some(5));
    }
}
