"""How arguments, results, errors and code become bytes, and what is kept in Ray's object store instead."""
