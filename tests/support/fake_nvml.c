/*
 * A libnvidia-ml.so.1 of two cards, for machines without one. SHEAF_DEVICE_FAKE=crash dies in
 * nvmlInit_v2, =mig puts card 0 in MIG mode; SHEAF_DEVICE_FAKE_PIDS="PID:MIB PID:MIB" compute on
 * card 1, and the first of them draws on it too.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MIB 1048576ull

struct card {
    int index;
};
struct memory {
    unsigned long long total, free, used;
};
struct pci {
    char legacy[16];
    unsigned int domain, bus, device, id, subsystem;
    char bus_id[32];
};
struct rates {
    unsigned int gpu, memory;
};
struct process {
    unsigned int pid;
    unsigned long long used;
    unsigned int gpu_instance, compute_instance;
};

int nvmlInit_v2(void);
int nvmlShutdown(void);
int nvmlSystemGetDriverVersion(char *out, unsigned int size);
int nvmlDeviceGetCount_v2(unsigned int *count);
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct card **card);
int nvmlDeviceGetUUID(struct card *card, char *out, unsigned int size);
int nvmlDeviceGetName(struct card *card, char *out, unsigned int size);
int nvmlDeviceGetMemoryInfo(struct card *card, struct memory *memory);
int nvmlDeviceGetPciInfo_v3(struct card *card, struct pci *pci);
int nvmlDeviceGetMinorNumber(struct card *card, unsigned int *number);
int nvmlDeviceGetMigMode(struct card *card, unsigned int *now, unsigned int *pending);
int nvmlDeviceGetUtilizationRates(struct card *card, struct rates *rates);
int nvmlDeviceGetTemperature(struct card *card, int sensor, unsigned int *value);
int nvmlDeviceGetPowerUsage(struct card *card, unsigned int *value);
int nvmlDeviceGetComputeRunningProcesses_v3(struct card *card, unsigned int *count,
                                            struct process *list);
int nvmlDeviceGetGraphicsRunningProcesses_v2(struct card *card, unsigned int *count,
                                             struct process *list);

static struct card cards[] = {{0}, {1}};

static int mode_is(const char *mode)
{
    const char *set = getenv("SHEAF_DEVICE_FAKE");

    return set != NULL && strcmp(set, mode) == 0;
}

int nvmlInit_v2(void)
{
    if (mode_is("crash"))
        raise(SIGSEGV);
    return 0;
}

int nvmlShutdown(void)
{
    return 0;
}

int nvmlSystemGetDriverVersion(char *out, unsigned int size)
{
    snprintf(out, size, "535.183.01");
    return 0;
}

int nvmlDeviceGetCount_v2(unsigned int *count)
{
    *count = 2;
    return 0;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, struct card **card)
{
    *card = &cards[index];
    return 0;
}

int nvmlDeviceGetUUID(struct card *card, char *out, unsigned int size)
{
    snprintf(out, size, "GPU-11111111-2222-3333-4444-55555555555%d", card->index);
    return 0;
}

int nvmlDeviceGetName(struct card *card, char *out, unsigned int size)
{
    snprintf(out, size, "NVIDIA GeForce RTX %d", 4080 + card->index * 10);
    return 0;
}

int nvmlDeviceGetMemoryInfo(struct card *card, struct memory *memory)
{
    *memory = (struct memory){24564 * MIB, 20000 * MIB, (4564ull + (unsigned)card->index) * MIB};
    return 0;
}

int nvmlDeviceGetPciInfo_v3(struct card *card, struct pci *pci)
{
    memset(pci, 0, sizeof(*pci));
    pci->bus = 0x65u + (unsigned)card->index;
    snprintf(pci->bus_id, sizeof(pci->bus_id), "00000000:%02X:00.0", pci->bus);
    return 0;
}

/* Not the index: as after a card was taken out. */
int nvmlDeviceGetMinorNumber(struct card *card, unsigned int *number)
{
    *number = 3u + (unsigned)card->index;
    return 0;
}

int nvmlDeviceGetMigMode(struct card *card, unsigned int *now, unsigned int *pending)
{
    *now = *pending = card->index == 0 && mode_is("mig");
    return 0;
}

int nvmlDeviceGetUtilizationRates(struct card *card, struct rates *rates)
{
    *rates = (struct rates){40u + (unsigned)card->index, 10};
    return 0;
}

int nvmlDeviceGetTemperature(struct card *card, int sensor, unsigned int *value)
{
    *value = 60u + (unsigned)card->index + (unsigned)sensor;
    return 0;
}

int nvmlDeviceGetPowerUsage(struct card *card, unsigned int *value)
{
    *value = 250900u + (unsigned)card->index * 1000;
    return 0;
}

static int list_processes(struct card *card, unsigned int limit, unsigned int *count,
                          struct process *list)
{
    const char *text = getenv("SHEAF_DEVICE_FAKE_PIDS");
    unsigned int room = *count;

    *count = 0;
    while (card->index == 1 && text != NULL && *text != '\0' && *count < room && *count < limit) {
        unsigned int pid;
        unsigned long long used;
        int length = 0;
        if (sscanf(text, "%u:%llu%n", &pid, &used, &length) != 2)
            break;
        list[(*count)++] = (struct process){pid, used * MIB, ~0u, ~0u};
        text += length;
    }
    return 0;
}

int nvmlDeviceGetComputeRunningProcesses_v3(struct card *card, unsigned int *count,
                                            struct process *list)
{
    return list_processes(card, 100, count, list);
}

int nvmlDeviceGetGraphicsRunningProcesses_v2(struct card *card, unsigned int *count,
                                             struct process *list)
{
    return list_processes(card, 1, count, list);
}
