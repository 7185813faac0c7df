"""`vllm bench throughput` without vLLM's command line, which imports every server that vLLM has."""

from __future__ import annotations

import sys

if __name__ == "__main__":  # vLLM starts its engine's process from this module
    from vllm.benchmarks.throughput import add_cli_args, main
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser = FlexibleArgumentParser(prog="vllm bench throughput")
    add_cli_args(parser)
    sys.exit(main(parser.parse_args()))
