"""What limits and a crowd of mailboxes cost: latency, fairness, rate, chores. `python -m bench.limits`."""
