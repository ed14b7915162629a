#include "tensor.h"

#include "cpu/memory.h"

namespace faigfast {
namespace {

// The part of DLPack's interface (version 0.8, dlpack.h) that a producer on the CPU needs.
struct DLDevice {
    int32_t device_type, device_id;
};

struct DLDataType {
    uint8_t code, bits;
    uint16_t lanes;
};

struct DLTensor {
    void* data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape, *strides;
    uint64_t byte_offset;
};

struct DLManagedTensor {
    DLTensor tensor;
    void* context;
    void (*deleter)(DLManagedTensor*);
};

constexpr int32_t kCpu = 1;
constexpr uint8_t kFloat = 2;

struct Owner {
    DLManagedTensor managed;
    Memory memory;
    std::vector<int64_t> shape;
};

void release_tensor(DLManagedTensor* managed) {
    Owner* owner = static_cast<Owner*>(managed->context);
    release(owner->memory);
    delete owner;
}

// Releases a capsule that no tensor was made from; a consumer renames the capsules it takes.
void release_unconsumed(PyObject* capsule) {
    if (!PyCapsule_IsValid(capsule, "dltensor")) return;
    release_tensor(static_cast<DLManagedTensor*>(PyCapsule_GetPointer(capsule, "dltensor")));
}

}  // namespace

pybind11::capsule new_tensor(std::vector<int64_t> shape) {
    size_t bytes = sizeof(float);
    for (int64_t size : shape) bytes *= size;
    Owner* owner = new Owner{{}, allocate(bytes), std::move(shape)};
    owner->managed = {{owner->memory.start,
                       {kCpu, 0},
                       static_cast<int32_t>(owner->shape.size()),
                       {kFloat, 32, 1},
                       owner->shape.data(),
                       nullptr,
                       0},
                      owner,
                      release_tensor};
    return pybind11::capsule(&owner->managed, "dltensor", release_unconsumed);
}

}  // namespace faigfast
