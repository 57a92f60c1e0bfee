"""Ottla's Kafka client, for asyncio and trio alike (anyio): producer, consumer, administration."""

from ottla.client.admin import Admin
from ottla.client.configs import AlterOperation, ConfigEntry, ResourceType
from ottla.client.consumer import Consumer
from ottla.client.core.records import ConsumerRecord, OffsetAndMetadata, RecordMetadata
from ottla.client.producer import Delivery, Producer
from ottla.client.topics import NewTopic
from ottla.common.topic_partition import TopicPartition

__all__ = [
    "Admin",
    "AlterOperation",
    "ConfigEntry",
    "Consumer",
    "ConsumerRecord",
    "Delivery",
    "NewTopic",
    "OffsetAndMetadata",
    "Producer",
    "RecordMetadata",
    "ResourceType",
    "TopicPartition",
]
