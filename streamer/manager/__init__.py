"""Decides what happened and says it: `fleet` is pure, `manager` runs the tasks."""
