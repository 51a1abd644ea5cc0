# python -m qcdq: the same as the console script.
import sys

from qcdq_program import main

sys.exit(main())
