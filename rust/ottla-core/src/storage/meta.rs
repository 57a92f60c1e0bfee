//! `meta.properties` of a log directory and `partition.metadata` of a partition, as Kafka writes them.

use std::io;
use std::path::Path;

use super::fs::LogFs;
use crate::error::{Error, Result};
use crate::types::TopicId;

/// Name of the file that says whose a log directory is.
pub const META_PROPERTIES: &str = "meta.properties";
/// Name of the file that says which topic a partition's directory belongs to.
pub const PARTITION_METADATA: &str = "partition.metadata";

/// What `meta.properties` says (version 1, as Kafka writes it since 3.7).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LogDirMeta {
    /// `cluster.id`.
    pub cluster_id: String,
    /// `node.id`.
    pub node_id: i32,
    /// `directory.id`: a uuid in Kafka's base64 form.
    pub directory_id: String,
}

impl LogDirMeta {
    pub(crate) fn encode(&self) -> String {
        format!(
            "version=1\ncluster.id={}\nnode.id={}\ndirectory.id={}\n",
            self.cluster_id, self.node_id, self.directory_id
        )
    }

    pub(crate) fn owner(&self) -> String {
        format!("node {} of cluster {}", self.node_id, self.cluster_id)
    }
}

/// What `meta.properties` of a log directory says; `None` if there is none.
pub(crate) fn read(fs: &dyn LogFs, dir: &Path) -> Result<Option<LogDirMeta>> {
    let path = dir.join(META_PROPERTIES);
    let content = match fs.read(&path) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::storage("reading meta.properties")(error)),
    };
    let malformed = |reason: &str| Error::MalformedFile {
        file: path.display().to_string(),
        reason: reason.to_owned(),
    };
    let text = String::from_utf8(content).map_err(|_| malformed("not text"))?;
    let value = |key: &str| {
        // java.util.Properties: comments begin with # or !, and some writers escape the colon or equals sign.
        text.lines()
            .filter(|line| !line.starts_with(['#', '!']))
            .filter_map(|line| line.split_once('='))
            .find(|(found, _)| found.trim() == key)
            .map(|(_, value)| value.trim().replace('\\', ""))
    };
    if value("version").as_deref() != Some("1") {
        return Err(malformed("version is not 1"));
    }
    Ok(Some(LogDirMeta {
        cluster_id: value("cluster.id").ok_or_else(|| malformed("cluster.id is missing"))?,
        node_id: value("node.id")
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| malformed("node.id is missing or no number"))?,
        directory_id: value("directory.id").unwrap_or_default(),
    }))
}

/// The text of `partition.metadata`.
pub(crate) fn encode_partition(topic_id: TopicId) -> String {
    format!("version: 0\ntopic_id: {}", encode_uuid(topic_id))
}

/// The topic id in a `partition.metadata`; `None` if the text is not one (it is made anew then: the metadata log knows).
pub(crate) fn decode_partition(content: &[u8]) -> Option<TopicId> {
    let text = std::str::from_utf8(content).ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    if value("version:")? != "0" {
        return None;
    }
    decode_uuid(value("topic_id:")?)
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Kafka's text form of a uuid: base64 for URLs, without padding (22 characters).
pub fn encode_uuid(id: TopicId) -> String {
    let mut text = String::with_capacity(22);
    for chunk in id.0.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(group);
        for digit in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(group >> (18 - 6 * digit)) as usize & 63]));
        }
    }
    text
}

/// Read Kafka's text form of a uuid.
pub fn decode_uuid(text: &str) -> Option<TopicId> {
    if text.len() != 22 {
        return None;
    }
    let mut bits = 0_u128;
    let digits: Option<Vec<u128>> = text
        .bytes()
        .map(|byte| {
            ALPHABET
                .iter()
                .position(|&digit| digit == byte)
                .map(|digit| digit as u128)
        })
        .collect();
    let digits = digits?;
    for digit in &digits[..21] {
        bits = bits << 6 | digit;
    }
    // The last digit holds two bits of the uuid and four zeros.
    (digits[21] % 16 == 0).then(|| TopicId((bits << 2 | digits[21] >> 4).to_be_bytes()))
}
