"""Moving between Keyhole and other managers of secrets: one flow, from a batch of what was found into a sink, and back.

``reading`` makes batches, ``sinks`` takes them (a vault with its services, or a repo vault), ``flow`` stands between
and says what became of each; ``leaving`` writes what others read.
"""
