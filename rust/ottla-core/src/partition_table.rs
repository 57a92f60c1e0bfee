//! (topic id, index) and (name, index) to partition, with what a session needs to know of each.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::partition::Partition;
use crate::storage::log_dir::PartitionId;
use crate::types::{TopicId, TopicPartition};

/// How a request names a topic: by name up to Produce 12 and Fetch 12, by id from 13 on (KIP-516).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum TopicKey {
    /// By name.
    Name(Arc<str>),
    /// By id.
    Id(TopicId),
}

/// Error code of a lookup by name that found nothing.
pub const UNKNOWN_TOPIC_OR_PARTITION: i16 = 3;
/// Error code of a lookup by id that found no such topic.
pub const UNKNOWN_TOPIC_ID: i16 = 100;
/// Error code of a lookup that found a partition whose log could not be opened.
pub const KAFKA_STORAGE_ERROR: i16 = 56;

/// A partition that this broker serves; `T` is what its user attaches to it.
#[derive(Debug)]
pub struct Entry<T> {
    /// The partition itself.
    pub partition: Arc<Partition>,
    /// Its topic and index.
    pub topic_partition: TopicPartition,
    /// Its topic's id.
    pub topic_id: TopicId,
    /// The user's own.
    pub attached: T,
}

#[derive(Debug, Default)]
struct Topic {
    id: TopicId,
    partitions: Vec<Option<PartitionId>>,
}

/// Partitions by id, name and topic id. Ids are given out in order and never reused.
#[derive(Debug)]
pub struct PartitionTable<T> {
    entries: Vec<Option<Box<Entry<T>>>>,
    topics: HashMap<Arc<str>, Topic>,
    names: HashMap<TopicId, Arc<str>>,
    /// Partitions that are led here and have no log: by name and by id.
    unavailable: HashSet<(TopicKey, i32)>,
}

impl<T> Default for PartitionTable<T> {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            topics: HashMap::new(),
            names: HashMap::new(),
            unavailable: HashSet::new(),
        }
    }
}

impl<T> PartitionTable<T> {
    /// The id for the next partition. It counts as given out even if `insert` never comes.
    pub fn next_id(&mut self) -> PartitionId {
        self.entries.push(None);
        PartitionId(self.entries.len() as u64 - 1)
    }

    /// Serve a partition under an id from `next_id`. A partition of the same name must have been removed before.
    ///
    /// # Panics
    /// If the id is taken or was not given out, or a partition or a topic of another id has the name.
    pub fn insert(&mut self, id: PartitionId, entry: Entry<T>) {
        let TopicPartition { topic, partition } = entry.topic_partition.clone();
        let index = usize::try_from(partition).expect("partition indexes start at 0");
        let known = self.topics.entry(Arc::clone(&topic)).or_default();
        if known.partitions.iter().all(Option::is_none) {
            known.id = entry.topic_id;
            self.names.insert(entry.topic_id, topic);
        }
        assert_eq!(known.id, entry.topic_id, "two topics of one name");
        if known.partitions.len() <= index {
            known.partitions.resize(index + 1, None);
        }
        assert!(
            known.partitions[index].replace(id).is_none(),
            "two partitions of one name"
        );
        let slot = &mut self.entries[id.0 as usize];
        assert!(slot.replace(Box::new(entry)).is_none(), "a partition id is used once");
    }

    /// Stop serving a partition.
    pub fn remove(&mut self, id: PartitionId) -> Option<Entry<T>> {
        let entry = self.entries.get_mut(id.0 as usize)?.take()?;
        let name = &entry.topic_partition.topic;
        if let Some(topic) = self.topics.get_mut(name) {
            topic.partitions[entry.topic_partition.partition as usize] = None;
            if topic.partitions.iter().all(Option::is_none) {
                self.names.remove(&topic.id);
                self.topics.remove(name);
            }
        }
        Some(*entry)
    }

    /// A partition by its id.
    pub fn get(&self, id: PartitionId) -> Option<&Entry<T>> {
        self.entries.get(id.0 as usize)?.as_deref()
    }

    /// A partition by its id.
    pub fn get_mut(&mut self, id: PartitionId) -> Option<&mut Entry<T>> {
        self.entries.get_mut(id.0 as usize)?.as_deref_mut()
    }

    /// The id of a partition by name.
    pub fn find(&self, topic: &str, partition: i32) -> Option<PartitionId> {
        let partitions = &self.topics.get(topic)?.partitions;
        partitions.get(usize::try_from(partition).ok()?).copied().flatten()
    }

    /// The id of the partition that a request names.
    ///
    /// # Errors
    /// The error code to answer with.
    pub fn resolve(&self, topic: &TopicKey, partition: i32) -> Result<PartitionId, i16> {
        let name = match topic {
            TopicKey::Name(name) => Some(name),
            TopicKey::Id(id) => self.names.get(id),
        };
        let found = match name {
            Some(name) => self.find(name, partition).ok_or(UNKNOWN_TOPIC_OR_PARTITION),
            None => Err(UNKNOWN_TOPIC_ID),
        };
        let is_unavailable = || !self.unavailable.is_empty() && self.unavailable.contains(&(topic.clone(), partition));
        found.map_err(|code| if is_unavailable() { KAFKA_STORAGE_ERROR } else { code })
    }

    /// Name all partitions that are led here and whose logs could not be opened.
    pub fn set_unavailable(&mut self, partitions: impl IntoIterator<Item = (TopicPartition, TopicId)>) {
        self.unavailable.clear();
        for (TopicPartition { topic, partition }, id) in partitions {
            self.unavailable.insert((TopicKey::Name(topic), partition));
            self.unavailable.insert((TopicKey::Id(id), partition));
        }
    }

    /// The shared copy of a topic's name, so that keys of known topics cost no allocation.
    pub fn key_by_name(&self, name: &str) -> TopicKey {
        let known = self.topics.get_key_value(name).map(|(known, _)| Arc::clone(known));
        TopicKey::Name(known.unwrap_or_else(|| Arc::from(name)))
    }

    /// The name of the topic that a key means, if it is known.
    pub fn name<'a>(&'a self, key: &'a TopicKey) -> Option<&'a str> {
        match key {
            TopicKey::Name(name) => Some(name),
            TopicKey::Id(id) => self.names.get(id).map(|name| &**name),
        }
    }

    /// All partitions, in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (PartitionId, &Entry<T>)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(i, entry)| Some((PartitionId(i as u64), entry.as_deref()?)))
    }
}
