"""Keyhole against nginx: the same work on the same core in one run, so that the results are ratios and not times.

    python -m bench                       every case, three rounds of two seconds
    python -m bench plain-64 tls-64       some cases
    python -m bench --json result.json    the raw numbers too

The subject has one core; the load generator and the upstream share the other. The upstream answers 401 unless the real
credential arrives, and only answers with status 200 count: every counted request proves an injection. It needs nginx,
and Linux for ``sched_setaffinity`` and ``/proc``. What the cases are and what came out stands in docs/benchmarks.md.
"""
