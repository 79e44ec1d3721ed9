#ifndef SHEAF_WORKER_DEVICES_CHILD_OPENCL_H
#define SHEAF_WORKER_DEVICES_CHILD_OPENCL_H

/* The only headers of the child that need OpenCL's. */
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdbool.h>

#include "worker/devices/devices.h"

/* "CL_OUT_OF_RESOURCES", or "OpenCL error N". */
const char *opencl_error(cl_int code);
/* Handles of a listed device. False when the driver has no such device any more. */
bool opencl_find(const struct device_info *device, cl_platform_id *ret_platform,
                 cl_device_id *ret_device);

#endif
