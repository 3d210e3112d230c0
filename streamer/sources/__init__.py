"""Sources watch one part of the host each and emit observations: cgroups, the kernel log, the Docker Engine, the machine."""
