//! Compression codecs of record batches: one file a codec, one limit on expansion.
