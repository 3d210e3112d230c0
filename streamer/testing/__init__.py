"""For those who write a sink: a clock that is moved by hand, fakes of sinks, and the tests that every sink must pass."""
