"""What the promises about cost are measured with: `python -m benchmarks` lists the benchmarks, README.md tells how."""
