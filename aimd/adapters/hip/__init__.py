"""HIP behind a port: a helper process that is started, asked once, and gone.

HIP never runs in the daemon: whoever opens /dev/kfd is a client of every GPU until it dies, and no GPU with a client
can change its compute mode. `child` is the helper's program, `answer` judges what it says, `probe` starts and ends it.
"""
