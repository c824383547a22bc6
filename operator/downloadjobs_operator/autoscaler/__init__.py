"""Workers follow the queue: how many there should be, why, and which may go.

`decision`, `wording`, `limits`, `history`, `traces`, `simulation` and `policies` know neither Kubernetes nor
Redis: the command line imports them without the operator's extra.
"""
