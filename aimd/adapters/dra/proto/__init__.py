"""Messages between kubelet and driver. The Python files are generated: `python -m tests.dra.generated` writes them."""
