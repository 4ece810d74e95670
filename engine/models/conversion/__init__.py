"""Pickled checkpoints to safetensors, without running anything of them.

`unpickler` makes of a pickle what it says about tensors, with stand-ins for the few functions that tensors need; `archive`
finds pickle and bytes in the two forms that torch has written; `writing` copies the bytes into a safetensors file. All that
happens in `child`, a process that `lockdown` has left nothing but its two open files. `convert` starts it, and checks what it
made.
"""
