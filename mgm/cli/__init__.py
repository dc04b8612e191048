"""The commands of `mgm`.

A command imports what it needs when it is called. PyAV, NumPy and PyTorch take long to import, and
`mgm --help` needs none of them.
"""

import mgm.cli.result_commands
import mgm.cli.stage_commands
import mgm.cli.study_commands
import mgm.cli.video_commands
from mgm.cli.base import app
from mgm.cli.prepare_commands import prepare_app

app.add_typer(prepare_app, name="prepare")
