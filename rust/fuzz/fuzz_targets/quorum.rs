//! What other voters send and what lies in the metadata log's directory.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use ottla_core::quorum::snapshot::SnapshotId;
use ottla_core::quorum::{entry, message, snapshot};
use ottla_core::record::batch::{BATCH_OVERHEAD, BatchView, stamp_crc};

fuzz_target!(|data: &[u8]| {
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(read) = message::decode(&bytes) {
        let _ = message::encode(&read);
    }
    let _ = message::split_snapshot_data(&bytes);
    if let Ok(name) = std::str::from_utf8(data) {
        let _ = SnapshotId::from_file_name(name);
    }
    let mut sealed = data.to_vec();
    if sealed.len() >= BATCH_OVERHEAD {
        let length = i32::try_from(sealed.len() - 12).expect("libFuzzer's inputs are small");
        sealed[8..12].copy_from_slice(&length.to_be_bytes());
        sealed[16] = 2;
        stamp_crc(&mut sealed);
    }
    for content in [bytes, Bytes::from(sealed)] {
        if let Ok(batch) = BatchView::parse(&content)
            && entry::check(&batch).is_ok()
        {
            let _ = entry::values(&content);
            let _ = entry::control_records(&content);
        }
        let id = SnapshotId::from_file_name("00000000000000000007-0000000001.checkpoint").expect("a name");
        let _ = snapshot::decode(id, &content);
    }
});
