"""Kafka: a record per message, keyed by container, CloudEvents attributes as headers (Kafka protocol binding 1.0, binary mode).

sink.py      the three methods of `contracts.Sink`: what is sent where, what is isolated, what is said
producer.py  an idempotent producer on top of aiokafka's client: an id, sequence numbers, requests
records.py   record batches, produce.py  the request that carries them: packed by hand
refusals.py  the broker's error codes: what each means for a batch, and what the operator can do
topics.py    creates the topics and compares their settings
"""

from streamer.sinks.kafka.sink import KafkaSink
from streamer.sinks.kafka.topics import TopicReport, create_topics

__all__ = ["KafkaSink", "TopicReport", "create_topics"]
