"""The simulated node: a model of the amdgpu driver and the front ends that real programs and the daemon meet it by.

Known to wiring, to the `aimd sim` commands and to tests alone.
"""
