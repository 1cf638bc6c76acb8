"""What makes a device wait: a look at the value of a tensor."""

from torch.utils._python_dispatch import TorchDispatchMode

READS = ("_local_scalar_dense", "equal", "nonzero", "masked_select", "_unique2", "unique_dim")


class NoHostReads(TorchDispatchMode):
    """Fails where the value, or a shape that follows from values, is asked of a tensor."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in READS, f"a step reads a value of the device: {name}"
        return func(*args, **(kwargs or {}))
