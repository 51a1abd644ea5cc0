# python -m qcdq_program: the console script, without importing torch.
import sys

from qcdq_program import main

sys.exit(main())
