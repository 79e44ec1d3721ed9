#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "common/pure/embed.h"
#include "common/pure/mem.h"
#include "common/pure/selftest.h"
#include "common/pure/units.h"
#include "worker/devices/child/child.h"
#include "worker/devices/child/opencl.h"

/* What must be filled of the claim; drivers and their contexts keep some of the rest. */
#define FILL_PERCENT    90u
#define MAX_BUFFERS     4096u
#define CHUNK_MIB       (SELFTEST_CHUNK_WORDS * sizeof(cl_uint) / MIB)
#define LANES           64u
#define MATMUL_BATCH    64u
#define MATMUL_MIN_US   200000
#define MATMUL_MAX_RUNS 1000u
#define COPY_MAX_BYTES  ((size_t)256 << 20)
#define COPY_MIN_US     100000
#define COPY_MAX_RUNS   1000u
/* Longest wait for another self-test of a CPU device on this machine. */
#define LOCK_WAIT_S 120u
/* Left to the rest of the machine when a CPU device is filled. */
#define HOST_SPARE_MIB 128u

extern const struct embed_file devices_kernels[];

struct part {
    cl_mem memory;
    uint64_t chunks;
};

struct run {
    uint64_t seed;
    struct selftest_result *result;
    cl_device_id device;
    cl_context context;
    cl_command_queue queue;
    cl_program program;
    struct part *part; /* part_count filled ones, in order of their words */
    uint32_t part_count;
    uint64_t chunks; /* filled in all */
};

/* Keeps the first failure. Returns false, so that failing is one line. */
static bool fail(struct run *run, const char *format, ...) SHEAF_PRINTF(2, 3);

static bool fail(struct run *run, const char *format, ...)
{
    va_list args;

    if (run->result->failure[0] != '\0')
        return false;
    va_start(args, format);
    /* clang-tidy 14 loses va_start when it inlines a function into its callers. */
    /* NOLINTNEXTLINE(clang-analyzer-valist.Uninitialized) */
    vsnprintf(run->result->failure, sizeof(run->result->failure), format, args);
    va_end(args);
    return false;
}

static int64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

/* -- set-up ---------------------------------------------------------------------------------- */

static bool build_program(struct run *run, bool is_cpu)
{
    const struct embed_file *file = &devices_kernels[0];
    size_t length = (size_t)(file->end - file->begin);
    char *source = mem_dup(file->begin, length);
    const char *sources[] = {source};
    char options[160];
    cl_int rc;

    snprintf(options, sizeof(options),
             "-DCHUNK_WORDS=%lluUL -DLANES=%uu -DLANE_START=%lluUL -DLANE_STEP=%uUL",
             (unsigned long long)SELFTEST_CHUNK_WORDS, LANES,
             is_cpu ? (unsigned long long)(SELFTEST_CHUNK_WORDS / LANES) : 1ull,
             is_cpu ? 1u : LANES);
    run->program = clCreateProgramWithSource(run->context, 1, sources, &length, &rc);
    if (rc == CL_SUCCESS)
        rc = clBuildProgram(run->program, 1, &run->device, options, NULL, NULL);
    free(source);
    return rc == CL_SUCCESS || fail(run, "compiler: %s", opencl_error(rc));
}

static bool open_device(struct run *run, const struct device_info *device)
{
    cl_platform_id platform;
    cl_int rc;

    if (!opencl_find(device, &platform, &run->device))
        return fail(run, "no OpenCL driver for this device: install the vendor's OpenCL ICD");
    cl_context_properties properties[] = {CL_CONTEXT_PLATFORM, (cl_context_properties)platform, 0};
    run->context = clCreateContext(properties, 1, &run->device, NULL, NULL, &rc);
    if (rc != CL_SUCCESS)
        return fail(run, "context: %s", opencl_error(rc));
    run->queue = clCreateCommandQueue(run->context, run->device, 0, &rc);
    if (rc != CL_SUCCESS)
        return fail(run, "queue: %s", opencl_error(rc));
    return build_program(run, !device->gpu);
}

/* -- memory ---------------------------------------------------------------------------------- */

static bool set_args(struct run *run, cl_kernel kernel, const size_t *sizes,
                     const void *const *values, cl_uint count)
{
    for (cl_uint i = 0; i < count; i++) {
        cl_int rc = clSetKernelArg(kernel, i, sizes[i], values[i]);
        if (rc != CL_SUCCESS)
            return fail(run, "kernel argument: %s", opencl_error(rc));
    }
    return true;
}

/* Enqueues and waits. */
static cl_int run_kernel(struct run *run, cl_kernel kernel, cl_uint dimensions, const size_t *size)
{
    cl_int rc =
        clEnqueueNDRangeKernel(run->queue, kernel, dimensions, NULL, size, NULL, 0, NULL, NULL);

    return rc == CL_SUCCESS ? clFinish(run->queue) : rc;
}

static cl_kernel make_kernel(struct run *run, const char *name)
{
    cl_int rc;
    cl_kernel kernel = clCreateKernel(run->program, name, &rc);

    if (rc != CL_SUCCESS) {
        (void)fail(run, "kernel %s: %s", name, opencl_error(rc));
        return NULL;
    }
    return kernel;
}

static uint32_t filled_mib(const struct run *run)
{
    return (uint32_t)(run->chunks * CHUNK_MIB);
}

/* One more buffer, filled before the next is asked for: many drivers allocate on first use. */
static bool fill_part(struct run *run, cl_kernel kernel, uint64_t chunks)
{
    cl_ulong seed = run->seed;
    cl_ulong first = run->chunks * SELFTEST_CHUNK_WORDS;
    size_t items = chunks * LANES;
    cl_int rc;
    cl_mem memory = clCreateBuffer(run->context, CL_MEM_READ_WRITE,
                                   chunks * SELFTEST_CHUNK_WORDS * sizeof(cl_uint), NULL, &rc);

    if (rc == CL_SUCCESS) {
        const size_t sizes[] = {sizeof(cl_mem), sizeof(seed), sizeof(first)};
        const void *const values[] = {&memory, &seed, &first};
        if (!set_args(run, kernel, sizes, values, 3)) {
            clReleaseMemObject(memory);
            return false;
        }
        rc = run_kernel(run, kernel, 1, &items);
        if (rc != CL_SUCCESS)
            clReleaseMemObject(memory);
    }
    if (rc != CL_SUCCESS)
        return fail(run, "memory: %u MiB filled, then %s", filled_mib(run), opencl_error(rc));
    run->part[run->part_count++] = (struct part){.memory = memory, .chunks = chunks};
    run->chunks += chunks;
    return true;
}

static bool fill_memory(struct run *run, uint32_t claimed_mib)
{
    uint64_t target = ((uint64_t)claimed_mib * FILL_PERCENT + 99) / 100 / CHUNK_MIB;
    cl_ulong largest = 0;
    cl_ulong total = 0;
    uint64_t step;
    cl_kernel kernel;
    bool good = true;

    if (target == 0)
        return fail(run, "memory: nothing is claimed");
    if (clGetDeviceInfo(run->device, CL_DEVICE_GLOBAL_MEM_SIZE, sizeof(total), &total, NULL)
            != CL_SUCCESS
        || total / MIB / CHUNK_MIB < target)
        return fail(run, "memory: %u MiB are claimed, the driver has %llu MiB", claimed_mib,
                    (unsigned long long)(total / MIB));
    if (clGetDeviceInfo(run->device, CL_DEVICE_MAX_MEM_ALLOC_SIZE, sizeof(largest), &largest, NULL)
            != CL_SUCCESS
        || largest < CHUNK_MIB * MIB)
        return fail(run, "memory: the driver allows no buffers");
    /* At least four, so that a device that repeats one buffer's memory is seen. */
    step = largest / MIB / CHUNK_MIB;
    if (step > (target + 3) / 4)
        step = (target + 3) / 4;
    if ((target + step - 1) / step > MAX_BUFFERS)
        return fail(run, "memory: buffers of %llu MiB are too small",
                    (unsigned long long)(largest / MIB));
    run->part = mem_new(MAX_BUFFERS, sizeof(*run->part));
    kernel = make_kernel(run, "fill");
    while (good && kernel != NULL && run->chunks < target) {
        uint64_t left = target - run->chunks;
        good = fill_part(run, kernel, left < step ? left : step);
    }
    if (kernel != NULL)
        clReleaseKernel(kernel);
    run->result->memory_mib = filled_mib(run);
    return good && kernel != NULL;
}

struct sums {
    cl_mem device_sums;
    cl_mem device_wrong;
    cl_ulong *lane_sums;
    cl_uint *lane_wrong;
};

/* Adds the lanes of each chunk of a part whose lane sums are in host memory. */
static bool collect_part(struct run *run, const struct sums *sums, uint64_t chunks,
                         uint64_t *ret_sum)
{
    for (uint64_t c = 0; c < chunks; c++) {
        uint64_t wrong = 0;
        ret_sum[c] = 0;
        for (uint64_t k = c * LANES; k < (c + 1) * LANES; k++) {
            ret_sum[c] += sums->lane_sums[k];
            wrong += sums->lane_wrong[k];
        }
        if (wrong > 0)
            return fail(run, "memory: %llu words of a MiB were not what was written",
                        (unsigned long long)wrong);
    }
    return true;
}

static bool sum_part(struct run *run, cl_kernel kernel, const struct sums *sums,
                     const struct part *part, uint64_t first_chunk, uint64_t *ret_sum)
{
    cl_ulong seed = run->seed;
    cl_ulong first = first_chunk * SELFTEST_CHUNK_WORDS;
    size_t items = part->chunks * LANES;
    const size_t sizes[] = {sizeof(cl_mem), sizeof(seed), sizeof(first), sizeof(cl_mem),
                            sizeof(cl_mem)};
    const void *const values[] = {&part->memory, &seed, &first, &sums->device_sums,
                                  &sums->device_wrong};
    cl_int rc;

    if (!set_args(run, kernel, sizes, values, 5))
        return false;
    rc = run_kernel(run, kernel, 1, &items);
    if (rc == CL_SUCCESS)
        rc = clEnqueueReadBuffer(run->queue, sums->device_sums, CL_TRUE, 0,
                                 items * sizeof(cl_ulong), sums->lane_sums, 0, NULL, NULL);
    if (rc == CL_SUCCESS)
        rc = clEnqueueReadBuffer(run->queue, sums->device_wrong, CL_TRUE, 0,
                                 items * sizeof(cl_uint), sums->lane_wrong, 0, NULL, NULL);
    if (rc != CL_SUCCESS)
        return fail(run, "memory: reading back: %s", opencl_error(rc));
    return collect_part(run, sums, part->chunks, ret_sum);
}

/* Only now, when all of it is filled: memory that is there twice would show. */
static bool read_memory(struct run *run)
{
    size_t lanes = run->part[0].chunks * LANES; /* no part is larger than the first */
    uint64_t *chunk_sums = mem_new(run->chunks, sizeof(*chunk_sums));
    cl_kernel kernel = make_kernel(run, "sum");
    struct sums sums = {0};
    uint64_t done = 0;
    cl_int rc[2];
    bool good;

    sums.lane_sums = mem_new(lanes, sizeof(*sums.lane_sums));
    sums.lane_wrong = mem_new(lanes, sizeof(*sums.lane_wrong));
    sums.device_sums =
        clCreateBuffer(run->context, CL_MEM_WRITE_ONLY, lanes * sizeof(cl_ulong), NULL, &rc[0]);
    sums.device_wrong =
        clCreateBuffer(run->context, CL_MEM_WRITE_ONLY, lanes * sizeof(cl_uint), NULL, &rc[1]);
    good = kernel != NULL && rc[0] == CL_SUCCESS && rc[1] == CL_SUCCESS;
    if (!good)
        (void)fail(run, "memory: no room for the sums");
    for (uint32_t p = 0; good && p < run->part_count; p++) {
        good = sum_part(run, kernel, &sums, &run->part[p], done, chunk_sums + done);
        done += run->part[p].chunks;
    }
    for (uint32_t k = 0; good && k < SELFTEST_SAMPLES; k++)
        run->result->chunk_sum[k] = chunk_sums[selftest_sample_chunk(run->seed, k, run->chunks)];
    if (rc[0] == CL_SUCCESS)
        clReleaseMemObject(sums.device_sums);
    if (rc[1] == CL_SUCCESS)
        clReleaseMemObject(sums.device_wrong);
    if (kernel != NULL)
        clReleaseKernel(kernel);
    free(sums.lane_sums);
    free(sums.lane_wrong);
    free(chunk_sums);
    return good;
}

/* Device to device, the first two buffers or the halves of the only one. */
static bool copy_memory(struct run *run)
{
    const struct part *from = &run->part[0];
    const struct part *to = &run->part[run->part_count > 1 ? 1 : 0];
    size_t bytes = (to == from ? from->chunks / 2 : to->chunks) * CHUNK_MIB * MIB;
    size_t offset = to == from ? bytes : 0;
    int64_t began;
    int64_t spent = 0;
    uint64_t runs = 0;

    if (bytes > COPY_MAX_BYTES)
        bytes = COPY_MAX_BYTES;
    if (bytes == 0)
        return fail(run, "copy: less than 2 MiB of memory");
    /* The first copy warms up: its time does not count. */
    for (began = 0; runs < COPY_MAX_RUNS && spent < COPY_MIN_US; runs++) {
        cl_int rc = clEnqueueCopyBuffer(run->queue, from->memory, to->memory, 0, offset, bytes, 0,
                                        NULL, NULL);
        if (rc == CL_SUCCESS)
            rc = clFinish(run->queue);
        if (rc != CL_SUCCESS)
            return fail(run, "copy: %s", opencl_error(rc));
        if (runs == 0)
            began = now_us();
        else
            spent = now_us() - began;
    }
    runs--;
    if (spent <= 0)
        spent = 1;
    run->result->copy_mib_s =
        (uint32_t)((uint64_t)(bytes / MIB) * runs * 1000000 / (uint64_t)spent);
    return true;
}

/* -- matmul ---------------------------------------------------------------------------------- */

struct product {
    cl_mem a;
    cl_mem b;
    cl_mem c; /* MATMUL_BATCH slices */
    cl_kernel multiply;
};

static bool time_product(struct run *run, const struct product *product, uint32_t n)
{
    const size_t volume[] = {n, n, MATMUL_BATCH};
    int64_t began = 0;
    int64_t spent = 0;
    uint64_t runs = 0;
    cl_int rc = CL_SUCCESS;

    for (; rc == CL_SUCCESS && runs < MATMUL_MAX_RUNS && spent < MATMUL_MIN_US; runs++) {
        rc = run_kernel(run, product->multiply, 3, volume);
        if (runs == 0)
            began = now_us();
        else
            spent = now_us() - began;
    }
    if (rc != CL_SUCCESS)
        return fail(run, "matmul: %s", opencl_error(rc));
    if (spent <= 0)
        spent = 1;
    /* A multiplication and an addition each; operations per microsecond / 1000 = 10^9 per second.
     */
    run->result->matmul_gflops =
        (uint32_t)((uint64_t)2 * n * n * n * MATMUL_BATCH * (runs - 1) / (uint64_t)spent / 1000);
    if (run->result->matmul_gflops == 0)
        run->result->matmul_gflops = 1;
    return true;
}

/* One slice, which one only the seed tells; any other would have done. */
static bool sum_product(struct run *run, const struct product *product, uint32_t n)
{
    size_t bytes = (size_t)n * n * sizeof(cl_int);
    cl_int *cells = mem_new((size_t)n * n, sizeof(*cells));
    cl_int rc = clEnqueueReadBuffer(run->queue, product->c, CL_TRUE,
                                    run->seed % MATMUL_BATCH * bytes, bytes, cells, 0, NULL, NULL);
    uint64_t sum = 0;

    for (uint32_t i = 0; i < n * n; i++)
        sum += (uint64_t)(int64_t)cells[i] * (1 + i % 8191);
    free(cells);
    run->result->matmul_sum = sum;
    return rc == CL_SUCCESS || fail(run, "matmul: reading back: %s", opencl_error(rc));
}

/* A factor, made here: its entries have one definition. A failure is left in *ret_rc. */
static cl_mem make_factor(struct run *run, uint32_t which, cl_int *ret_rc)
{
    const uint32_t n = SELFTEST_MATMUL_N;
    cl_int *cells = mem_new((size_t)n * n, sizeof(*cells));
    cl_mem memory;

    for (uint32_t i = 0; i < n * n; i++)
        cells[i] = selftest_entry(run->seed, which, i / n, i % n);
    memory = clCreateBuffer(run->context, CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR,
                            (size_t)n * n * sizeof(*cells), cells, ret_rc);
    free(cells);
    return memory;
}

static bool multiply(struct run *run)
{
    const cl_uint n = SELFTEST_MATMUL_N;
    const size_t bytes = (size_t)n * n * sizeof(cl_int) * MATMUL_BATCH;
    struct product product = {0};
    cl_int rc[3];

    product.a = make_factor(run, 0, &rc[0]);
    product.b = make_factor(run, 1, &rc[1]);
    product.c = clCreateBuffer(run->context, CL_MEM_WRITE_ONLY, bytes, NULL, &rc[2]);
    product.multiply = make_kernel(run, "multiply");
    if (rc[0] != CL_SUCCESS || rc[1] != CL_SUCCESS || rc[2] != CL_SUCCESS)
        return fail(run, "matmul: no room for the matrices");
    if (product.multiply == NULL)
        return false;
    const size_t sizes[] = {sizeof(cl_mem), sizeof(cl_mem), sizeof(cl_mem), sizeof(n)};
    const void *const values[] = {&product.a, &product.b, &product.c, &n};
    return set_args(run, product.multiply, sizes, values, 4) && time_product(run, &product, n)
           && sum_product(run, &product, n);
}

/* -- the whole ------------------------------------------------------------------------------- */

static void on_alarm(int signal_number)
{
    (void)signal_number;
}

/*
 * CPU devices of one machine share its memory and its cores: workers of one machine, which run the
 * same program file, test one after the other. A wait that is too long is given up; the test then
 * runs beside the other one.
 */
static void wait_for_turn(void)
{
    struct sigaction action = {.sa_handler = on_alarm}; /* no SA_RESTART: flock is to return */
    int fd = open("/proc/self/exe", O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return;
    sigaction(SIGALRM, &action, NULL);
    alarm(LOCK_WAIT_S);
    (void)!flock(fd, LOCK_EX); /* held until the process ends */
    alarm(0);
}

/* What the cgroup that we see as root still allows; its file cache can go. */
static uint64_t cgroup_available(const char *limit_file, const char *used_file,
                                 const char *stat_file, const char *cache_key)
{
    uint64_t limit = text_read_number("%s", limit_file);
    uint64_t used = text_read_number("%s", used_file);
    uint64_t cache = text_read_key(stat_file, cache_key, 0);

    if (limit == 0)
        return UINT64_MAX;
    used -= cache < used ? cache : used;
    return used < limit ? limit - used : 0;
}

static uint64_t host_available_mib(void)
{
    uint64_t kib = text_read_key("/proc/meminfo", "MemAvailable:", UINT64_MAX);
    uint64_t available = kib == UINT64_MAX ? kib : kib << 10;
    uint64_t v2 = cgroup_available("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current",
                                   "/sys/fs/cgroup/memory.stat", "inactive_file");
    uint64_t v1 = cgroup_available("/sys/fs/cgroup/memory/memory.limit_in_bytes",
                                   "/sys/fs/cgroup/memory/memory.usage_in_bytes",
                                   "/sys/fs/cgroup/memory/memory.stat", "total_inactive_file");

    if (v2 < available)
        available = v2;
    if (v1 < available)
        available = v1;
    return available / MIB;
}

static bool host_has_room(struct run *run, uint32_t claimed_mib)
{
    uint64_t wanted = (uint64_t)claimed_mib * FILL_PERCENT / 100 + HOST_SPARE_MIB;
    uint64_t available = host_available_mib();

    return available >= wanted
           || fail(run, "memory: %llu MiB are to be filled, the machine has %llu MiB free",
                   (unsigned long long)wanted, (unsigned long long)available);
}

void selftest_run(const struct device_info *device, uint64_t seed, struct selftest_result *result)
{
    struct run run = {.seed = seed, .result = result};

    memset(result, 0, sizeof(*result));
    result->device = device->ordinal;
    result->seed = seed;
    if (!device->gpu) {
        wait_for_turn();
        if (!host_has_room(&run, device->memory_mib))
            return;
    }
    /* The handles are not released: the process ends here, and the kernel cleans up. */
    if (open_device(&run, device) && fill_memory(&run, device->memory_mib) && read_memory(&run)
        && copy_memory(&run))
        (void)multiply(&run);
    free(run.part);
}
