# cython: language_level=3
"""HIP by dlopen: twelve functions of libamdhip64, looked up by name and called without any of its structs.

For the helper process alone: the first call opens /dev/kfd, and whoever did that holds every GPU until it dies. Neither
building nor importing needs ROCm. The functions have had the same ABI since ROCm 4.2 (hipDeviceGetUuid: 5.1); the
sonames are those of ROCm 7, 6 and 5. Nothing is ever unloaded: the library registers handlers of the process's exit.
"""

from libc.stddef cimport size_t

SONAMES = ("libamdhip64.so.7", "libamdhip64.so.6", "libamdhip64.so.5", "libamdhip64.so")
NO_DEVICE = frozenset({100, 101})  # hipErrorNoDevice; hipErrorInvalidDevice, which ROCm 5 says in its place

cdef extern from "dlfcn.h" nogil:
    ctypedef struct Dl_info:
        const char* dli_fname
    int RTLD_NOW, RTLD_LOCAL
    void* dlopen(const char* path, int flags)
    void* dlsym(void* library, const char* name)
    char* dlerror()
    int dladdr(const void* address, Dl_info* found)

cdef extern from "sys/prctl.h" nogil:
    int PR_SET_PDEATHSIG
    int prctl(int option, ...)

cdef extern from "sys/resource.h" nogil:
    struct rlimit:
        unsigned long rlim_cur
        unsigned long rlim_max
    int RLIMIT_CORE
    int setrlimit(int resource, const rlimit* limits)

cdef extern from "signal.h" nogil:
    int SIGKILL

cdef extern from "unistd.h" nogil:
    int getppid()
    unsigned int alarm(unsigned int seconds)

ctypedef int (*IntoNothing)(unsigned int) noexcept nogil
ctypedef int (*IntoNumber)(int*) noexcept nogil
ctypedef int (*OfDevice)(int) noexcept nogil
ctypedef int (*IntoMemory)(size_t*, size_t*) noexcept nogil
ctypedef int (*IntoTotal)(size_t*, int) noexcept nogil
ctypedef int (*IntoText)(char*, int, int) noexcept nogil
ctypedef int (*IntoBytes)(char*, int) noexcept nogil
ctypedef int (*IntoAttribute)(int*, int, int) noexcept nogil
ctypedef const char* (*OfError)(int) noexcept nogil


class LibraryError(Exception):
    """libamdhip64 cannot be used; `tried` has (name, what the loader said) of each attempt."""

    def __init__(self, tried):
        super().__init__("; ".join(f"{name}: {reason}" for name, reason in tried))
        self.tried = tuple(tried)


class LibraryAbsentError(LibraryError):
    """It is nowhere where the loader looks."""


class LibraryUnusableError(LibraryError):
    """It is there, but cannot be loaded, or it has not the functions."""


class HipError(Exception):
    """A call failed: its name, HIP's number, and HIP's own name and text for that."""

    def __init__(self, call, code, name, text):
        super().__init__(f"{call} failed with {name} ({code}): {text}")
        self.call = call
        self.code = code
        self.name = name
        self.text = text


class NoDeviceError(HipError):
    """There is no device that this process may use, or there was none when HIP looked: it never looks again."""


def guard(int parent, unsigned int seconds):
    """Die with the parent process, and after so many seconds in any case; leave no core file behind.

    False if the parent is gone already. The alarm ends a process that hangs inside a library, too.
    """
    cdef rlimit none
    none.rlim_cur = none.rlim_max = 0
    setrlimit(RLIMIT_CORE, &none)
    alarm(seconds)
    prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)
    return getppid() == parent


cdef class Hip:
    """The loaded library.

    Args:
        path: of the library; by default the first of SONAMES that the loader finds.

    Raises LibraryAbsentError or LibraryUnusableError. Every method raises HipError, NoDeviceError where HIP says that
    there is no device.
    """

    cdef readonly str path
    cdef IntoNothing _init
    cdef IntoNumber _device_count
    cdef OfDevice _set_device
    cdef IntoMemory _memory
    cdef IntoTotal _total_memory
    cdef IntoText _pci_bus_id
    cdef IntoBytes _uuid
    cdef IntoAttribute _attribute
    cdef IntoNumber _runtime_version
    cdef IntoNumber _driver_version
    cdef OfError _error_name
    cdef OfError _error_string

    def __cinit__(self, path=None):
        cdef void* library = NULL
        tried = []
        for name in SONAMES if path is None else (path,):
            encoded = name.encode("utf-8", "surrogateescape")
            library = dlopen(encoded, RTLD_NOW | RTLD_LOCAL)
            if library != NULL:
                self._bind(name, library)
                return
            tried.append((name, _loader_error().removeprefix(f"{name}: ")))
        # Of a file that is there glibc names what is wrong with it, or the library that it needs in its turn.
        absent = all(reason.startswith("cannot open shared object file: No such file") for _, reason in tried)
        raise (LibraryAbsentError if absent else LibraryUnusableError)(tried)

    cdef _bind(self, name, void* library):
        cdef Dl_info found
        missing = []
        self._init = <IntoNothing> _symbol(library, b"hipInit", missing)
        self._device_count = <IntoNumber> _symbol(library, b"hipGetDeviceCount", missing)
        self._set_device = <OfDevice> _symbol(library, b"hipSetDevice", missing)
        self._memory = <IntoMemory> _symbol(library, b"hipMemGetInfo", missing)
        self._total_memory = <IntoTotal> _symbol(library, b"hipDeviceTotalMem", missing)
        self._pci_bus_id = <IntoText> _symbol(library, b"hipDeviceGetPCIBusId", missing)
        self._uuid = <IntoBytes> _symbol(library, b"hipDeviceGetUuid", missing)
        self._attribute = <IntoAttribute> _symbol(library, b"hipDeviceGetAttribute", missing)
        self._runtime_version = <IntoNumber> _symbol(library, b"hipRuntimeGetVersion", missing)
        self._driver_version = <IntoNumber> _symbol(library, b"hipDriverGetVersion", missing)
        self._error_name = <OfError> _symbol(library, b"hipGetErrorName", missing)
        self._error_string = <OfError> _symbol(library, b"hipGetErrorString", missing)
        if missing:
            raise LibraryUnusableError([(name, f"it has no {', '.join(missing)}")])
        self.path = name
        if dladdr(<void*> self._init, &found) and found.dli_fname != NULL:
            self.path = found.dli_fname.decode("utf-8", "surrogateescape")

    def init(self):
        """hipInit: this process is a KFD client from now on. A failed one is never tried again by HIP."""
        cdef int code
        with nogil:
            code = self._init(0)
        self._check("hipInit", code)

    def device_count(self):
        cdef int code, count = 0
        with nogil:
            code = self._device_count(&count)
        self._check("hipGetDeviceCount", code)
        return count

    def set_device(self, int device):
        """Make it the device of the calling thread."""
        cdef int code
        with nogil:
            code = self._set_device(device)
        self._check("hipSetDevice", code)

    def memory(self):
        """(free, total) bytes of the calling thread's device."""
        cdef int code
        cdef size_t free = 0, total = 0
        with nogil:
            code = self._memory(&free, &total)
        self._check("hipMemGetInfo", code)
        return free, total

    def total_memory(self, int device):
        cdef int code
        cdef size_t total = 0
        with nogil:
            code = self._total_memory(&total, device)
        self._check("hipDeviceTotalMem", code)
        return total

    def pci_bus_id(self, int device):
        """`0000:05:00.3`: the function is the partition's index."""
        cdef int code
        cdef char text[64]
        text[0] = text[63] = 0
        with nogil:
            code = self._pci_bus_id(text, 63, device)
        self._check("hipDeviceGetPCIBusId", code)
        return text.decode("ascii", "replace")

    def uuid(self, int device):
        """Sixteen bytes: the hexadecimal digits of KFD's unique_id."""
        cdef int code
        cdef char sixteen[16]
        sixteen[:] = [0] * 16
        with nogil:
            code = self._uuid(sixteen, device)
        self._check("hipDeviceGetUuid", code)
        return sixteen[:16]

    def attribute(self, int attribute, int device):
        """A value of hipDeviceAttribute_t, by its number."""
        cdef int code, value = 0
        with nogil:
            code = self._attribute(&value, attribute, device)
        self._check("hipDeviceGetAttribute", code)
        return value

    def runtime_version(self):
        """major * 10**7 + minor * 10**5 + patch."""
        cdef int code, version = 0
        with nogil:
            code = self._runtime_version(&version)
        self._check("hipRuntimeGetVersion", code)
        return version

    def driver_version(self):
        cdef int code, version = 0
        with nogil:
            code = self._driver_version(&version)
        self._check("hipDriverGetVersion", code)
        return version

    cdef _check(self, call, int code):
        if code != 0:
            kind = NoDeviceError if code in NO_DEVICE else HipError
            raise kind(call, code, _text(self._error_name(code)), _text(self._error_string(code)))


cdef void* _symbol(void* library, const char* name, list missing) except? NULL:
    cdef void* found = dlsym(library, name)
    if found == NULL:
        missing.append(name.decode())
    return found


cdef _loader_error():
    cdef const char* said = dlerror()
    return _text(said)


cdef _text(const char* said):
    return said.decode("utf-8", "replace") if said != NULL else "no text"
