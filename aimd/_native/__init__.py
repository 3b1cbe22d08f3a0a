"""The compiled modules of native/ and their type stubs; built by setup.py, specified by aimd.dispatch.reference."""
