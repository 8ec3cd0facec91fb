/* Streams and events. Whatever is queued is done at once, so nothing ever has to wait; that the
host asks to wait is counted. No stream is ever captured into a graph. */

#include "null.h"

typedef void *stream;
typedef void *event;

int cudaStreamCreate(stream *out) {
    *out = new_handle();
    return SUCCESS;
}
int cudaStreamCreateWithFlags(stream *out, unsigned flags) {
    return cudaStreamCreate(out);
}
int cudaStreamCreateWithPriority(stream *out, unsigned flags, int priority) {
    return cudaStreamCreate(out);
}
int cudaStreamGetPriority(stream of, int *priority) {
    *priority = 0;
    return SUCCESS;
}
int cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return SUCCESS;
}

int cudaStreamSynchronize(stream of) {
    count(N_stream_syncs, 1);
    return SUCCESS;
}
int cudaStreamQuery(stream of) {
    return SUCCESS;
}
int cudaStreamWaitEvent(stream of, event until, unsigned flags) {
    count(N_event_waits, 1);
    return SUCCESS;
}

int cudaLaunchHostFunc(stream of, void (*function)(void *), void *data) {
    function(data);
    return SUCCESS;
}
int cudaStreamAddCallback(stream of, void (*function)(stream, int, void *), void *data,
                          unsigned flags) {
    function(of, SUCCESS, data);
    return SUCCESS;
}

int cudaEventCreateWithFlags(event *out, unsigned flags) {
    *out = new_handle();
    return SUCCESS;
}
int cudaEventCreate(event *out) {
    return cudaEventCreateWithFlags(out, 0);
}
int cudaEventRecord(event of, stream in) {
    count(N_event_records, 1);
    return SUCCESS;
}
int cudaEventRecordWithFlags(event of, stream in, unsigned flags) {
    return cudaEventRecord(of, in);
}
int cudaEventSynchronize(event of) {
    count(N_event_syncs, 1);
    return SUCCESS;
}
int cudaEventQuery(event of) {
    return SUCCESS;
}
int cudaEventElapsedTime(float *ms, event from, event to) {
    *ms = 1;
    return SUCCESS;
}

int cudaStreamIsCapturing(stream of, int *status) {
    *status = 0;
    return SUCCESS;
}
/* Versions differ in what follows the id. */
int cudaStreamGetCaptureInfo(stream of, int *status, unsigned long long *id) {
    *status = 0;
    if (id) *id = 0;
    return SUCCESS;
}
int cudaStreamGetCaptureInfo_v2(stream of, int *status, unsigned long long *id) {
    return cudaStreamGetCaptureInfo(of, status, id);
}
int cudaStreamGetCaptureInfo_v3(stream of, int *status, unsigned long long *id) {
    return cudaStreamGetCaptureInfo(of, status, id);
}
