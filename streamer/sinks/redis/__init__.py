"""Redis Streams: one stream per topic and host, the present state in a hash, the hosts in a sorted set.

    streamer:{<host id>}:lifecycle|oom|stats|host|control   streams; fields: the CloudEvents attributes and `data`
    streamer:{<host id>}:state                              hash: container id -> ContainerState
    streamer:hosts                                          sorted set: host id by the time of its last control message

The braces are a hash tag: all keys of a host live in one slot of a cluster.

    sink.py      the three methods of `contracts.Sink`: ids, replays, what a server has lost
    resp.py      commands to bytes, bytes to replies
    refusals.py  error replies: what each means, and what the operator can do
"""

from streamer.sinks.redis.sink import RedisSink

__all__ = ["RedisSink"]
