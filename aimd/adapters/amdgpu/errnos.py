"""What an errno of reading a driver's file says: that the file is not there, or that it could not be read just now.

The difference matters: an absent file is a fact about the node, a failed reading is none.
"""

from __future__ import annotations

import errno
import os

from aimd.errors import DriverError

ABSENT = frozenset({errno.ENOENT, errno.ENODEV, errno.ENOTDIR})  # ENODEV: the device left while the file was open
OWN_WANT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})  # of this process or machine, not of the file


def unreadable(error: OSError, path: str, what: str) -> DriverError:
    """A DriverError that keeps the errno of a reading that failed; `what` is the object, in words."""
    code = error.errno or errno.EIO
    name = errno.errorcode.get(code, str(code))
    return DriverError(f"{what} could not be read: {path} answers {name} ({os.strerror(code)})", errno=code, path=path)
