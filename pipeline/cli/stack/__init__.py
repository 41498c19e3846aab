"""`forefill up`: the whole of Forefill on one machine, as processes that are started by command and watched.

Nothing here imports a service: the supervisor knows how each is started, how to see that it works, and where it logs.
"""
