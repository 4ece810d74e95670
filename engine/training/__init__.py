"""How the starter model is made: corpus, tokenizer, FIM samples, training, export, score, tuning.

Imports the standard library, numpy, torch, tokenizers and safetensors only, so that it runs from a plain checkout on any
PyTorch machine; of the rest of `engine` only what is as plain: `instruct`, `licences`, `sizes`.
"""
