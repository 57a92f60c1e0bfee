//! Each codec: hostile streams stay within the limit, and what was compressed comes back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ottla_core::compression::{Codec, Compression, Decoder, compress, decompress};

const LIMIT_BYTES: usize = 1 << 20;
/// What one piece may hold beyond the limit.
const PIECE_BYTES_MAX: usize = 5 << 20;

fuzz_target!(|data: &[u8]| {
    let Some((&choice, payload)) = data.split_first() else {
        return;
    };
    let codec = Codec::ALL[usize::from(choice) % Codec::ALL.len()];
    let mut decoder = Decoder::new(codec, payload, LIMIT_BYTES);
    let mut piece = Vec::new();
    while let Ok(true) = decoder.next_chunk(&mut piece) {
        assert!(
            piece.len() <= PIECE_BYTES_MAX,
            "{codec:?} gave {} bytes at once",
            piece.len()
        );
        piece.clear();
    }
    let packed = compress(Compression { codec, level: None }, payload, Vec::new()).expect("the default level");
    assert_eq!(
        decompress(codec, &packed, payload.len()).expect("our own stream"),
        payload
    );
});
