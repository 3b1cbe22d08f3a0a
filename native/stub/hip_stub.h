/*
 * The part of HIP's ABI that aimd uses, and two functions for test clients. Written from the list of symbols and their
 * types, without a struct of HIP: see native/hip.pyx.
 */
#ifndef AIMD_HIP_STUB_H
#define AIMD_HIP_STUB_H

#include <stddef.h>

int hipInit(unsigned flags);
int hipGetDeviceCount(int *count);
int hipSetDevice(int device);
int hipMemGetInfo(size_t *free, size_t *total);
int hipDeviceTotalMem(size_t *total, int device);
int hipDeviceGetPCIBusId(char *text, int length, int device);
int hipDeviceGetUuid(char *sixteen, int device);
int hipDeviceGetAttribute(int *value, int attribute, int device);
int hipRuntimeGetVersion(int *version);
int hipDriverGetVersion(int *version);
const char *hipGetErrorName(int error);
const char *hipGetErrorString(int error);

int hipMalloc(void **address, size_t size);
int hipFree(void *address);

#endif
