"""Looking a node over without a daemon: facts are read (files, processes), findings are decided from them.

Stands apart from the adapters, because aimctl uses it and has to start without them. Neither /dev/kfd nor a render node
is ever opened: that alone would make this process a holder of every GPU.
"""
