# `include:` would drop the default target, which is `all`.
workflow.include("workflow/Snakefile", overwrite_default_target=True)
