"""A model directory: what is believed of it, and how its weights become a model.

`folder` opens files, `json_file` reads JSON, `config`, `vocabulary`, `header` and `table` check what the files say,
`layouts` says which tensors make which weight, `loader` makes the model. Nothing of a checkpoint is ever executed, and
no tensor is touched before everything was checked.
"""
