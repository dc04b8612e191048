"""The commands of `mgm`.

A command imports what it needs when it is called. PyAV, NumPy and PyTorch take long to import, and
`mgm --help` needs none of them.
"""

import mgm.cli.look
import mgm.cli.plan
import mgm.cli.prepare
import mgm.cli.report
import mgm.cli.train
from mgm.cli.base import app
