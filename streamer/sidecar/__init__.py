"""The query sidecar: recent state over HTTP, read-only, from memory.

listen.py       address -> listening socket; what may not be bound is refused
access.py       who may ask what: pure decisions; gate.py asks them for each request, before the application
tokens.py       the file of tokens; tls.py: certificates; private.py: files that others must not read
handshake.py    a TLS connection until it speaks HTTP
connection.py   what one client may cost: connections, size and time of a request, time to take the answer
server.py       `Sidecar`: the embedded server, from start to graceful end
application.py  a request finds its row, waits for its turn, is answered, is counted
exchange.py     bodies and answers on the wire: whole, piece by piece, or as long as something happens
slots.py        turns of large answers
routes.py       the table of routes; route.py: what a row says
query.py        what may stand in a query string; refusals as JSON
api.py          the health routes, and of our own API hosts, events and the stream: pure functions from memory to bodies
containers.py   containers in our own API: lists, one, rates, series; rates.py: what is used, by samples; recent.py: samples
events.py       `/events`; following.py: which records a client is told, where it goes on, what it has missed
feed.py         what there is to tell to clients of `/events`, once for all of them
cadvisor.py     cAdvisor's API: paths, bodies and texts, on `streamer.cadvisor`
validate.py     `/validate/`
openapi.py      the OpenAPI document of the table; shapes.py: types of our own answers for it
metrics.py      `/metrics`: which format, the body in pieces
families.py     the table of container and machine families, by cAdvisor's names; container_metrics.py: these as text
prometheus.py   the agent's own metrics as text; loop_delay.py: how late the event loop is
textformat.py   Prometheus' and OpenMetrics' text formats
"""
