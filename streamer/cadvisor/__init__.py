"""cAdvisor's vocabulary, made from memory: its shapes, its manager's operations, its events.

go.py                      times, durations and truth values as Go writes them
shapes.py, shapes_v2.py    the JSON, v1 and v2
requests.py, errors.py     what may be asked, and how it fails
"""
