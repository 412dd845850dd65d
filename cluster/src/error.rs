//! Errors as clients see them: few, stable, and each meaning what the caller should do.
//!
//! One table ([`ErrorCode::row`]) maps every code to its HTTP status, Redis error, and exit code, so that
//! all doors say the same thing. A variant exists only because some caller acts differently on it.

use serde::{Deserialize, Serialize};
use std::fmt;

/// What the caller should do about a failed operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The request itself is wrong; sending it again cannot help.
    Invalid,
    /// A key, value, or frame is over its limit; sending it again cannot help.
    TooLarge,
    /// A keyspace, transaction, or path that does not exist.
    NotFound,
    /// A compare-and-set condition did not hold. Nothing was written; read again, then decide.
    ConditionFailed,
    /// A transaction lost against another one. Nothing was written; run it again.
    Conflict,
    /// Not done: no leader, a cut network, or a node that is stopping. Retry elsewhere or later.
    Unavailable,
    /// May or may not have been done. Ask for the outcome or read before writing again.
    Unknown,
    /// Not done: some bound is full. Back off, then retry.
    Overloaded,
    /// Not allowed.
    Denied,
    /// A fault in TranDB itself; the outcome of a write is unknown.
    Internal,
}

/// How one code shows at each door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The stable name, as in `"code": "unavailable"`.
    pub name: &'static str,
    /// HTTP status.
    pub http: u16,
    /// First word of a Redis error.
    pub resp: &'static str,
    /// Exit code of `trandb` (sysexits).
    pub exit: u8,
    /// Whether the same request may be sent again as it is: it was surely not done, and may succeed later.
    pub retryable: bool,
    /// One line for people.
    pub title: &'static str,
}

impl ErrorCode {
    /// Every code, for tables and tests.
    pub const ALL: [Self; 10] = [
        Self::Invalid,
        Self::TooLarge,
        Self::NotFound,
        Self::ConditionFailed,
        Self::Conflict,
        Self::Unavailable,
        Self::Unknown,
        Self::Overloaded,
        Self::Denied,
        Self::Internal,
    ];

    /// The one table of codes.
    pub const fn row(self) -> Row {
        const fn row(
            name: &'static str,
            http: u16,
            resp: &'static str,
            exit: u8,
            retryable: bool,
            title: &'static str,
        ) -> Row {
            Row { name, http, resp, exit, retryable, title }
        }
        match self {
            Self::Invalid => row("invalid", 400, "ERR", 2, false, "The request is not valid"),
            Self::TooLarge => row("too_large", 413, "ERR", 2, false, "Over a size limit"),
            Self::NotFound => row("not_found", 404, "ERR", 1, false, "No such thing"),
            Self::ConditionFailed => {
                row("condition_failed", 412, "CONDITION", 1, false, "The condition did not hold")
            }
            Self::Conflict => row("conflict", 409, "CONFLICT", 75, false, "The transaction lost a conflict"),
            Self::Unavailable => row("unavailable", 503, "TRYAGAIN", 69, true, "Not available now"),
            Self::Unknown => row("unknown", 504, "UNKNOWN", 75, false, "The outcome is unknown"),
            Self::Overloaded => row("overloaded", 429, "BUSY", 75, true, "Too much at once"),
            Self::Denied => row("denied", 403, "NOPERM", 77, false, "Not allowed"),
            Self::Internal => row("internal", 500, "ERR", 1, false, "A fault in the database"),
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().name)
    }
}

/// A failed operation: a stable code and, for people, what happened with which values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Error {
    /// What the caller should do.
    pub code: ErrorCode,
    /// Lower case, what happened, then the values.
    pub message: String,
    /// What is full is memory: that passes when something is deleted or memory added, seldom within a moment. Only with
    /// the code [`ErrorCode::Overloaded`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub out_of_memory: bool,
}

macro_rules! constructors {
    ($($name:ident => $code:ident),* $(,)?) => {
        $(
            #[doc = concat!("An error with code [`ErrorCode::", stringify!($code), "`].")]
            pub fn $name(message: impl Into<String>) -> Self {
                Self { code: ErrorCode::$code, message: message.into(), out_of_memory: false }
            }
        )*
    };
}

impl Error {
    constructors! {
        invalid => Invalid,
        too_large => TooLarge,
        not_found => NotFound,
        condition_failed => ConditionFailed,
        conflict => Conflict,
        unavailable => Unavailable,
        unknown => Unknown,
        overloaded => Overloaded,
        denied => Denied,
        internal => Internal,
    }

    /// An error with code [`ErrorCode::Overloaded`]: nothing more is put where it should be kept in memory.
    pub fn out_of_memory(message: impl Into<String>) -> Self {
        Self { out_of_memory: true, ..Self::overloaded(message) }
    }

    /// The HTTP status: that of its code's row, but for a lack of memory, which is a lack of room (507) rather than too
    /// much at once.
    pub fn http(&self) -> u16 {
        if self.out_of_memory { 507 } else { self.code.row().http }
    }

    /// Whether the same request may be sent again as it is.
    pub fn is_retryable(&self) -> bool {
        self.code.row().retryable
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_name_and_serializes_as_it() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            let row = code.row();
            assert!(seen.insert(row.name), "{} stands twice", row.name);
            let bytes = rmp_serde::to_vec_named(&code).expect("encodes");
            assert_eq!(rmp_serde::from_slice::<String>(&bytes).expect("is its name"), row.name);
            assert!((400..600).contains(&row.http));
        }
    }

    #[test]
    fn a_lack_of_memory_is_told_from_other_overload_and_absent_otherwise() {
        for (error, http) in [(Error::out_of_memory("full"), 507), (Error::overloaded("busy"), 429)] {
            let bytes = rmp_serde::to_vec_named(&error).expect("encodes");
            let decoded: Error = rmp_serde::from_slice(&bytes).expect("decodes");
            assert_eq!((&decoded, decoded.http()), (&error, http));
            assert!(decoded.is_retryable());
        }
        let bytes = rmp_serde::to_vec_named(&Error::overloaded("busy")).expect("encodes");
        assert!(!bytes.windows(6).any(|part| part == b"memory"), "older clients know nothing of it");
    }
}
