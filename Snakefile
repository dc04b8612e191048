# The design card names this file here; the workflow catalogue wants workflow/Snakefile.
include: "workflow/Snakefile"
