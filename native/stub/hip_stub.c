/*
 * A stand-in for libamdhip64 on a simulated node: the functions that aimd calls, answered from the node's control
 * socket (AIMD_SIM_SOCKET), with what the real library does to a process:
 *
 * - The first call that needs a device makes the process a KFD client until it dies; without a socket, without a GPU
 *   node or while a mode switch runs it fails, and a failed start is never tried again.
 * - Devices and their order are those of that moment, filtered by ROCR_VISIBLE_DEVICES, then by HIP_VISIBLE_DEVICES (or
 *   CUDA_VISIBLE_DEVICES): an index that is none, or a name that is unknown, ends a list.
 * - hipMalloc holds memory in the simulated node until hipFree or the end of the process. The address that it gives is
 *   memory of the host, one page at most.
 *
 * Compiled by the tests, cc -shared -fPIC -pthread. Macros choose a flavour:
 *
 *   HIP_MAJOR=5|6|7     release: version, which error says "no device", whether errors have texts; 6 by default
 *   INIT_MILLISECONDS   how long the start takes, MILLISECONDS_PER_DEVICE: and how much longer with each device
 *   STUB_FAULT          FAULT_HANG, FAULT_CRASH (both inside the start, when the process is a client), FAULT_FREE (more
 *                       is free than there is), FAULT_DEVICES (one device more than there are), FAULT_BUS (of a GPU
 *                       that does not exist), FAULT_EMPTY (no memory at all), FAULT_NOISE (prints a lot)
 *
 * AIMD_SIM_GPUS (gpu0,gpu1) is the device cgroup of the process: the GPUs that it may use at all.
 */
#define _GNU_SOURCE
#include "hip_stub.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define FAULT_HANG 1
#define FAULT_CRASH 2
#define FAULT_FREE 3
#define FAULT_DEVICES 4
#define FAULT_BUS 5
#define FAULT_EMPTY 6
#define FAULT_NOISE 7

#ifndef HIP_MAJOR
#define HIP_MAJOR 6
#endif
#ifndef INIT_MILLISECONDS
#define INIT_MILLISECONDS 0
#endif
#ifndef MILLISECONDS_PER_DEVICE
#define MILLISECONDS_PER_DEVICE 0
#endif
#ifndef STUB_FAULT
#define STUB_FAULT 0
#endif

enum {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    UNKNOWN = 999
};

/* HIP_INIT of release 5 says "invalid device" where later ones say "no device"; hipGetDeviceCount always says the latter. */
#define NOT_STARTED (HIP_MAJOR == 5 ? INVALID_DEVICE : NO_DEVICE)

enum { MOST_DEVICES = 64, LONGEST_ANSWER = 64 * 1024, MOST_ALLOCATIONS = 1024, PAGE = 4096 };

struct device {
    unsigned gpu_id;
    char bus_id[24];
    unsigned long long total;
    char unique_id[17];
    int compute_units;
};

struct allocation {
    void *address;
    unsigned gpu_id;
    size_t size;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int connection = -1;
static int started; /* the error that every call answers, 0 once the start has succeeded */
static struct device devices[MOST_DEVICES + 1];
static int device_count;
static struct allocation allocations[MOST_ALLOCATIONS];
static __thread int current;

/* -- the control socket ------------------------------------------------------------------------------------------- */

static int connected(void) {
    const char *path = getenv("AIMD_SIM_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (path == NULL || strlen(path) >= sizeof address.sun_path)
        return -1;
    strcpy(address.sun_path, path);
    int descriptor = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor >= 0 && connect(descriptor, (struct sockaddr *)&address, sizeof address) != 0) {
        close(descriptor);
        return -1;
    }
    return descriptor;
}

/* One request and its answer, a line each; 0, or the errno of a refusal. */
static int asked(const char *request, char *answer, size_t room) {
    size_t length = strlen(request), used = 0;
    while (length > 0) {
        ssize_t sent = send(connection, request, length, MSG_NOSIGNAL);
        if (sent <= 0)
            return EPIPE;
        request += sent;
        length -= (size_t)sent;
    }
    do {
        ssize_t got = recv(connection, answer + used, room - 1 - used, 0);
        if (got <= 0)
            return EPIPE;
        used += (size_t)got;
    } while (answer[used - 1] != '\n' && used < room - 1);
    answer[used] = 0;
    if (strstr(answer, "\"ok\":true") != NULL)
        return 0;
    const char *code = strstr(answer, "\"errno\":");
    return code != NULL ? atoi(code + 8) : EPROTO;
}

/* -- the start ---------------------------------------------------------------------------------------------------- */

static int joined(void) {
    char request[1024] = "{\"op\":\"join\"}\n", answer[1024], list[768] = "";
    const char *permitted = getenv("AIMD_SIM_GPUS");
    if (permitted != NULL) {
        char copy[512], *rest = copy;
        snprintf(copy, sizeof copy, "%s", permitted);
        for (char *word; (word = strsep(&rest, ",")) != NULL;) {
            size_t used = strlen(list);
            snprintf(list + used, sizeof list - used, "%s\"%s\"", used ? "," : "", word);
        }
        snprintf(request, sizeof request, "{\"op\":\"join\",\"gpus\":[%s]}\n", list);
    }
    return asked(request, answer, sizeof answer) == 0;
}

static int read_devices(void) {
    static char answer[LONGEST_ANSWER];
    int count = 0;
    if (asked("{\"op\":\"devices\"}\n", answer, sizeof answer) != 0)
        return 0;
    for (const char *at = answer; count < MOST_DEVICES && (at = strstr(at, "{\"gpu_id\":")) != NULL; at++) {
        struct device *device = &devices[count];
        int fields = sscanf(at, "{\"gpu_id\":%u,\"bus_id\":\"%23[^\"]\",\"total\":%llu,\"unique_id\":\"%16[^\"]\","
                                "\"compute_units\":%d}",
                            &device->gpu_id, device->bus_id, &device->total, device->unique_id, &device->compute_units);
        count += fields == 5;
    }
    return count;
}

/* The place that a word of a list of visible devices names, -1 for none. Names are of ROCR_VISIBLE_DEVICES alone. */
static int named(const char *word, int count, int names) {
    if (names && strncmp(word, "GPU-", 4) == 0) {
        for (int place = 0; place < count; place++)
            if (strcasecmp(word + 4, devices[place].unique_id) == 0)
                return place;
        return -1;
    }
    char *end;
    long place = strtol(word, &end, 10);
    return end != word && *end == 0 && place >= 0 && place < count ? (int)place : -1;
}

static int filtered(const char *list, int count, int names) {
    struct device kept[MOST_DEVICES];
    char copy[1024], *rest = copy;
    int left = 0;
    snprintf(copy, sizeof copy, "%s", list);
    for (char *word; left < MOST_DEVICES && (word = strsep(&rest, ",")) != NULL;) {
        int place = named(word, count, names);
        if (place < 0)
            break;
        kept[left++] = devices[place];
    }
    memcpy(devices, kept, sizeof kept[0] * (size_t)left);
    return left;
}

static void pause_for(long milliseconds) {
    struct timespec left = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

static void start(void) {
    started = NOT_STARTED;
    connection = connected();
    if (connection < 0 || !joined())
        return;
    if (STUB_FAULT == FAULT_HANG)
        for (;;)
            pause();
    if (STUB_FAULT == FAULT_CRASH)
        raise(SIGSEGV);
    int count = read_devices();
    const char *runtime = getenv("ROCR_VISIBLE_DEVICES"), *hip = getenv("HIP_VISIBLE_DEVICES");
    if (runtime != NULL)
        count = filtered(runtime, count, 1);
    if (hip == NULL || *hip == 0)
        hip = getenv("CUDA_VISIBLE_DEVICES");
    if (hip != NULL && *hip != 0)
        count = filtered(hip, count, 0);
    pause_for(INIT_MILLISECONDS + (long)MILLISECONDS_PER_DEVICE * count);
    if (count == 0)
        return;
    if (STUB_FAULT == FAULT_DEVICES)
        devices[count++] = devices[0];
    if (STUB_FAULT == FAULT_BUS)
        strcpy(devices[0].bus_id, "0000:fe:00.0");
    if (STUB_FAULT == FAULT_NOISE)
        for (int line = 0; line < 20000; line++)
            printf("{\"failure\":\"no-device\",\"message\":\"line %d\"}\n", line);
    device_count = count;
    started = SUCCESS;
}

static int ready(void) {
    pthread_once(&once, start);
    return started;
}

static int device_ready(int device) {
    int error = ready();
    if (error == SUCCESS && (device < 0 || device >= device_count))
        error = INVALID_DEVICE;
    return error;
}

/* -- HIP ---------------------------------------------------------------------------------------------------------- */

int hipInit(unsigned flags) {
    int error = ready();
    return error != SUCCESS ? error : flags != 0 ? INVALID_VALUE : SUCCESS;
}

int hipGetDeviceCount(int *count) {
    if (count == NULL)
        return INVALID_VALUE;
    *count = ready() == SUCCESS ? device_count : 0;
    return started == SUCCESS ? SUCCESS : NO_DEVICE;
}

int hipSetDevice(int device) {
    int error = device_ready(device);
    if (error == SUCCESS)
        current = device;
    return error;
}

int hipMemGetInfo(size_t *free_bytes, size_t *total) {
    char request[64], answer[1024];
    int error = ready();
    if (error != SUCCESS)
        return error;
    const struct device *device = &devices[current];
    snprintf(request, sizeof request, "{\"op\":\"available\",\"gpu_id\":%u}\n", device->gpu_id);
    pthread_mutex_lock(&lock);
    int refused = asked(request, answer, sizeof answer);
    pthread_mutex_unlock(&lock);
    const char *found = refused ? NULL : strstr(answer, "\"free\":");
    if (found == NULL)
        return INVALID_VALUE;
    if (free_bytes != NULL)
        *free_bytes = STUB_FAULT == FAULT_FREE ? device->total + 1 : strtoull(found + 7, NULL, 10);
    if (total != NULL)
        *total = device->total;
    if (STUB_FAULT == FAULT_EMPTY && free_bytes != NULL && total != NULL)
        *free_bytes = *total = 0;
    return SUCCESS;
}

int hipDeviceTotalMem(size_t *total, int device) {
    int error = device_ready(device);
    if (error == SUCCESS && total == NULL)
        return INVALID_VALUE;
    if (error == SUCCESS)
        *total = devices[device].total;
    return error;
}

int hipDeviceGetPCIBusId(char *text, int length, int device) {
    int error = device_ready(device);
    if (error != SUCCESS)
        return error;
    if (text == NULL || length <= 0)
        return INVALID_VALUE;
    snprintf(text, (size_t)length, "%s", devices[device].bus_id);
    return length <= 12 ? INVALID_VALUE : SUCCESS;
}

int hipDeviceGetUuid(char *sixteen, int device) {
    int error = device_ready(device);
    if (error == SUCCESS)
        memcpy(sixteen, devices[device].unique_id, 16);
    return error;
}

int hipDeviceGetAttribute(int *value, int attribute, int device) {
    unsigned domain, bus, place;
    int error = device_ready(device);
    if (error != SUCCESS)
        return error;
    sscanf(devices[device].bus_id, "%x:%x:%x", &domain, &bus, &place);
    switch (attribute) {
    case 23: /* ComputeCapabilityMajor */
        *value = 9;
        return SUCCESS;
    case 63: /* MultiprocessorCount */
        *value = devices[device].compute_units;
        return SUCCESS;
    case 67: /* PciBusId */
        *value = (int)bus;
        return SUCCESS;
    case 68: /* PciDeviceId */
        *value = (int)place;
        return SUCCESS;
    case 69: /* PciDomainID */
        *value = (int)domain;
        return SUCCESS;
    default:
        return INVALID_VALUE;
    }
}

int hipRuntimeGetVersion(int *version) {
    if (version == NULL)
        return INVALID_VALUE;
    *version = HIP_MAJOR == 5 ? 50221153 : HIP_MAJOR == 6 ? 60443484 : 70253211; /* of 5.2.3, 6.4.3 and 7.2.4 */
    return SUCCESS;
}

int hipDriverGetVersion(int *version) {
    return hipRuntimeGetVersion(version);
}

const char *hipGetErrorName(int error) {
    switch (error) {
    case SUCCESS:
        return "hipSuccess";
    case INVALID_VALUE:
        return "hipErrorInvalidValue";
    case OUT_OF_MEMORY:
        return "hipErrorOutOfMemory";
    case NO_DEVICE:
        return "hipErrorNoDevice";
    case INVALID_DEVICE:
        return "hipErrorInvalidDevice";
    default:
        return "hipErrorUnknown";
    }
}

const char *hipGetErrorString(int error) {
    if (HIP_MAJOR == 5)
        return hipGetErrorName(error);
    switch (error) {
    case SUCCESS:
        return "no error";
    case INVALID_VALUE:
        return "invalid argument";
    case OUT_OF_MEMORY:
        return "out of memory";
    case NO_DEVICE:
        return "no ROCm-capable device is detected";
    case INVALID_DEVICE:
        return "invalid device ordinal";
    default:
        return "unknown error";
    }
}

/* -- memory ------------------------------------------------------------------------------------------------------- */

static int changed_memory(const char *operation, unsigned gpu_id, size_t size) {
    char request[128], answer[1024];
    snprintf(request, sizeof request, "{\"op\":\"%s\",\"gpu_id\":%u,\"size\":%zu}\n", operation, gpu_id, size);
    switch (asked(request, answer, sizeof answer)) {
    case 0:
        return SUCCESS;
    case ENOMEM:
        return OUT_OF_MEMORY;
    default:
        return UNKNOWN;
    }
}

int hipMalloc(void **address, size_t size) {
    int error = ready();
    if (error != SUCCESS)
        return error;
    if (address == NULL)
        return INVALID_VALUE;
    *address = NULL;
    if (size == 0)
        return SUCCESS;
    pthread_mutex_lock(&lock);
    struct allocation *slot = allocations;
    while (slot < allocations + MOST_ALLOCATIONS && slot->address != NULL)
        slot++;
    error = slot == allocations + MOST_ALLOCATIONS ? OUT_OF_MEMORY
                                                   : changed_memory("allocate", devices[current].gpu_id, size);
    if (error == SUCCESS) {
        *slot = (struct allocation){calloc(1, size < PAGE ? size : PAGE), devices[current].gpu_id, size};
        *address = slot->address;
    }
    pthread_mutex_unlock(&lock);
    return error;
}

int hipFree(void *address) {
    int error = ready();
    if (error != SUCCESS || address == NULL)
        return error;
    error = INVALID_VALUE;
    pthread_mutex_lock(&lock);
    for (struct allocation *slot = allocations; slot < allocations + MOST_ALLOCATIONS; slot++)
        if (slot->address == address) {
            error = changed_memory("free", slot->gpu_id, slot->size);
            free(slot->address);
            slot->address = NULL;
            break;
        }
    pthread_mutex_unlock(&lock);
    return error;
}
