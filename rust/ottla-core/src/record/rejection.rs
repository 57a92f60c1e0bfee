//! Why a produced batch is refused, in the codes of Kafka's `Errors`.

use super::batch::BatchError;
use super::records::RecordsError;
use crate::compression::CompressionError;

pub(super) const UNKNOWN_SERVER_ERROR: i16 = -1;
pub(super) const CORRUPT_MESSAGE: i16 = 2;
pub(super) const MESSAGE_TOO_LARGE: i16 = 10;
pub(super) const INVALID_TIMESTAMP: i16 = 32;
pub(super) const UNSUPPORTED_COMPRESSION_TYPE: i16 = 76;
pub(super) const INVALID_RECORD: i16 = 87;

/// Why a batch is refused, as the produce response says it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProduceRejection {
    /// Kafka's error code.
    pub code: i16,
    /// For the response's `error_message`.
    pub message: String,
    /// `(index of the record in the batch, message)`, for responses from v8 on.
    pub record_errors: Vec<(i32, Option<String>)>,
    /// The request itself is wrong, whatever the log: Kafka refuses it before it looks for one.
    pub is_of_request: bool,
}

pub(super) fn reject(code: i16, message: impl Into<String>) -> ProduceRejection {
    ProduceRejection {
        code,
        message: message.into(),
        record_errors: Vec::new(),
        is_of_request: false,
    }
}

impl ProduceRejection {
    pub(super) fn of_request(self) -> Self {
        Self {
            is_of_request: true,
            ..self
        }
    }
}

impl From<BatchError> for ProduceRejection {
    fn from(error: BatchError) -> Self {
        let code = match error {
            BatchError::UnknownCodec { .. } => UNKNOWN_SERVER_ERROR, // Kafka's answer, odd as it is
            _ => CORRUPT_MESSAGE,
        };
        reject(code, error.to_string())
    }
}

impl From<RecordsError> for ProduceRejection {
    fn from(error: RecordsError) -> Self {
        match error {
            RecordsError::Batch(error) => error.into(),
            RecordsError::Compression(CompressionError::ExpansionLimit { .. }) => {
                reject(MESSAGE_TOO_LARGE, error.to_string())
            }
            // Kafka's answer: the exception of its codec library has no code of its own
            RecordsError::Compression(_) => reject(UNKNOWN_SERVER_ERROR, error.to_string()),
            _ => reject(INVALID_RECORD, error.to_string()),
        }
    }
}
