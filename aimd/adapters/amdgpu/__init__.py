"""The amdgpu driver through sysfs and KFD sysfs: translates files into values, decides nothing.

Neither /dev/kfd nor a render node is ever opened here: that alone would make the daemon a holder of every GPU.
"""
