//! The request header in its versions 1 and 2, and which APIs exist.
//!
//! Version 2 (KIP-482) is used by the flexible versions of an API; it differs by tagged fields after the client id, which
//! itself stays in the old encoding. Version 0 went away with `ControlledShutdown` 0.

use std::borrow::Cow;

use crate::wire::{Reader, WireError};

/// `ApiKeys.PRODUCE`.
pub const PRODUCE: i16 = 0;
/// `ApiKeys.FETCH`.
pub const FETCH: i16 = 1;

const NEVER: i16 = i16::MAX;

const API_VERSIONS: i16 = 18;

/// First flexible version of each API of Apache Kafka 4.3 by its key; None where no such API exists (any more).
/// Source: `flexibleVersions` of Kafka's request schemas.
#[rustfmt::skip]
const FLEXIBLE_FROM: [Option<i16>; 93] = [
    /* 0 */ Some(9), Some(12), Some(6), Some(9), None, None, None, None, Some(8), Some(6),
    /* 10 */ Some(3), Some(6), Some(4), Some(4), Some(4), Some(5), Some(3), Some(NEVER), Some(3), Some(5),
    /* 20 */ Some(4), Some(2), Some(2), Some(4), Some(3), Some(3), Some(3), Some(1), Some(3), Some(2),
    /* 30 */ Some(2), Some(2), Some(4), Some(2), Some(2), Some(2), Some(2), Some(2), Some(2), Some(2),
    /* 40 */ Some(2), Some(2), Some(2), Some(2), Some(1), Some(0), Some(0), Some(NEVER), Some(1), Some(1),
    /* 50 */ Some(0), Some(0), Some(0), Some(1), Some(1), Some(0), Some(0), Some(0), Some(0), Some(0),
    /* 60 */ Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0),
    /* 70 */ Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0),
    /* 80 */ Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0), Some(0),
    /* 90 */ Some(0), Some(0), Some(0),
];

/// Why a header is refused. The connection is to be closed: no answer can be encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// No API has this key.
    #[error("request of unknown API {api_key} (version {api_version})")]
    UnknownApi {
        /// The key.
        api_key: i16,
        /// The version.
        api_version: i16,
    },
    /// The bytes are no header.
    #[error("malformed request header: {0}")]
    Malformed(#[from] WireError),
}

/// A request's header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader<'a> {
    /// Which API.
    pub api_key: i16,
    /// Version of the body.
    pub api_version: i16,
    /// Returned in the response.
    pub correlation_id: i32,
    /// What the client calls itself.
    pub client_id: Option<Cow<'a, str>>,
}

impl<'a> RequestHeader<'a> {
    /// Read the header; the body is what is left in `reader`.
    pub fn read(reader: &mut Reader<'a>) -> Result<Self, HeaderError> {
        let api_key = reader.i16()?;
        let api_version = reader.i16()?;
        let flexible_from = usize::try_from(api_key)
            .ok()
            .and_then(|key| FLEXIBLE_FROM.get(key).copied().flatten());
        // ApiVersions is answered whatever its version, so that client and broker can agree on one (KIP-511).
        let is_acceptable = api_version >= 0 || api_key == API_VERSIONS;
        let Some(flexible_from) = flexible_from.filter(|_| is_acceptable) else {
            return Err(HeaderError::UnknownApi { api_key, api_version });
        };
        let correlation_id = reader.i32()?;
        let client_id = reader.nullable_string_lossy("client id")?;
        reader.skip_tagged_fields(api_version >= flexible_from)?;
        Ok(Self {
            api_key,
            api_version,
            correlation_id,
            client_id,
        })
    }
}
