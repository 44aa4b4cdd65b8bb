"""What administrators ask about credentials: who can and did use which, and which are a risk for lying there.

``usage`` adds up the records of a window of the journal, ``inventory`` lists what there is and who may do what with it,
``access`` and ``stale`` put both together. All of it is names, times and counts: nothing here opens a value.
"""
