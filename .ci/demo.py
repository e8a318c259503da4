"""Run the first example of the README, on PORT: what `make demo` does."""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

README = pathlib.Path(__file__).resolve().parent.parent / 'README.rst'
PORT = os.environ.get('PORT', '5672')


def code_blocks(text: str) -> list[str]:
    """The python blocks of a reStructuredText, without their indentation."""
    found = re.findall(r'\.\. code-block:: python\n\n((?:(?: {4}.*)?\n)+)', text)
    return [re.sub(r'^ {4}', '', block, flags=re.M).rstrip() + '\n' for block in found]


def main() -> None:
    worker, caller = code_blocks(README.read_text())[:2]
    with tempfile.TemporaryDirectory() as folder:
        for name, source in ('worker.py', worker), ('caller.py', caller):
            source = source.replace('Queue()', f'Queue(port={PORT})')
            (pathlib.Path(folder) / name).write_text(source)
        print('$ python worker.py &', flush=True)
        process = subprocess.Popen([sys.executable, 'worker.py'], cwd=folder)
        try:
            print('$ python caller.py', flush=True)
            caller_command = [sys.executable, 'caller.py']
            subprocess.run(caller_command, cwd=folder, check=True, timeout=60)
        finally:
            process.terminate()
            print(f'worker.py ended with status {process.wait(60)}')


if __name__ == '__main__':
    main()
