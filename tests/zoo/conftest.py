import sys
from pathlib import Path

ZOO = Path(__file__).parents[2] / "examples" / "zoo"
sys.path.insert(0, str(ZOO))  # its scripts import each other as plain modules
