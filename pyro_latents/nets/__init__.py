"""Networks: tensors to distribution parameters, with any number of leading dimensions."""
