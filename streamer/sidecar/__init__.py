"""The query sidecar: recent state over HTTP, read-only, from memory.

listen.py      address -> listening socket; what may not be bound is refused
connection.py  what one client may cost: connections, size and time of a request, time to take the answer
server.py      `Sidecar`: the embedded server, from start to graceful end
routes.py      the table of routes, and the application made of it
query.py       what may stand in a query string; refusals as JSON
api.py         our own API and the health routes: pure functions from memory to bodies
metrics.py     `/metrics`: which format, the body in chunks
families.py    the table of container and machine families, by cAdvisor's names
container_metrics.py  these as text
prometheus.py  the agent's own metrics as text
textformat.py  Prometheus' and OpenMetrics' text formats
loop_delay.py  how late the event loop is
"""
